package redirect

import (
	"fmt"
	"os"
	"slices"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/rounds"
)

// cores are the CPUs of a run.
type cores struct {
	// generator makes the frames; tested runs the program under test. They
	// are one CPU unless the layout is TwoCore.
	generator, tested int
	// other is where redirect-cpu sends frames: neither of the two, where
	// there is such a one.
	other int
}

// pickCores finds CPUs that this process may run on.
func pickCores(want rounds.CPU, layout CoreLayout) (cores, error) {
	tested, err := want.Pick()
	if err != nil {
		return cores{}, err
	}
	usable, err := rounds.UsableCPUs()
	if err != nil {
		return cores{}, err
	}
	c := cores{generator: tested, tested: tested, other: tested}
	// Hardware threads of the tested core come last.
	slices.SortStableFunc(usable, func(a, b int) int { return siblings(tested, a) - siblings(tested, b) })
	usable = slices.DeleteFunc(usable, func(cpu int) bool { return cpu == tested })
	if len(usable) > 0 {
		c.other = usable[0]
	}
	if layout == TwoCore {
		if c.other == tested {
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
