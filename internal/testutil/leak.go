package testutil

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// NoLeaks runs the tests of a package and exits. It fails when file
// descriptors that the tests opened are still open at the end:
//
//	func TestMain(m *testing.M) { testutil.NoLeaks(m) }
func NoLeaks(m *testing.M) {
	os.Exit(noLeaks(m.Run, os.Stderr))
}

func noLeaks(run func() int, w io.Writer) int {
	before, err := descriptors()
	if err != nil {
		fmt.Fprintln(w, err)
		return 1
	}
	code := run()
	after, err := descriptors()
	if err != nil {
		fmt.Fprintln(w, err)
		return 1
	}
	for _, fd := range slices.Sorted(maps.Keys(after)) {
		if before[fd] != after[fd] {
			fmt.Fprintf(w, "FAIL: leaked file descriptor %d: %s\n", fd, after[fd])
			code = max(code, 1)
		}
	}
	return code
}

// descriptors returns what each open file descriptor of this process refers
// to, without those the Go runtime opens for itself and keeps.
func descriptors() (map[int]string, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list file descriptors: %w", err)
	}
	open := make(map[int]string, len(entries))
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, fmt.Errorf("list file descriptors: %w", err)
		}
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // the descriptor ReadDir itself used
		}
		// The network poller's two.
		if strings.HasSuffix(target, "[eventpoll]") || strings.HasSuffix(target, "[eventfd]") {
			continue
		}
		open[fd] = target
	}
	return open, nil
}
