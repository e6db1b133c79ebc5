package redirect

import (
	"fmt"

	"golang.org/x/sys/unix"

	"unthunk/feature"
)

// cores are the CPUs of a run.
type cores struct {
	// generator makes the frames; tested runs the program under test. They
	// are one CPU unless the place is TwoCore.
	generator, tested int
	// other is a CPU that is not tested, where there is one.
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
	for _, cpu := range usable {
		if cpu != want {
			c.other = cpu
			break
		}
	}
	if place == TwoCore {
		if c.other == want {
			return cores{}, &feature.Missing{Feature: "a second CPU", Help: "place two-core needs two"}
		}
		c.generator = c.other
	}
	return c, nil
}
