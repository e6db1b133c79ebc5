// Package memory says how much memory this process may have.
package memory

import (
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Limit returns in bytes the least of what the machine has and what the limits of the
// process's cgroups, version 1 or 2, let it use. The kernel ends a process that needs
// more. It is math.MaxUint64 where nothing is known.
func Limit() uint64 { return limit(os.DirFS("/")) }

func limit(root fs.FS) uint64 {
	least := uint64(math.MaxUint64)
	if b, err := fs.ReadFile(root, "proc/meminfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "MemTotal:"); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				if kb, err := strconv.ParseUint(fields[0], 10, 53); err == nil {
					least = kb << 10
				}
			}
		}
	}
	for _, h := range hierarchies(root) {
		for dir := h.dir; ; dir = path.Dir(dir) {
			// "max" of version 2 is no number; "no limit" of version 1 is a large one.
			if b, err := fs.ReadFile(root, path.Join(dir, h.file)); err == nil {
				if n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64); err == nil {
					least = min(least, n)
				}
			}
			if dir == h.mount || dir == "." {
				break
			}
		}
	}
	return least
}

// hierarchy is a tree of cgroups that can limit memory. Paths are below the root.
type hierarchy struct {
	mount string
	// dir is the folder of this process's cgroup.
	dir string
	// file holds a cgroup's limit.
	file string
}

// hierarchies reads where this process stands: proc_pid_cgroup(5), proc_pid_mountinfo(5).
func hierarchies(root fs.FS) (all []hierarchy) {
	cgroups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	mounts, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if len(place) < 5 || len(kind) < 3 {
			continue
		}
		file, controller := "", ""
		switch {
		case kind[0] == "cgroup2":
			file = "memory.max"
		case kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "memory"):
			file, controller = "memory.limit_in_bytes", "memory"
		default:
			continue
		}
		own, ok := cgroup(string(cgroups), controller)
		if !ok {
			continue
		}
		mount := strings.TrimPrefix(path.Clean(place[4]), "/")
		h := hierarchy{mount: mount, dir: mount, file: file}
		// What is mounted may begin below the hierarchy's root, and not hold the cgroup.
		if below, ok := strings.CutPrefix(own, strings.TrimSuffix(place[3], "/")); ok && !strings.HasPrefix(below, "/..") {
			h.dir = path.Join(mount, below)
		}
		all = append(all, h)
	}
	return all
}

// cgroup is this process's cgroup in the hierarchy of a controller; "" is version 2.
func cgroup(cgroups, controller string) (string, bool) {
	for line := range strings.Lines(cgroups) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, own, ok := strings.Cut(rest, ":")
		if ok && slices.Contains(strings.Split(controllers, ","), controller) {
			return own, true
		}
	}
	return "", false
}
