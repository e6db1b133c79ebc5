package perf

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// Event is what is sampled or counted.
type Event struct {
	Name         string
	Type, Config uint64
	// Precise is how precise the address of a sample is asked to be: 0 to 3
	// (perf_event_attr.precise_ip).
	Precise int
}

// Clock samples by a timer of each CPU: it needs no PMU, and runs in virtual
// machines. It fires only where interrupts are on.
var Clock = Event{Name: "cpu-clock", Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}

// Cycles of the core, as precise as 0 to 3 p ask for.
func Cycles(precise int) Event {
	name := "cycles"
	if precise > 0 {
		name += ":" + strings.Repeat("p", precise)
	}
	return Event{Name: name, Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CPU_CYCLES, Precise: precise}
}

// ErrNoEvent is returned for an event that this machine does not have.
var ErrNoEvent = errors.New("no such event on this machine")

// Best is the best event to sample a CPU by: cycles, as precise as they come, or
// the clock where there is no PMU. It returns a [feature.Missing] when there are
// no perf events at all, or not for this user.
func Best(cpu int) (Event, error) {
	for precise := mostPrecise(runtime.GOARCH); precise >= 0; precise-- {
		e := Cycles(precise)
		switch err := try(e, cpu); {
		case err == nil:
			return e, nil
		case !errors.Is(err, ErrNoEvent):
			return e, err
		}
	}
	return Clock, try(Clock, cpu)
}

// mostPrecise is what may be asked for of an architecture. That of arm64 takes whatever is asked for and samples
// as if it were 0 (drivers/perf/arm_pmu.c does not look at precise_ip).
func mostPrecise(arch string) int {
	if arch == "arm64" {
		return 0
	}
	return 3
}

func try(e Event, cpu int) error {
	attr := e.attr()
	attr.Sample = 1 << 20
	fd, err := open(attr, e, AllTasks, cpu)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (e Event) attr() *unix.PerfEventAttr {
	return &unix.PerfEventAttr{
		Type:   uint32(e.Type),
		Size:   unix.PERF_ATTR_SIZE_VER5,
		Config: e.Config,
		// Bits 15 and 16 are precise_ip.
		Bits: unix.PerfBitDisabled | uint64(e.Precise)<<15,
	}
}

func open(attr *unix.PerfEventAttr, e Event, task, cpu int) (fd int, err error) {
	fd, err = unix.PerfEventOpen(attr, task, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return -1, denied(err)
	case errors.Is(err, unix.ENOSYS):
		return -1, &feature.Missing{
			Feature: "perf events", Config: "CONFIG_PERF_EVENTS", Help: "a seccomp filter can refuse them too", Err: err,
		}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.ENODEV) && e.Type != unix.PERF_TYPE_SOFTWARE:
		return -1, fmt.Errorf("open %s on CPU %d: %w: %w", e.Name, cpu, ErrNoEvent, err)
	}
	return -1, fmt.Errorf("open %s on CPU %d: %w", e.Name, cpu, err)
}

// denied says why perf events are refused: not root, or something that refuses root.
func denied(err error) error {
	help := "run with sudo"
	if level, e := os.ReadFile("/proc/sys/kernel/perf_event_paranoid"); e == nil {
		help += ", or with kernel.perf_event_paranoid below 1 (it is " + strings.TrimSpace(string(level)) + ")"
	}
	if feature.Capability(unix.CAP_PERFMON).Held() {
		return feature.Refused(fmt.Errorf("open perf event: %w", err), unix.CAP_PERFMON)
	}
	return &feature.Missing{Feature: "perf events of whole CPUs", Help: help, Err: err}
}

// Online lists the CPUs that are online.
func Online() ([]int, error) {
	const file = "/sys/devices/system/cpu/online"
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read online CPUs: %w", err)
	}
	cpus, err := ParseCPUs(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return cpus, nil
}

// ParseCPUs reads a list of CPUs as the kernel writes it: "0-3,8".
func ParseCPUs(s string) (cpus []int, err error) {
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err := cmp.Or(err1, err2); err != nil {
			return nil, err
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, int(cpu))
		}
	}
	return cpus, nil
}
