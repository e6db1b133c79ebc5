package memory

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	version1 = "41 30 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
	version2 = "30 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	other    = "22 28 0:20 / /proc rw - proc proc rw\n31 30 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
)

func TestLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name            string
		mounts, cgroups string
		files           map[string]string
		want            uint64
	}{
		{"nothing known", "", "", nil, math.MaxUint64},
		{"the machine", other, "0::/\n", map[string]string{"proc/meminfo": "MemTotal:   1024 kB\nMemFree: 1 kB\n"}, 1 << 20},
		{"version 2", other + version2, "0::/a/b\n", map[string]string{"sys/fs/cgroup/a/b/memory.max": "4096\n"}, 4096},
		{"a parent's", version2, "0::/a/b\n", map[string]string{
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "100\n", "sys/fs/cgroup/c/memory.max": "1\n",
		}, 100},
		{"no limit", version2, "0::/a\n", map[string]string{"sys/fs/cgroup/a/memory.max": "max\n"}, math.MaxUint64},
		{"version 1", other + version1, "9:cpu:/z\n5:memory:/a\n", map[string]string{
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "200\n",
			"sys/fs/cgroup/memory/z/memory.limit_in_bytes": "1\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   "9223372036854771712\n",
		}, 200},
		{"a container without a namespace of cgroups", strings.ReplaceAll(version2, "0:27 /", "0:27 /pod/x"), "0::/pod/x\n",
			map[string]string{"sys/fs/cgroup/memory.max": "300\n"}, 300},
		{"outside of the namespace", version2, "0::/../other\n", map[string]string{"sys/fs/cgroup/memory.max": "400\n"}, 400},
	} {
		files := fstest.MapFS{
			"proc/self/mountinfo": {Data: []byte(test.mounts)}, "proc/self/cgroup": {Data: []byte(test.cgroups)},
		}
		for name, text := range test.files {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := limit(files); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// Here it is what the kernel says that the machine has, or less.
func TestLimitHere(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	var kb uint64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d", &kb); err != nil {
		t.Fatal(err)
	}
	if got := Limit(); got == 0 || got > kb<<10 {
		t.Errorf("%d bytes, and the machine has %d KiB", got, kb)
	}
}
