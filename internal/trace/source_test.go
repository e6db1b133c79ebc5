package trace

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// TestLines finds the source of a function of its own in a program that Go built with
// debugging information, which has the form of a kernel's.
func TestLines(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "trace.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-ldflags=-w=0 -compressdwarf=0", "-o", binary, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := NewLines(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		want := map[string]string{"Read": "log.go", "Cut": "tree.go"}[strings.TrimPrefix(s.Name, "github.com/unthunk/unthunk/internal/trace.")]
		if want == "" {
			continue
		}
		for range 2 {
			file, number, ok := lines.At(s.Value)
			if !ok || filepath.Base(file) != want || number < 10 || number > 500 {
				t.Errorf("%s begins at %s:%d, %v", s.Name, file, number, ok)
			}
		}
	}
	if file, number, ok := lines.At(1); ok {
		t.Errorf("code at 1 is of %s:%d", file, number)
	}
}

func TestNoLines(t *testing.T) {
	t.Parallel()
	self, err := os.ReadFile("/proc/self/exe") // go test leaves them out
	if err != nil {
		t.Fatal(err)
	}
	for want, b := range map[string][]byte{"read debugging information": []byte("no ELF"), ErrNoLines.Error(): self} {
		if _, err := NewLines(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// debugged is a vmlinux of one unit at 0x1000 to 0x2000, with a table of lines of version 5 whose header ends with files.
func debugged(files []byte) []byte {
	header := append([]byte{1, 1, 1, 0xfb, 14, 1}, files...)
	line := append([]byte{5, 0, 8, 0, byte(len(header)), 0, 0, 0}, header...)
	line = append([]byte{byte(len(line)), 0, 0, 0}, line...)
	info := []byte{4, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0}
	info = append([]byte{byte(len(info)), 0, 0, 0}, info...)
	abbrev := []byte{1, 0x11, 0, 0x10, 0x17, 0x11, 0x01, 0x12, 0x06, 0, 0, 0} // compile_unit: stmt_list, low_pc, high_pc
	names := "\x00.debug_info\x00.debug_line\x00.debug_abbrev\x00.shstrtab\x00"
	b := make([]byte, 64, 2048)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	headers := make([]byte, 64)
	for _, s := range []struct {
		name string
		kind uint32
		data []byte
	}{{".debug_info", 1, info}, {".debug_line", 1, line}, {".debug_abbrev", 1, abbrev}, {".shstrtab", 3, []byte(names)}} {
		h := make([]byte, 64)
		le.PutUint32(h, uint32(strings.Index(names, s.name)))
		le.PutUint32(h[4:], s.kind)
		le.PutUint64(h[24:], uint64(len(b)))
		le.PutUint64(h[32:], uint64(len(s.data)))
		headers, b = append(headers, h...), append(b, s.data...)
	}
	le.PutUint16(b[16:], 2)  // ET_EXEC
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[40:], uint64(len(b)))
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], 5)
	le.PutUint16(b[62:], 4)
	return append(b, headers...)
}

// A table of files says how many it has: room is made for no more than a unit can have, and nothing panics.
func TestFilesWithoutEnd(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}
	for name, files := range map[string][]byte{
		"folders":         append([]byte{1, 1, 0x08}, huge...),
		"files":           append([]byte{1, 1, 0x08, 1, 'd', 0, 1, 1, 0x08}, huge...),
		"without a value": {0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"unknown form":    {1, 1, 0x7e, 0xff, 0x7f, 0, 0},
	} {
		b := debugged(files)
		testutil.Allocates(t, 40<<20, func() {
			l, err := NewLines(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if file, _, ok := l.At(0x1010); ok {
				t.Errorf("%s: code is of %s", name, file)
			}
		})
	}
	// Of a table that is right the header is taken.
	right := []byte{25, 0, 0, 0, 5, 0, 8, 0, 17, 0, 0, 0, 1, 1, 1, 0xfb, 14, 1, 1, 1, 0x08, 1, 'd', 0, 1, 1, 0x08, 1, 'f'}
	if err := vetHeader(right); err != nil {
		t.Error(err)
	}
	for name, b := range map[string][]byte{
		"long": make([]byte, maxPath+1), "last": append([]byte("a\x00"), bytes.Repeat([]byte("x"), maxPath+1)...),
	} {
		if err := vetPaths(b); (err != nil) != (name == "last") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLines reads debugging information that no compiler wrote.
func FuzzLines(f *testing.F) {
	f.Add([]byte("\x7fELF"), uint64(0))
	f.Add(debugged([]byte{1, 1, 0x08, 1, 'd', 0, 1, 1, 0x08, 1, 'f', 0}), uint64(0x1010))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		// Package elf reads tables in pieces of 10 MiB, before it knows that they are shorter.
		testutil.Allocates(t, uint64(32<<20+512*len(data)), func() {
			if l, err := NewLines(bytes.NewReader(data), int64(len(data))); err == nil {
				l.At(addr)
			}
		})
	})
}
