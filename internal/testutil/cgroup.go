package testutil

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// MemoryCgroup makes a cgroup with a limit of memory, and returns its folder: what writes
// its process ID into cgroup.procs there is in it. It goes with the test. The test is
// skipped where root may make none.
func MemoryCgroup(t testing.TB, limit int) string {
	t.Helper()
	Root(t)
	// Version 1 has a hierarchy for memory; in version 2 the root's children have the file
	// when the root gives them the controller.
	for _, tree := range []struct{ mount, file string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(tree.mount, "unthunk-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		err := writeExisting(filepath.Join(dir, tree.file), strconv.Itoa(limit))
		if err == nil {
			t.Cleanup(func() {
				Eventually(t, "an empty cgroup", func() bool { return os.Remove(dir) == nil })
			})
			return dir
		}
		if errRemove := os.Remove(dir); errRemove != nil {
			t.Fatal(errors.Join(err, errRemove))
		}
	}
	Missing(t, "a cgroup that limits memory")
	return ""
}

// writeExisting writes to a file that is there already.
func writeExisting(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
