package driver

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/unpack"
)

// The types of one kernel are gone when those of the next are read: those of each may take a
// third of the memory that there is.
func TestInspectAllTypes(t *testing.T) {
	var before weak.Pointer[btf.Spec]
	read := 0
	m := Modules{
		paths: []string{filepath.Join(t.TempDir(), "none.ko")},
		types: func(context.Context) (*btf.Spec, int, error) {
			runtime.GC()
			if read > 0 && before.Value() != nil {
				t.Error("the types of the kernel before are in use")
			}
			types := new(btf.Spec)
			before = weak.Make(types)
			read++
			return types, 0, nil
		},
	}
	if _, _, err := InspectAll(t.Context(), []Modules{m, m, m}); err == nil || read != 3 {
		t.Errorf("%d times, %v", read, err)
	}
}

// Finding modules reads no kernel, and named modules are read on all CPUs.
func TestFindReadsNone(t *testing.T) {
	dir := t.TempDir()
	named := filepath.Join(dir, "a.ko")
	folder := filepath.Join(dir, "kernel")
	for _, file := range []string{named, folder + "/boot/vmlinuz-1", folder + "/lib/modules/1/kernel/b.ko"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("neither code nor types"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := Find(t.Context(), []string{named, named, folder})
	if err != nil || len(all) != 2 || len(all[0].paths) != 2 || len(all[1].paths) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, _, err := InspectAll(t.Context(), all[1:]); err == nil || !strings.Contains(err.Error(), "vmlinuz-1") {
		t.Error(err)
	}
}

// A module has to fit beside the types of its kernel, which stay in use.
func TestInspectAllBeside(t *testing.T) {
	exe, err := os.Executable() // an ELF file, with symbols
	if err != nil {
		t.Fatal(err)
	}
	for room, want := range map[int]string{1 << 20: "beside 319 MiB that are in use: at most 320", unpack.MaxHeld: "XDP"} {
		m := Modules{paths: []string{exe}, named: true, types: func(context.Context) (*btf.Spec, int, error) {
			return nil, unpack.MaxHeld - room, nil
		}}
		if _, _, err := InspectAll(t.Context(), []Modules{m}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("room for %d bytes: %v, want %q", room, err, want)
		}
	}
}
