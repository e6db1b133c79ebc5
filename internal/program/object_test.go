package program

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// Objects of anybody are refused or read, in little memory, and one program is found or not.
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
			spec, err := ParseObject(b)
			if err != nil {
				return
			}
			if name, err := choose(spec, "x.o", ""); err == nil && prune(spec, name).Programs[name] == nil {
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
		"more than 131072 symbols":   func(header []byte) { binary.LittleEndian.PutUint64(header[32:], 24<<18) },
		"more than 32 MiB of zeroes": func(header []byte) { header[4], header[35] = byte(elf.SHT_NOBITS), 0x80 },
	} {
		b, err := os.ReadFile("../bpf/count/count_bpfel.o")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseObject(b); err != nil {
			t.Fatal(err)
		}
		symbols := want == "more than 131072 symbols"
		headers, size := binary.LittleEndian.Uint64(b[40:]), uint64(binary.LittleEndian.Uint16(b[58:]))
		for i := range uint64(binary.LittleEndian.Uint16(b[60:])) {
			header := b[headers+i*size:]
			kind := elf.SectionType(binary.LittleEndian.Uint32(header[4:]))
			if symbols && kind == elf.SHT_SYMTAB {
				change(header)
			}
			// There is room for the header of what is packed.
			if !symbols && kind == elf.SHT_PROGBITS && binary.LittleEndian.Uint64(header[32:]) > 24 {
				change(header)
			}
		}
		if _, err := ParseObject(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero"} {
		if _, err := ReadObject(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
