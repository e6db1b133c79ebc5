package trace

import (
	"bytes"
	"debug/elf"
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

// FuzzLines reads debugging information that no compiler wrote.
func FuzzLines(f *testing.F) {
	f.Add([]byte("\x7fELF"), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		// Package elf reads tables in pieces of 10 MiB, before it knows that they are shorter.
		testutil.Allocates(t, uint64(32<<20+512*len(data)), func() {
			if l, err := NewLines(bytes.NewReader(data), int64(len(data))); err == nil {
				l.At(addr)
			}
		})
	})
}
