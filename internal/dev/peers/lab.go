package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/traffic"
)

// twoCPUs are that of the generator and that of the forwarder.
func twoCPUs() (cpus [2]int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return cpus, fmt.Errorf("read CPU affinity: %w", err)
	}
	n := 0
	for cpu := 0; cpu < len(set)*64 && n < 2; cpu++ {
		if set.IsSet(cpu) {
			cpus[n] = cpu
			n++
		}
	}
	if n < 2 {
		return cpus, &feature.Missing{Feature: "a second CPU", Help: "the generator and the forwarder need one each"}
	}
	return cpus, nil
}

// How long a forwarder may take until its first frame has passed, and how long it
// runs before it is measured.
const (
	startTime  = 10 * time.Second
	settleTime = 300 * time.Millisecond
)

// rate is what a forwarder did in a window.
type rate struct {
	frames uint64
	// core is how long the forwarder, and the softirqs that follow from it, had their core, and user how much of that
	// was in user space: by the clock's ticks, of which a sum over rounds tells more than one window.
	core, user time.Duration
}

// mpps is frames by the time that the forwarder had its core, in millions a second. That is what other work on it
// changes least.
func (r rate) mpps() float64 { return float64(r.frames) / float64(r.core.Microseconds()) }

// measure runs a forwarder from a veth to an output of a kind and returns the rate of
// what came out.
//
//	generator → gen ══ fwdin → forwarder → fwdout ══ sink
//
// The generator and the XDP program of fwdin run on cpus[0], all threads of the
// forwarder on cpus[1], and with them what its system calls do: the sink's poll too.
// Other work may take the share limit of both CPUs in that time.
//
// An ifb or dummy has no sink; it counts what it throws away.
func measure(ctx context.Context, command []string, kind string, size int, d time.Duration, cpus [2]int,
	limit float64) (r rate, err error) {
	lab, err := netlab.New(cpus[0])
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	gen, _, err := lab.VethPair("gen", "fwdin")
	if err != nil {
		return r, err
	}
	passed, release, err := addOutput(lab, kind, size)
	if err != nil {
		return r, err
	}
	defer release()
	f, end, err := launch(ctx, lab, command, cpus, passed)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, end()) }()
	quiet := flood(ctx, lab, gen.Index, size)
	defer func() { err = errors.Join(err, quiet()) }()
	if err := f.begin(); err != nil {
		return r, err
	}
	var why error
	for range tries {
		if r, why, err = f.window(d, limit); err != nil || why == nil {
			return r, err
		}
	}
	return r, fmt.Errorf("tried %d times: %w", tries, why)
}

// flood sends frames to a device's peer, as fast as it can, until it is told to end.
func flood(ctx context.Context, lab *netlab.Namespace, ifindex, size int) (end func() error) {
	ctx, cancel := context.WithCancel(ctx)
	sent := make(chan error, 1)
	go func() { sent <- generate(ctx, lab, ifindex, size) }()
	return func() error {
		cancel()
		if err := <-sent; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
}

// launch starts a forwarder. What it has passed is asked with its process id.
func launch(ctx context.Context, lab *netlab.Namespace, command []string, cpus [2]int, passed func(pid int) (uint64, error)) (
	f *forwarding, end func() error, err error) {
	var output bytes.Buffer
	child, err := start(lab, command, cpus, &output)
	if err != nil {
		return nil, nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- child.Wait() }()
	f = &forwarding{pid: child.Process.Pid, cpus: cpus, passed: func() (uint64, error) { return passed(child.Process.Pid) }}
	f.alive = func(d time.Duration) error {
		select {
		case failure := <-exited:
			exited <- failure
			return fmt.Errorf("forwarder ended: %v: %s", failure, reason(output.String()))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d):
			return nil
		}
	}
	return f, func() error { return stop(child, exited) }, nil
}

// addOutput makes the device that frames leave by, and what counts them there: a process
// in the namespace is asked for the statistics of a device with no way on.
func addOutput(lab *netlab.Namespace, kind string, size int) (passed func(pid int) (uint64, error), release func(), err error) {
	if kind != "veth" {
		passed = func(pid int) (uint64, error) { return statistics(pid, "fwdout", kind) }
		return passed, func() {}, addDevice(lab, kind)
	}
	_, sink, err := lab.VethPair("fwdout", "sink")
	if err != nil {
		return nil, nil, err
	}
	program, count, err := counter(size)
	if err != nil {
		return nil, nil, err
	}
	release = func() { program.Close(); count.Close() }
	if err := sink.Attach(program, 0); err != nil {
		release()
		return nil, nil, err
	}
	return func(int) (uint64, error) { return read(count) }, release, nil
}

// forwarding is a forwarder at work.
type forwarding struct {
	pid  int
	cpus [2]int
	// passed is how many frames it has forwarded.
	passed func() (uint64, error)
	// alive waits, and returns an error when the forwarder ends before.
	alive func(time.Duration) error
}

// begin waits until frames pass and a steady state can be expected.
func (f *forwarding) begin() error {
	for deadline := time.Now().Add(startTime); ; {
		if err := f.alive(20 * time.Millisecond); err != nil {
			return err
		}
		n, err := f.passed()
		if err != nil {
			// Mostly because the forwarder is gone, and can say why.
			return cmp.Or(f.alive(time.Second), err)
		}
		if n > 1000 {
			return f.alive(settleTime)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no frame passed within %v", startTime)
		}
	}
}

// reading is what is read before and after a window.
type reading struct {
	others  time.Duration // CPU time of other work on both CPUs
	core    time.Duration // of the forwarder and its softirqs
	process time.Duration // of the forwarder alone
	modes   [2]int        // ticks of the forwarder in user mode and in the kernel
	passed  uint64
	at      time.Time
}

func (f *forwarding) read() (r reading, err error) {
	if r.others, err = others(f.pid, f.cpus); err != nil {
		return r, err
	}
	softirqs := time.Duration(0)
	if r.process, softirqs, err = coreTime(f.pid, f.cpus[1]); err != nil {
		return r, err
	}
	r.core = r.process + softirqs
	if r.modes, err = ticks(strconv.Itoa(f.pid)); err != nil {
		return r, err
	}
	r.passed, err = f.passed()
	r.at = time.Now()
	return r, err
}

// window measures once; why says that this window does not count.
func (f *forwarding) window(d time.Duration, limit float64) (r rate, why, err error) {
	before, err := f.read()
	if err != nil {
		return r, nil, err
	}
	if err := f.alive(d); err != nil {
		return r, nil, err
	}
	after, err := f.read()
	if err != nil {
		return r, nil, cmp.Or(f.alive(time.Second), err)
	}
	core := after.core - before.core
	switch share := (after.others - before.others).Seconds() / after.at.Sub(before.at).Seconds() / 2; {
	case after.passed == before.passed || core < 10*time.Millisecond:
		return r, errors.New("nothing passed"), nil
	case share > limit:
		return r, fmt.Errorf("other work took %.0f %% of both CPUs", 100*share), nil
	}
	user, system := after.modes[0]-before.modes[0], after.modes[1]-before.modes[1]
	part := float64(user) / float64(max(user+system, 1))
	return rate{after.passed - before.passed, core, time.Duration(part * float64(after.process-before.process))}, nil, nil
}

// tries is how often a measurement is tried: when the generator waits for long, or
// other work disturbs, it is made anew.
const tries = 30

// generate sends frames to a device's peer until ctx is done. It is the one user of
// the namespace's thread in that time.
func generate(ctx context.Context, lab *netlab.Namespace, ifindex, size int) error {
	frame, err := traffic.UDPFrame(size)
	if err != nil {
		return err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(ifindex)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
	}})
	if err != nil {
		return fmt.Errorf("load generator: %w", err)
	}
	defer program.Close()
	live := traffic.Live{Program: program, Frame: frame, Batch: 64}
	for ctx.Err() == nil {
		// Each call ends in a wait of some 20 ms, so a second's worth.
		if err := lab.Do(func() error { _, err := live.Send(ctx, 1<<22); return err }); err != nil {
			// The call's end was a signal's, ours or another's.
			if ctx.Err() != nil || errors.Is(err, unix.EINTR) {
				continue
			}
			return err
		}
	}
	return nil
}

// counter is an XDP program that counts frames of one size and drops all.
func counter(size int) (*ebpf.Program, *ebpf.Map, error) {
	count, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, nil, fmt.Errorf("make counter: %w", err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // xdp_md.data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // xdp_md.data_end
		asm.Sub.Reg(asm.R3, asm.R2),
		asm.JNE.Imm(asm.R3, int32(size), "drop"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, count.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("drop"), // XDP_DROP
		asm.Return(),
	}})
	if err != nil {
		count.Close()
		return nil, nil, fmt.Errorf("load sink: %w", err)
	}
	return program, count, nil
}

func read(count *ebpf.Map) (uint64, error) {
	var perCPU []uint64
	if err := count.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read counter: %w", err)
	}
	sum := uint64(0)
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}

// addDevice makes a device that takes frames and does nothing with them.
func addDevice(lab *netlab.Namespace, kind string) error {
	return lab.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "fwdout", 1, 1
		var device netlink.Link = &netlink.Ifb{LinkAttrs: attrs}
		if kind == "dummy" {
			device = &netlink.Dummy{LinkAttrs: attrs}
		}
		if err := netlink.LinkAdd(device); err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) {
				return &feature.Missing{Feature: kind, Help: "modprobe " + kind, Err: err}
			}
			return fmt.Errorf("add %s: %w", kind, err)
		}
		link, err := netlink.LinkByName("fwdout")
		if err != nil {
			return fmt.Errorf("find %s: %w", kind, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", kind, err)
		}
		return nil
	})
}

// statistics is how many frames a device was given to send: tx_packets of a dummy,
// rx_packets of an ifb, which counts there what it is given (drivers/net/ifb.c).
func statistics(pid int, device, kind string) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(rest)
		if name != device || len(fields) < 16 {
			continue
		}
		field := fields[1] // packets received
		if kind == "dummy" {
			field = fields[9] // and sent
		}
		return strconv.ParseUint(field, 10, 64)
	}
	return 0, fmt.Errorf("read statistics: no device %s", device)
}

// start runs a command in the namespace, on cpus[1]. It ends with this process.
func start(lab *netlab.Namespace, command []string, cpus [2]int, output *bytes.Buffer) (*exec.Cmd, error) {
	args := make([]string, len(command))
	for i, arg := range command {
		args[i] = strings.NewReplacer("{in}", "fwdin", "{out}", "fwdout", "{cpu}", strconv.Itoa(cpus[1])).Replace(arg)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	// A child has the namespace, the CPUs and the priority of the thread that makes
	// it, which is the generator's.
	return cmd, lab.Do(func() error {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err != nil {
			return fmt.Errorf("set priority: %w", err)
		}
		if err := pin(cpus[1]); err != nil {
			return err
		}
		err := cmd.Start()
		if err != nil {
			err = fmt.Errorf("start forwarder: %w", err)
		}
		return errors.Join(err, pin(cpus[0]))
	})
}

// others is how long both CPUs have worked for others than a forwarder, this process
// and the kernel's softirqs, in ticks of 10 ms.
func others(pid int, cpus [2]int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	sum := 0
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		for _, cpu := range cpus {
			if len(fields) < 9 || fields[0] != "cpu"+strconv.Itoa(cpu) {
				continue
			}
			// user nice system, irq softirq steal; not idle and iowait.
			for _, i := range []int{1, 2, 3, 6, 7, 8} {
				n, err := strconv.Atoi(fields[i])
				if err != nil {
					return 0, fmt.Errorf("read CPU time: %w", err)
				}
				sum += n
			}
		}
	}
	pids := []string{strconv.Itoa(pid), "self"}
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	for _, file := range comms {
		if name, _ := os.ReadFile(file); strings.HasPrefix(string(name), "ksoftirqd/") {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	for _, pid := range pids {
		own, err := ticks(pid)
		if err != nil {
			return 0, err
		}
		sum -= own[0] + own[1]
	}
	return time.Duration(sum) * 10 * time.Millisecond, nil
}

// ticks is how long a process has been in user mode and in the kernel, in ticks of 10 ms.
func ticks(pid string) (modes [2]int, err error) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return modes, fmt.Errorf("read CPU time: %w", err)
	}
	// The name, in brackets, may hold anything; utime and stime are fields
	// 14 and 15, the 12th and 13th after it (proc_pid_stat(5)).
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return modes, fmt.Errorf("read CPU time: no fields in %q", b)
	}
	for i, field := range fields[11:13] {
		if modes[i], err = strconv.Atoi(field); err != nil {
			return modes, fmt.Errorf("read CPU time: %w", err)
		}
	}
	return modes, nil
}

// coreTime is how long a process has run, and the softirqs of a CPU in its own thread, to the ns.
func coreTime(pid, cpu int) (process, softirqs time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, 0, fmt.Errorf("read CPU time: process %d has no threads", pid)
	}
	for _, file := range files {
		ran, err := runTime(file)
		if err != nil {
			return 0, 0, err
		}
		process += ran
	}
	threads, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, 0, fmt.Errorf("read CPU time: %w", err)
	}
	for _, file := range threads {
		if name, _ := os.ReadFile(file); string(name) == fmt.Sprintf("ksoftirqd/%d\n", cpu) {
			ran, err := runTime(filepath.Join(filepath.Dir(file), "schedstat"))
			if err != nil {
				return 0, 0, err
			}
			softirqs += ran
		}
	}
	return process, softirqs, nil
}

// runTime reads how long a thread has run, 0 for one that has ended.
func runTime(schedstat string) (time.Duration, error) {
	b, err := os.ReadFile(schedstat)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	fields := strings.Fields(string(b))
	if len(fields) == 0 {
		return 0, fmt.Errorf("read CPU time: %s is empty", schedstat)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(n), nil
}

func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	return nil
}

// stop ends a forwarder.
func stop(cmd *exec.Cmd, exited chan error) error {
	cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-exited:
		return nil
	case <-time.After(3 * time.Second):
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end forwarder: %w", err)
	}
	<-exited
	return nil
}

// reason is the first line of what a forwarder said that tells of a failure, or the
// last one.
func reason(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	line := lines[len(lines)-1]
	for _, l := range lines {
		lower := strings.ToLower(l)
		if strings.Contains(lower, "fail") || strings.Contains(lower, "error") {
			line = l
			break
		}
	}
	return strings.TrimSpace(line)
}
