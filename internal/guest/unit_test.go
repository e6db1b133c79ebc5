package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// There are no guests of other architectures, whether there is a QEMU or not.
func TestAvailable(t *testing.T) {
	missing := feature.AsMissing(Available("riscv64"))
	if missing == nil || missing.Feature != "a guest of riscv64" {
		t.Errorf("riscv64: %v", missing)
	}
}

// A kernel of Debian's is named for the architecture that was asked for, once; a file is what it is.
func TestArchName(t *testing.T) {
	other := map[string]string{AMD64: ARM64, ARM64: AMD64}[hostArch()]
	for _, test := range []struct{ kernel, arch, want string }{
		{"debian:6.12-cloud", other, "debian:6.12-cloud-" + other},
		{"debian:6.12-cloud", hostArch(), "debian:6.12-cloud"},
		{"debian:all-cloud", other, "debian:all-cloud-" + other},
		{"debian:6.12-cloud", "", "debian:6.12-cloud"},
		{"debian:6.12-cloud-" + other, hostArch(), "debian:6.12-cloud-" + other},
		{"debian:nothing at all", other, "debian:nothing at all"},
		{"boot/Image", other, "boot/Image"},
	} {
		if got := ArchName(test.kernel, test.arch); got != test.want {
			t.Errorf("%s for %s: %s, want %s", test.kernel, test.arch, got, test.want)
		}
	}
	if CheckArch(ARM64) != nil || CheckArch("arm") == nil {
		t.Error("arm64 is an architecture of guests, and arm is none")
	}
}

// A program of another architecture is refused before a guest boots.
func TestCheckProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	other := map[string]string{AMD64: ARM64, ARM64: AMD64}[hostArch()]
	if err := CheckProgram(self, hostArch()); err != nil {
		t.Error(err)
	}
	for _, path := range []string{self, "/dev/null", filepath.Join(t.TempDir(), "none")} {
		if err := CheckProgram(path, other); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s in guests of %s: %v", path, other, err)
		}
	}
}

// elfHeaders is an ELF program for an architecture of a header and a segment of a type, which holds text.
func elfHeaders(t *testing.T, arch string, segment elf.ProgType, text string) []byte {
	t.Helper()
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(architectures[arch].machine), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	p := elf.Prog64{Type: uint32(segment), Off: 64 + 56, Filesz: uint64(len(text))}
	var b bytes.Buffer
	if err := errors.Join(binary.Write(&b, binary.LittleEndian, h), binary.Write(&b, binary.LittleEndian, p)); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), text...)
}

// A program that others made names no file of this machine, and what is no regular file of bounded size is not read.
func TestForeignProgram(t *testing.T) {
	other := map[string]string{AMD64: ARM64, ARM64: AMD64}[runtime.GOARCH]
	dir := t.TempDir()
	at := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	static := at("static", elfHeaders(t, other, elf.PT_LOAD, ""))
	if err := CheckProgram(static, other); err != nil {
		t.Error(err)
	}
	fifo, sparse := filepath.Join(dir, "fifo"), at("sparse", nil)
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Truncate(sparse, 2<<40)); err != nil {
		t.Fatal(err)
	}
	sections := elfHeaders(t, other, elf.PT_LOAD, "") // millions of them
	binary.LittleEndian.PutUint64(sections[0x28:], 64)
	for path, want := range map[string]string{
		at("dynamic", elfHeaders(t, other, elf.PT_INTERP, "/etc/shadow\x00")): "is not static",
		fifo: "not a regular file", "/dev/zero": "not a regular file", sparse: "more than 256 MiB", at("empty", nil): "no program",
		at("small", make([]byte, 64)): "no program of 64 bits",
	} {
		if err := CheckProgram(path, other); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		a := &archive{w: io.Discard}
		if a.copy(t.Context(), "/init", path); slices.Contains([]string{fifo, "/dev/zero", sparse}, path) != (a.err != nil) {
			t.Errorf("%s is packed: %v", path, a.err)
		}
	}
	testutil.Allocates(t, 1<<20, func() {
		if err := CheckProgram(at("sections", sections), other); err != nil {
			t.Errorf("sections are read: %v", err)
		}
	})
	for _, loader := range []string{"/etc/shadow", "/dev/zero", "/lib64/../etc/shadow", "/lib64/libc.so.6", "/tmp/ld-linux-x86-64.so.2", "x"} {
		_, err := Libraries(at("loader", elfHeaders(t, runtime.GOARCH, elf.PT_INTERP, loader+"\x00")))
		if err == nil || !strings.Contains(err.Error(), "its loader") {
			t.Errorf("loader %s: %v", loader, err)
		}
	}
	for _, name := range []string{"../../etc/shadow", "/etc/shadow"} {
		if path, err := library(name); err == nil {
			t.Errorf("library %s is %s", name, path)
		}
	}
	for _, path := range []string{fifo, "/dev/zero", sparse} {
		if _, err := Libraries(path); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}

// A signal is heard while a large file is packed.
func TestArchiveStopped(t *testing.T) {
	t.Parallel()
	from := filepath.Join(t.TempDir(), "large")
	const size = 64 << 20
	if err := errors.Join(os.WriteFile(from, nil, 0o600), os.Truncate(from, size)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	w := &stopper{after: 1 << 20, stop: func() { cancel(stopped) }}
	a := &archive{w: w}
	a.copy(ctx, "/init", from)
	if err := a.close(); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	if w.n < w.after || w.n > size/2 {
		t.Errorf("%d of %d bytes were copied", w.n, size)
	}
}

// stopper calls stop when after bytes were written.
type stopper struct {
	n, after int
	stop     func()
}

func (s *stopper) Write(b []byte) (int, error) {
	if s.n += len(b); s.n >= s.after {
		s.stop()
	}
	return len(b), nil
}

// FuzzProgram feeds the reader of a program's headers what is none.
func FuzzProgram(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		testutil.Allocates(t, 16<<20+uint64(16*len(b)), func() {
			if e, err := parseProgram(bytes.NewReader(b)); err == nil && len(e.Sections) > 0 {
				t.Error("sections are read")
			}
		})
	})
}

func TestArchive(t *testing.T) {
	var b bytes.Buffer
	a := &archive{w: &b}
	a.file("/a/b/c", []byte("12345"))
	a.file("/a/d", nil)
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if b.Len()%4 != 0 {
		t.Errorf("length %d is no multiple of 4", b.Len())
	}
	var names []string
	for rest := b.Bytes(); len(rest) > 0; {
		header := rest[:110]
		if !bytes.HasPrefix(header, []byte("070701")) {
			t.Fatalf("after %v: bad magic in %q", names, header)
		}
		size, length := field(t, header, 6), field(t, header, 11)
		names = append(names, string(rest[110:110+length-1]))
		rest = rest[(110+length+3)&^3:]
		if names[len(names)-1] == "a/b/c" && string(rest[:size]) != "12345" {
			t.Errorf("a/b/c holds %q", rest[:size])
		}
		rest = rest[(size+3)&^3:]
	}
	if want := []string{"a", "a/b", "a/b/c", "a/d", "TRAILER!!!"}; !slices.Equal(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}

	a = &archive{w: &b}
	a.file("/a/../b", nil)
	if a.close() == nil {
		t.Error("no error for a path that is not clean")
	}
	a = &archive{w: io.Discard, n: maxInitrd - 1<<20}
	a.file("/a", make([]byte, 1<<20))
	if err := a.close(); err == nil || !strings.Contains(err.Error(), "more than 256 MiB") {
		t.Error(err)
	}
}

// field returns the n-th eight-digit field of a header.
func field(t *testing.T, header []byte, n int) int {
	t.Helper()
	var v int
	for _, c := range header[6+8*n:][:8] {
		i := strings.IndexByte("0123456789abcdef", c)
		if i < 0 {
			t.Fatalf("bad digit in %q", header)
		}
		v = v<<4 | i
	}
	return v
}

// Guests whose clock is this machine's boot on a busy one too, and those that count keep their command line, which is in
// records.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		m    Machine
		arch string
		want string
	}{
		{Machine{Append: "quiet"}, AMD64, "console=ttyS0 loglevel=4 panic=-1 no_timer_check quiet"},
		{Machine{}, ARM64, "console=ttyAMA0 loglevel=4 panic=-1"},
		{Machine{Exact: true}, AMD64, "console=ttyS0 loglevel=4 panic=-1 nokaslr cryptomgr.notests=1 tsc_early_khz=1000000 hpet=disable " +
			"pmtmr=0 nolapic_timer no_timer_check initcall_blacklist=jent_mod_init"},
	} {
		if got := test.m.commandLine(architectures[test.arch]); got != test.want {
			t.Errorf("%s, exact %v: %q, want %q", test.arch, test.m.Exact, got, test.want)
		}
	}
}

// Where a CPU of arm64 is emulated, and is no model of hardware, QEMU signs pointers by its own hash.
func TestModel(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		m    Machine
		arch string
		want string
	}{
		{Machine{}, AMD64, "max"},
		{Machine{Exact: true, CPU: "EPYC"}, AMD64, "EPYC"},
		{Machine{}, ARM64, "max,pauth-impdef=on"},
		{Machine{Exact: true, CPU: "max"}, ARM64, "max,pauth-impdef=on,cntfrq=1000000000"},
		{Machine{Exact: true, CPU: "neoverse-n1"}, ARM64, "neoverse-n1,cntfrq=1000000000"},
		{Machine{KVM: true}, ARM64, "max"},
	} {
		if got := test.m.model(architectures[test.arch]); got != test.want {
			t.Errorf("%s, %+v: %q, want %q", test.arch, test.m, got, test.want)
		}
	}
}

func TestModuleName(t *testing.T) {
	tests := []struct {
		path, name string
		ok         bool
	}{
		{"kernel/drivers/net/veth.ko", "veth", true},
		{"kernel/drivers/net/virtio-net.ko.xz", "virtio_net", true},
		{"modules.builtin", "", false},
	}
	for _, tt := range tests {
		name, ok := moduleName(tt.path)
		if ok != tt.ok || ok && name != tt.name {
			t.Errorf("moduleName(%q) = %q, %v; want %q, %v", tt.path, name, ok, tt.name, tt.ok)
		}
	}
}

func TestDebianSources(t *testing.T) {
	const targets = `bookworm http://mirror.test/debian
bookworm-updates http://mirror.test/debian
bookworm-security http://other.test/debian-security
nodistro http://vendor.test/node
`
	const want = `deb [arch=amd64] http://mirror.test/debian bookworm main
deb [arch=amd64] http://other.test/debian-security bookworm-security main
deb [arch=amd64] http://mirror.test/debian bullseye main
deb [arch=amd64] http://other.test/debian-security bullseye-security main
`
	if diff := cmp.Diff(want, debianSources(targets, "amd64", "bookworm", "bullseye")); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	if got := debianSources("jammy http://mirror.test/ubuntu\n", "amd64", "bookworm"); got != "" {
		t.Errorf("sources of another distribution: %q", got)
	}
}

// What a program leaves behind with its output keeps nobody waiting, and once nobody wants the output not even for the time that
// its reader has.
func TestCommandLeavesOutput(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		then   string
		cancel bool
		want   error
	}{{"", false, exec.ErrWaitDelay}, {"", true, context.Canceled}, {"; wait", true, context.Canceled}} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		file := filepath.Join(t.TempDir(), "pid")
		cmd, err := command(ctx, "sh", "-c", "sleep 60 & echo $! >"+file+tt.then)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout = memory.NewHead(1)
		if cmd.WaitDelay = time.Minute; !tt.cancel {
			cmd.WaitDelay = time.Millisecond
		}
		ended := make(chan error, 1)
		go func() { ended <- runProgram(ctx, cmd) }()
		left := 0
		testutil.Eventually(t, "started", func() bool {
			text, _ := os.ReadFile(file)
			left, err = strconv.Atoi(strings.TrimSpace(string(text)))
			return err == nil
		})
		if tt.cancel {
			cancel()
		}
		if err := <-ended; !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
		if err := unix.Kill(left, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

// FuzzDepends feeds depends what is no module.
func FuzzDepends(f *testing.F) {
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = depends(data)
	})
}

// What QEMU says of itself without end ends it.
func TestAnswerEndless(t *testing.T) {
	if text, err := answer(t.Context(), exec.Command("cat", "/dev/zero")); err == nil || err.Error() != "it has more than 1 MiB" {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if text, err := answer(t.Context(), exec.Command("echo", "QEMU")); err != nil || text != "QEMU\n" {
		t.Errorf("%q, %v", text, err)
	}
}

// Results of a guest that ended are read as far as they go.
func TestReadResultsCut(t *testing.T) {
	commands := []Command{{Args: []string{"a"}}, {Args: []string{"b"}}}
	for stream, want := range map[string]string{
		`{"Args":["x"],"Exit":1} {"Exit":`: "read results: unexpected EOF",
		`{} {} {}`:                         "read results: more than 2",
		`{}{"Exit":3}`:                     "",
	} {
		got, err := readResults(strings.NewReader(stream), commands)
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %q", stream, err, want)
		}
		for i := range got {
			if !slices.Equal(got[i].Args, commands[i].Args) {
				t.Errorf("%s: result %d of %q", stream, i, got[i].Args)
			}
		}
	}
}

// A guest names a few options that its kernel lacks: more are no answer, and take no memory.
func TestReadResultsLacks(t *testing.T) {
	commands := []Command{{Args: []string{"a"}}}
	read := func(lacks string) ([]Result, error) {
		return readResults(strings.NewReader(`{"Lacks":`+lacks+`}`), commands)
	}
	got, err := read(`["CONFIG_VETH","CONFIG_NET"]`)
	if err != nil || !slices.Equal(got[0].Lacks, []string{"CONFIG_VETH", "CONFIG_NET"}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := read(`["a"],"lacks":null`); err != nil || len(got[0].Lacks) > 0 {
		t.Errorf("%v, %v", got, err)
	}
	for lacks, want := range map[string]string{
		`["` + strings.Repeat("x", 65) + `"]`:        `option "xxx`,
		`[` + strings.Repeat(`"",`, 100_000) + `""]`: "more than 64 options",
		`[[]]`:                  `option "["`,
		`{"a":["CONFIG_VETH"]}`: "not a list",
		`7`:                     "not a list",
	} {
		testutil.Allocates(t, 2<<20, func() { got, err = read(lacks) })
		if err == nil || !strings.Contains(err.Error(), want) || len(got) > 0 {
			t.Errorf("%.20s: %v, %v, want %q", lacks, got, err, want)
		}
	}
}

// FuzzReadResults feeds readResults what no guest wrote: it takes no more memory than some
// copies of the stream, and what comes out are results of the commands.
func FuzzReadResults(f *testing.F) {
	f.Add([]byte(`{"Args":["a"],"Exit":1,"Stdout":"eHg="} {"Args":`))
	f.Add([]byte(`{} [] 7`))
	f.Add([]byte(`{"Stdout":"AAAA","Stderr":"AAAA","Exit":-1,"Err":"stopped"}{}`))
	f.Add(bytes.Repeat([]byte(`{}`), 300))
	f.Add([]byte(`{"Lacks":["CONFIG_VETH",""]}{"lacks":null}`))
	commands := []Command{{Args: []string{"a"}}, {Args: []string{"b"}}}
	f.Fuzz(func(t *testing.T, data []byte) {
		testutil.Allocates(t, uint64(1<<20+16*len(data)), func() {
			got, err := readResults(bytes.NewReader(data), commands)
			if len(got) > len(commands) || err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%d results: %v", len(got), err)
			}
		})
	})
}
