package testutil

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Compile makes a BPF object of a C source in a folder of the test's own, with debug info (not after -g0), warnings as errors and
// the project's headers. Without the compiler the test is skipped.
func Compile(t testing.TB, source string, flags ...string) (object string) {
	t.Helper()
	const clang = "clang-14"
	if _, err := exec.LookPath(clang); err != nil {
		Missing(t, clang)
	}
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for !exists(filepath.Join(root, "go.mod")) && root != "/" {
		root = filepath.Dir(root)
	}
	object = filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(source), ".c")+".o")
	args := append([]string{"-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-I" + filepath.Join(root, "internal/bpf/headers"),
		"-c", source, "-o", object}, flags...)
	if out, err := exec.Command(clang, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return object
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
