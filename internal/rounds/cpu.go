package rounds

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// CPU is a choice of the core under test. Its zero value chooses the last CPU that this process may run on:
// interrupts and boot-time work like the first.
type CPU struct {
	given  bool
	number int
}

// OnCPU chooses a CPU by its number. A negative number is the zero value, as with the flag --cpu.
func OnCPU(number int) CPU {
	if number < 0 {
		return CPU{}
	}
	return CPU{given: true, number: number}
}

// Number returns the number of the CPU, and false for the zero value.
func (c CPU) Number() (number int, given bool) { return c.number, c.given }

// Pick returns the CPU that was chosen. It fails when this process may not run on it.
func (c CPU) Pick() (int, error) {
	usable, err := UsableCPUs()
	if err != nil {
		return 0, err
	}
	if !c.given {
		return usable[len(usable)-1], nil
	}
	if !slices.Contains(usable, c.number) {
		return 0, fmt.Errorf("CPU %d is not one of those this process may run on: %v", c.number, usable)
	}
	return c.number, nil
}

// UsableCPUs lists the CPUs that this process may run on, in ascending order.
func UsableCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read CPU affinity: %w", err)
	}
	var usable []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			usable = append(usable, cpu)
		}
	}
	return usable, nil
}
