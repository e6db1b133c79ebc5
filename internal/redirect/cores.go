package redirect

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// cores are the CPUs of a run.
type cores struct {
	// generator makes the frames; tested runs the program under test. They
	// are one CPU unless the place is TwoCore.
	generator, tested int
	// other is where redirect-cpu sends frames: neither of the two, where
	// there is such a one.
	other int
}

// pickCores finds CPUs that this process may run on. want is the core under
// test, or -1 for the last one: interrupts and boot-time work like the first.
func pickCores(want int, place Place) (cores, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return cores{}, fmt.Errorf("read CPU affinity: %w", err)
	}
	var usable []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			usable = append(usable, cpu)
		}
	}
	if want < 0 {
		want = usable[len(usable)-1]
	} else if !set.IsSet(want) {
		return cores{}, fmt.Errorf("CPU %d is not one of those this process may run on: %v", want, usable)
	}
	c := cores{generator: want, tested: want, other: want}
	// Hardware threads of the tested core come last.
	slices.SortStableFunc(usable, func(a, b int) int { return siblings(want, a) - siblings(want, b) })
	usable = slices.DeleteFunc(usable, func(cpu int) bool { return cpu == want })
	if len(usable) > 0 {
		c.other = usable[0]
	}
	if place == TwoCore {
		if c.other == want {
			return cores{}, &feature.Missing{Feature: "a second CPU", Help: "place two-core needs two"}
		}
		c.generator = c.other
		if len(usable) > 1 {
			c.other = usable[1]
		}
	}
	return c, nil
}

// siblings is 1 when two CPUs are hardware threads of one core, else 0.
func siblings(a, b int) int {
	list := func(cpu int) string {
		b, _ := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
		return string(b)
	}
	if s := list(a); s != "" && s == list(b) {
		return 1
	}
	return 0
}
