package forward

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// compile makes a BPF object of testdata/large.bpf.c.
func compile(t testing.TB, flags ...string) (path string) {
	t.Helper()
	const clang = "clang-14"
	if _, err := exec.LookPath(clang); err != nil {
		testutil.Missing(t, clang)
	}
	path = filepath.Join(t.TempDir(), "large.o")
	args := append([]string{"-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-I../bpf/headers", "-c",
		"testdata/large.bpf.c", "-o", path}, flags...)
	if out, err := exec.Command(clang, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// A BPF object of the user's decides what is forwarded.
func TestObject(t *testing.T) {
	for engine, m := range map[Engine]string{AFXDP: "BPF_MAP_TYPE_XSKMAP", XDP: "BPF_MAP_TYPE_DEVMAP"} {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			atSink, atGen := veth.Listen(t, w.Namespace, w.sink.Index), veth.Listen(t, w.Namespace, w.gen.Index)
			f := w.open(t, Config{Pairs: pair, Both: true, Engine: engine, Object: compile(t, "-DMAP="+m)})
			for _, way := range []struct {
				from    int
				receive func() []byte
			}{{w.gen.Index, atSink}, {w.sink.Index, atGen}} {
				veth.Send(t, w.Namespace, way.from, veth.Frame(t, 98), veth.Frame(t, 99), veth.Frame(t, 100))
				if got := way.receive(); len(got) != 100 {
					t.Errorf("received %d bytes, want 100", len(got))
				}
			}
			got, err := f.Totals()
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range got.Directions {
				if d.Sent != 1 {
					t.Errorf("%+v", d)
				}
			}
		})
	}
}

// Objects that cannot be used are refused in one line.
func TestObjectRefused(t *testing.T) {
	w := newWires(t)
	rubbish := filepath.Join(t.TempDir(), "rubbish.o")
	if err := os.WriteFile(rubbish, []byte("\x7fELF\x02\x01\x01rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	devmap := compile(t, "-DMAP=BPF_MAP_TYPE_DEVMAP")
	for _, test := range []struct{ name, object, want string }{
		{"rubbish", rubbish, "read BPF object"},
		{"no map", compile(t), "no map of type"},
		{"two programs", compile(t, "-DTWO"), "two XDP programs"},
		{"wrong map", devmap, "no map of type XSKMap"},
	} {
		err := w.Do(func() error {
			f, err := Open(t.Context(), Config{Pairs: pair, Engine: AFXDP, Object: test.object})
			if err == nil {
				f.Close()
			}
			return err
		})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// What is no object of a compiler is refused, and takes little memory.
func FuzzObject(f *testing.F) {
	for _, name := range []string{"count/count_bpfel.o", "tracepoints/tracepoints_bpfel.o"} {
		b, err := os.ReadFile(filepath.Join("../bpf", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// debug/elf reads 10 MiB of a section, whatever the file has.
		testutil.Allocates(t, uint64(64<<20+256*len(b)), func() {
			if spec, name, err := parseObject(b); err == nil && spec.Programs[name] == nil {
				t.Errorf("there is no program %q", name)
			}
		})
	})
}

// An object of some KB that would take GB is refused, and so is what would wait for
// somebody to write.
func TestObjectHostile(t *testing.T) {
	for want, change := range map[string]func(header []byte){
		"is compressed":              func(header []byte) { header[9] |= byte(elf.SHF_COMPRESSED >> 8) },
		"more than 32 MiB of zeroes": func(header []byte) { header[4], header[35] = byte(elf.SHT_NOBITS), 0x80 },
	} {
		b, err := os.ReadFile("../bpf/count/count_bpfel.o")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := parseObject(b); err == nil || err.Error() != "it has no XDP program" {
			t.Fatal(err)
		}
		headers, size := binary.LittleEndian.Uint64(b[40:]), uint64(binary.LittleEndian.Uint16(b[58:]))
		for i := range uint64(binary.LittleEndian.Uint16(b[60:])) {
			header := b[headers+i*size:]
			progbits := elf.SectionType(binary.LittleEndian.Uint32(header[4:])) == elf.SHT_PROGBITS
			if progbits && binary.LittleEndian.Uint64(header[32:]) > 24 { // there is room for the header of what is packed
				change(header)
			}
		}
		if _, _, err := parseObject(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero"} {
		if _, err := loadObject(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
