package progcost

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/memory"
)

// coldBytes is how much memory is walked through to leave nothing in the caches of a CPU: twice its largest one, as the
// oldest line is not always the one that goes, but at most 256 MiB and an eighth of what this process may have. Where
// the kernel does not tell it is 64 MiB.
func coldBytes(cpu int) int {
	largest := 32 << 20
	for index := range 8 {
		b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/cache/index%d/size", cpu, index))
		if err != nil {
			continue
		}
		if size := cacheSize(strings.TrimSpace(string(b))); size > 0 && (index == 0 || size > largest) {
			largest = size
		}
	}
	return int(min(2*uint64(largest), 256<<20, memory.Limit()/8))
}

// cacheSize reads "32768K"; 0 is unknown.
func cacheSize(text string) int {
	unit := 1
	switch {
	case strings.HasSuffix(text, "K"):
		unit = 1 << 10
	case strings.HasSuffix(text, "M"):
		unit = 1 << 20
	}
	n, err := strconv.Atoi(strings.TrimRight(text, "KM"))
	if err != nil || n < 0 || n > 1<<20 {
		return 0
	}
	return n * unit
}
