package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/perf"
)

// cpusOf are the CPUs that poll a device: those that its interrupts go to, or all that are
// online when it has none of its own, when its polls have threads of their own, or when the
// network stack runs the program.
func cpusOf(s *subject) ([]int, error) {
	online, err := perf.Online()
	if err != nil || s.mode != "native" {
		return online, err
	}
	folder := filepath.Join("/sys/class/net", s.device.Name)
	if threaded, err := os.ReadFile(filepath.Join(folder, "threaded")); err == nil && strings.TrimSpace(string(threaded)) != "0" {
		return online, nil
	}
	interrupts, err := os.ReadDir(filepath.Join(folder, "device", "msi_irqs"))
	if err != nil || len(interrupts) == 0 {
		return online, nil
	}
	var cpus []int
	for _, irq := range interrupts {
		b, err := os.ReadFile(filepath.Join("/proc/irq", irq.Name(), "effective_affinity_list"))
		if err != nil {
			return online, nil // of this one it is not known
		}
		list, err := perf.ParseCPUs(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, fmt.Errorf("read CPUs of interrupt %s: %w", irq.Name(), err)
		}
		cpus = append(cpus, list...)
	}
	slices.Sort(cpus)
	cpus = slices.Compact(cpus)
	cpus = slices.DeleteFunc(cpus, func(cpu int) bool { return !slices.Contains(online, cpu) })
	if len(cpus) == 0 {
		return online, nil
	}
	return cpus, nil
}
