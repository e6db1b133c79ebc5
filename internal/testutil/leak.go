package testutil

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
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

// Unchanged runs f, and fails the test when descriptors, goroutines or mappings of kernel
// objects (sockets, BPF maps, perf events) that were not there before stay there after it.
func Unchanged(t testing.TB, f func()) {
	t.Helper()
	// What was told to end takes a moment to.
	before, after, err := unchanged(f, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if after.more(before) {
		t.Errorf("before: %+v, a minute after: %+v", before, after)
	}
}

func unchanged(f func(), wait time.Duration) (before, after held, err error) {
	if before, err = holds(); err != nil {
		return before, after, err
	}
	f()
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		after, err = holds()
		if err != nil || !after.more(before) || time.Now().After(end) {
			return before, after, err
		}
	}
}

func holds() (held, error) {
	open, err := descriptors()
	if err != nil {
		return held{}, err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return held{}, fmt.Errorf("list mappings: %w", err)
	}
	mappings := strings.Count(string(maps), "anon_inode:") + strings.Count(string(maps), "socket:")
	return held{len(open), runtime.NumGoroutine(), mappings}, nil
}

// held is what a process has of each kind.
type held struct{ descriptors, goroutines, mappings int }

func (h held) more(before held) bool {
	return h.descriptors > before.descriptors || h.goroutines > before.goroutines || h.mappings > before.mappings
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
