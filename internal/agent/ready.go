package agent

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/reference"
	"github.com/unthunk/unthunk/internal/rounds"
)

// Limits above which a machine is too busy to be measured.
type Limits struct {
	// Load is that of the load average of a minute, divided by the number of CPUs; of the share of the time that the chosen CPU
	// is busy, and twice that of the other thread of its core; and of the share in which tasks of others had it while it was
	// measured.
	Load float64
	// Steal is that of the time which the hypervisor has of the chosen CPU, in percent.
	Steal float64
}

// The limits unless others are given.
const (
	DefaultMaxLoad  = 0.7
	DefaultMaxSteal = 5
)

// watched is how long a CPU is watched before it is measured: /proc/stat counts in 10 ms.
const watched = 500 * time.Millisecond

// refusal is a refusal to measure.
func refusal(reason, format string, args ...any) *record.AgentRefusal {
	return &record.AgentRefusal{Part: record.PartMeasure, Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// cpuSet reads a list of CPUs, as "0-3,8".
func cpuSet(text string) map[int]bool {
	set := make(map[int]bool)
	for _, field := range strings.Split(strings.TrimSpace(text), ",") {
		first, last, isRange := strings.Cut(field, "-")
		from, err := strconv.Atoi(first)
		if err != nil {
			continue
		}
		to := from
		if isRange {
			if to, err = strconv.Atoi(last); err != nil {
				continue
			}
		}
		for cpu := from; cpu <= to && cpu-from < 1<<16; cpu++ {
			set[cpu] = true
		}
	}
	return set
}

// housekeeping is the last of usable CPUs that the kernel keeps for everybody's work: not of isolcpus=, not of nohz_full=.
func housekeeping(root fs.FS, usable []int) (int, bool) {
	taken := make(map[int]bool)
	for _, file := range []string{"isolated", "nohz_full"} {
		b, err := fs.ReadFile(root, "sys/devices/system/cpu/"+file)
		if err != nil {
			continue
		}
		for cpu := range cpuSet(string(b)) {
			taken[cpu] = true
		}
	}
	for _, cpu := range slices.Backward(usable) {
		if !taken[cpu] {
			return cpu, true
		}
	}
	return 0, false
}

// pick is the CPU to work on: the one that was asked for, or the last housekeeping one. Where nothing can be measured, it is
// one to read on.
func pick(root fs.FS, want rounds.CPU) (int, *record.AgentRefusal) {
	usable, err := rounds.UsableCPUs()
	if err != nil {
		return 0, refusal(record.RefusedCPU, "%v", err)
	}
	last := usable[len(usable)-1]
	if _, given := want.Number(); given {
		cpu, err := want.Pick()
		if err != nil {
			return last, refusal(record.RefusedCPU, "%v", err)
		}
		return cpu, nil
	}
	cpu, ok := housekeeping(root, usable)
	if !ok {
		return last, refusal(record.RefusedCPU, "all CPUs that this process may run on are isolated: name one with --cpu")
	}
	return cpu, nil
}

// loadAverage is that of the last minute, divided by the number of CPUs.
func loadAverage(root fs.FS) (float64, error) {
	b, err := fs.ReadFile(root, "proc/loadavg")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, err
	}
	online := 1
	if b, err := fs.ReadFile(root, "sys/devices/system/cpu/online"); err == nil {
		online = max(1, len(cpuSet(string(b))))
	}
	return load / float64(online), nil
}

// tooBusy says why a machine is too busy to be measured on a CPU, nil when it is not: the load average, then what the CPU
// did while it was watched.
func tooBusy(ctx context.Context, root fs.FS, cpu int, most Limits, watch time.Duration) (*record.AgentRefusal, error) {
	load, err := loadAverage(root)
	switch {
	case err != nil:
		return refusal(record.RefusedLoad, "the load average cannot be read: %v", err), nil
	case load > most.Load:
		return refusal(record.RefusedLoad, "the load average is %.2f a CPU: at most %.2f is measured beside (--max-load)", load, most.Load), nil
	}
	before, ok := reference.ReadTimes(sub(root, "proc"), cpu)
	sibling, hasSibling := reference.SiblingOf(sub(root, "sys"), cpu)
	beside, _ := reference.ReadTimes(sub(root, "proc"), sibling)
	began := time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(watch):
	}
	after, ok2 := reference.ReadTimes(sub(root, "proc"), cpu)
	if !ok || !ok2 {
		return refusal(record.RefusedCPU, "what CPU %d does cannot be read from /proc/stat", cpu), nil
	}
	took := time.Since(began).Seconds()
	if steal := 100 * (after.Stolen - before.Stolen).Seconds() / took; steal > most.Steal {
		return refusal(record.RefusedSteal, "the hypervisor has CPU %d for %.0f %% of the time: at most %.0f %% is measured beside (--max-steal)",
			cpu, steal, most.Steal), nil
	}
	if busy := (after.Busy - before.Busy).Seconds() / took; busy > most.Load {
		return refusal(record.RefusedLoad, "CPU %d is busy for %.0f %% of the time: at most %.0f %% is measured beside (--max-load)", cpu,
			100*busy, 100*most.Load), nil
	}
	if now, _ := reference.ReadTimes(sub(root, "proc"), sibling); hasSibling {
		if busy := (now.Busy - beside.Busy).Seconds() / took; busy > most.Load/2 {
			return refusal(record.RefusedLoad, "CPU %d, a thread of the same core as CPU %d, is busy for %.0f %% of the time, and would get "+
				"slower: at most %.0f %% is measured beside (--max-load)", sibling, cpu, 100*busy, 50*most.Load), nil
		}
	}
	return nil, nil
}

// sub is a folder of root.
func sub(root fs.FS, dir string) fs.FS {
	f, err := fs.Sub(root, dir)
	if err != nil {
		panic(err) // dir is a constant
	}
	return f
}

// disturbed says that others had the CPU while it was measured; nil when they had not.
func disturbed(m *Measured, most Limits) *record.AgentRefusal {
	if m.Others > most.Load {
		return refusal(record.RefusedLoad, "tasks of others had the CPU for %.0f %% of the time of the measurement", 100*m.Others)
	}
	for _, r := range m.References {
		if r.Name == record.Steal && r.Value != nil && r.Value.Median > most.Steal {
			return refusal(record.RefusedSteal, "the hypervisor had the CPU for %.0f %% of the time of the measurement", r.Value.Median)
		}
	}
	return nil
}
