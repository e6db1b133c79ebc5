package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
)

func TestDriversRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(text, []byte("hello, this is a text"), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, zero := filepath.Join(dir, "pipe"), filepath.Join(dir, "zero")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Symlink("/dev/zero", zero)); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, "drivers", []refused{
		{"no file", []string{filepath.Join(dir, "none.ko")}, exitFailed, "no such file"},
		{"empty folder", []string{dir}, exitFailed, "no modules"},
		{"text", []string{text}, exitFailed, "no kernel"},
		{"a pipe", []string{pipe}, exitFailed, "not a regular file"},
		{"a device", []string{zero}, exitFailed, "not a regular file"},
		{"a program", []string{exe}, exitFailed, "no XDP programs"},
		{"flag", []string{"--quick"}, exitUsage, "--quick"},
	})
}

// A kernel package's folder gives a row for each driver, in JSON and as text.
func TestDrivers(t *testing.T) {
	tree := guesttest.Kernel(t, "6.12")
	code, stdout, stderr := unthunk(t, "drivers", tree, "--json")
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var doc struct {
		Kind string
		Rows []struct{ Name, Release, Return string }
	}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, row := range doc.Rows {
		names[row.Name] = true
		if row.Return == "" || !strings.HasPrefix(row.Release, "6.12") {
			t.Errorf("%+v", row)
		}
	}
	for _, name := range []string{"veth", "virtio_net", "mlx5_core", "ena"} {
		if !names[name] {
			t.Errorf("no %s in %v", name, names)
		}
	}
	if code, named, stderr := unthunk(t, "drivers", "debian:6.12-cloud", "--json"); code != exitDone ||
		strings.Count(named, `"name"`) != strings.Count(stdout, `"name"`) {
		t.Errorf("by its name: exit code %d: %s%s, its folder has\n%s", code, stderr, named, stdout)
	}
	if code, stdout, _ := unthunk(t, "drivers", tree); code != exitDone || !strings.Contains(stdout, "left: bulk return") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
}
