// Package count counts how often places in the kernel's code are executed, for which
// network device, and what indirect branches there enter.
package count

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel count count.bpf.c -- -O2 -g -Wall -Werror -I../headers

// Place is an instruction to count at.
type Place struct {
	Function string
	Offset   uint64
	// Register is the one that holds what an indirect branch there enters, "rax" or "x8";
	// empty where nothing is to be told apart.
	Register string
}

func (p Place) String() string { return fmt.Sprintf("%s+%#x", p.Function, p.Offset) }

// Hit is what is counted apart.
type Hit struct {
	// Place is the index in Places.
	Place int
	// Ifindex is the device whose NAPI poll it was in or, with Transmits, the one that
	// redirected frames were handed to; 0 outside of both.
	Ifindex   int
	Transmits bool
	// Called is set in a system call that is told apart, outside of both.
	Called bool
	// Target is what the register held, 0 without one.
	Target uint64
}

// offsetOf is that of a register in struct pt_regs: arch/x86/include/asm/ptrace.h and arch/arm64/include/asm/ptrace.h,
// whose x0 to x30 come first.
func offsetOf(register string) (offset uint64, ok bool) {
	if number, isArm := strings.CutPrefix(register, "x"); isArm {
		n, err := strconv.ParseUint(number, 10, 8)
		return 8 * n, err == nil && n <= 30
	}
	offset, ok = offsets[register]
	return offset, ok
}

// first is the register that holds a function's first argument.
func first() string {
	if runtime.GOARCH == "arm64" {
		return "x0"
	}
	return "rdi"
}

var offsets = map[string]uint64{
	"r15": 0, "r14": 8, "r13": 16, "r12": 24, "rbp": 32, "rbx": 40, "r11": 48, "r10": 56,
	"r9": 64, "r8": 72, "rax": 80, "rcx": 88, "rdx": 96, "rsi": 104, "rdi": 112,
	"": noRegister,
}

const noRegister = 0xffff

// scope is where something begins or ends that is told apart.
type scope struct {
	attach            func(string, *ebpf.Program, *link.KprobeOptions) (link.Link, error)
	function, program string
}

// Counters count until closed.
type Counters struct {
	// Places are those that are counted.
	Places []Place

	coll  *ebpf.Collection
	links []link.Link
	// Room for all hits, that a reading of them needs.
	keys []countHit
	ns   []uint64
}

// New makes counters without a place, for a kernel of these types. What is done in calls, functions that system calls
// run in, is told apart; tasks must not be in them at the same time. It is for a machine of one CPU: which device is
// at work is not kept apart for each. Requires CONFIG_BPF_EVENTS, CONFIG_KPROBE_EVENTS
// and Linux 5.15.
func New(types *btf.Spec, calls ...string) (c *Counters, err error) {
	spec, err := loadCount()
	if err != nil {
		return nil, err
	}
	offset, _ := offsetOf(first())
	if err := spec.Variables[countVarArgument].Set(uint32(offset)); err != nil {
		return nil, fmt.Errorf("load counters: %w", err)
	}
	room := spec.Maps[countMapHits].MaxEntries
	c = &Counters{keys: make([]countHit, room), ns: make([]uint64, room)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	opts := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: types}}
	if c.coll, err = ebpf.NewCollectionWithOptions(spec, opts); err != nil {
		return c, fmt.Errorf("load counters: %w", err)
	}
	// A poll's beginning is noted before anything in it is counted.
	scopes := []scope{
		{link.Kprobe, "irq_enter_rcu", countProgInterruptBegins},
		{link.Kprobe, "irq_exit_rcu", countProgInterruptEnds},
		{link.Kprobe, "__napi_poll", countProgPollBegins},
		{link.Kretprobe, "__napi_poll", countProgPollEnds},
		{link.Kprobe, "bq_xmit_all", countProgTransmitBegins},
		{link.Kretprobe, "bq_xmit_all", countProgTransmitEnds},
	}
	for _, call := range calls {
		scopes = append(scopes, scope{link.Kprobe, call, countProgCallBegins}, scope{link.Kretprobe, call, countProgCallEnds})
	}
	for _, scope := range scopes {
		l, err := scope.attach(scope.function, c.coll.Programs[scope.program], nil)
		if err != nil {
			return c, fmt.Errorf("attach counters: %w", err)
		}
		c.links = append(c.links, l)
	}
	return c, nil
}

// Add counts at a place from now on. The kernel refuses some, as the code of entry paths
// and of kprobes themselves.
func (c *Counters) Add(p Place) error {
	offset, ok := offsetOf(p.Register)
	if !ok {
		return fmt.Errorf("count at %v: there is no register %q", p, p.Register)
	}
	l, err := link.Kprobe(p.Function, c.coll.Programs[countProgCount],
		&link.KprobeOptions{Offset: p.Offset, Cookie: offset<<32 | uint64(len(c.Places))})
	if err != nil {
		return fmt.Errorf("count at %v: %w", p, err)
	}
	c.Places, c.links = append(c.Places, p), append(c.links, l)
	return nil
}

// Hits are the counts so far.
func (c *Counters) Hits() (map[Hit]uint64, error) {
	var lost uint64
	if err := c.coll.Variables[countVarLost].Get(&lost); err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	if lost > 0 {
		return nil, fmt.Errorf("read counters: there was no room for %d counts", lost)
	}
	// One system call for all of them, and not two for each.
	var from ebpf.MapBatchCursor
	n, err := c.coll.Maps[countMapHits].BatchLookup(&from, c.keys, c.ns, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // which is the end of the map
		return nil, fmt.Errorf("read counters: %w", err)
	}
	hits := make(map[Hit]uint64, n)
	for i, key := range c.keys[:n] {
		hits[Hit{Place: int(key.Place), Ifindex: int(key.Ifindex), Transmits: key.Transmits != 0,
			Called: key.Called != 0, Target: key.Target}] = c.ns[i]
	}
	return hits, nil
}

// Close takes the probes away.
func (c *Counters) Close() error {
	var errs []error
	for _, l := range c.links {
		errs = append(errs, l.Close())
	}
	if c.coll != nil {
		c.coll.Close()
	}
	return errors.Join(errs...)
}
