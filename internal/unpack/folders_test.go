package unpack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFolders(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b/x.ko", "a/y.ko", "a/z/u.ko"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	folders := NewFolders(ctx, os.DirFS(dir))
	names, err := fs.Glob(folders, "*/*.ko")
	if want := "a/y.ko b/x.ko"; err != nil || strings.Join(names, " ") != want {
		t.Errorf("%q, %v, want %q", names, err, want)
	}
	if _, err := folders.ReadDir("pipe"); err == nil {
		t.Error("a pipe was read")
	}
	if folders.Err() != nil {
		t.Error(folders.Err())
	}
	cancel()
	if _, err := folders.ReadDir("a"); !errors.Is(err, context.Canceled) || !errors.Is(folders.Err(), context.Canceled) {
		t.Error(err, folders.Err())
	}
}

// A folder of more names than a package may have is refused, also where fs.Glob passes over errors.
func TestFoldersLimit(t *testing.T) {
	dir := t.TempDir()
	for i := range MaxNames + 1 {
		if err := unix.Mknod(filepath.Join(dir, fmt.Sprintf("vmlinuz-%d", i)), unix.S_IFREG|0o600, 0); err != nil {
			t.Fatal(err)
		}
	}
	folders := NewFolders(t.Context(), os.DirFS(dir))
	if names, err := fs.Glob(folders, "vmlinuz-*"); len(names) > 0 || err != nil || folders.Err() == nil {
		t.Errorf("%d names, %v, %v", len(names), err, folders.Err())
	}
	if err := os.Remove(filepath.Join(dir, "vmlinuz-0")); err != nil {
		t.Fatal(err)
	}
	folders = NewFolders(t.Context(), os.DirFS(dir))
	if names, err := fs.Glob(folders, "vmlinuz-*"); len(names) != MaxNames || err != nil || folders.Err() != nil {
		t.Errorf("%d names, %v, %v", len(names), err, folders.Err())
	}
}
