package profile

import "strings"

// Outside is what a CPU did while packets went through it that is no packet's work. Its
// time is in no stage, and not in the time of a packet either. Its text is in records.
type Outside string

// What a CPU does besides packets.
const (
	// Inside is the packet's work.
	Inside Outside = ""
	// OtherTasks are those that neither send packets nor belong to unthunk. What they
	// do for packets, in a softirq that interrupts them, is the packet's.
	OtherTasks Outside = "other-tasks"
	// Interrupts are those of devices and other CPUs, exceptions, and what they put
	// off to softirqs.
	Interrupts Outside = "interrupts"
	// Timers are the kernel's tick and its timers.
	Timers Outside = "timers"
	// RCU is what RCU does in interrupts and softirqs.
	RCU Outside = "rcu"
	// Scheduler is switching from task to task and balancing between CPUs.
	Scheduler Outside = "scheduler"
	// Sampling is what it takes to take samples and to read them.
	Sampling Outside = "sampling"
	// Idle is a CPU without work.
	Idle Outside = "idle"
)

// Outsides are all of them, in the order they are shown.
func Outsides() []Outside {
	return []Outside{OtherTasks, Interrupts, Timers, RCU, Scheduler, Sampling, Idle}
}

// task is whose task a CPU was in when it was sampled.
type task uint8

const (
	// anyTask is one of a CPU that nobody sends from: real devices.
	anyTask task = iota
	// sender sends the packets.
	sender
	// unthunk is another thread of this process.
	unthunk
	// another is any other.
	another
)

// outside is what a task does that does nothing for packets.
func (t task) outside() Outside {
	if t == unthunk || t == sender {
		return Sampling
	}
	return OtherTasks
}

// elsewhere is where time goes that only the task tells of: it is the sender's own, or
// none of the packet's.
func (t task) elsewhere() Outside {
	if t == sender {
		return Inside
	}
	return t.outside()
}

// interruptions tells by functions what an interrupt, a softirq or a task's own
// scheduling is about.
var interruptions = []struct {
	prefix string
	about  Outside
}{
	{"perf_", Sampling}, {"__perf_", Sampling}, {"x86_pmu_handle_irq", Sampling},
	{"rcu_", RCU},
	{"tick_", Timers}, {"run_timer_softirq", Timers}, {"hrtimer_run_softirq", Timers},
	{"__schedule", Scheduler}, {"schedule", Scheduler}, {"preempt_schedule", Scheduler},
	{"sched_", Scheduler}, {"run_rebalance_domains", Scheduler},
}

// interruption is what interrupted the packet's work. The outermost function that tells
// decides: the tick calls the scheduler and RCU.
func interruption(frames []Frame) Outside {
	for i := len(frames) - 1; i >= 0; i-- {
		for _, f := range interruptions {
			if strings.HasPrefix(frames[i].Function, f.prefix) {
				return f.about
			}
		}
	}
	return Interrupts
}
