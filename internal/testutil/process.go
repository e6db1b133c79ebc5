package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Children are the processes that a process has started, by id, as /proc has them: none of a process that is gone. One whose
// parent thread ends meanwhile may be missing, as it is handed to another.
//
// It skips the test where the kernel was built without CONFIG_PROC_CHILDREN.
func Children(t testing.TB, pid int) (ids []int) {
	t.Helper()
	if _, err := os.Stat("/proc/thread-self/children"); err != nil {
		Missing(t, "CONFIG_PROC_CHILDREN")
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		list, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		for _, id := range strings.Fields(string(list)) {
			n, err := strconv.Atoi(id)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, n)
		}
	}
	return ids
}
