package tax

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/stat"
)

// maxDispatcher bounds how many programs are attached to fill the dispatcher.
// It holds 48 (BPF_DISPATCHER_MAX in include/linux/bpf.h).
const maxDispatcher = 64

// dispatcher reads the programs that stand in the BPF dispatcher for XDP: the
// targets of its compare tree. fallback is how a program that is not in it is
// called.
func (c *code) dispatcher() (programs []uint64, fallback string, err error) {
	entry, ok := c.kernel("bpf_dispatcher_xdp_func")
	if !ok {
		return nil, "", errNoDispatcher
	}
	image, err := c.jumpsTo(entry.addr)
	if err != nil {
		return nil, "", err
	}
	walked := make(map[uint64]bool)
	for todo := []uint64{image}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		if walked[at] || len(walked) > 4*maxDispatcher {
			continue
		}
		walked[at] = true
		insts, err := c.node(at)
		if err != nil {
			return nil, "", err
		}
		for _, inst := range insts {
			switch {
			case inst.Kind == branch.JumpCond && inst.Asm.Op == x86asm.JE:
				programs = append(programs, inst.Target)
			case inst.Kind == branch.JumpCond:
				todo = append(todo, inst.Target)
			case inst.Kind == branch.JumpDirect || inst.Kind == branch.JumpIndirect:
				fallback = inst.Text(c.table.Starts)
			}
		}
	}
	return programs, fallback, nil
}

// jumpsTo follows the dispatcher's function to its code: by the direct jump or
// call that is patched into it, and through the trampoline of a static call.
func (c *code) jumpsTo(addr uint64) (uint64, error) {
	for range 3 {
		insts, err := c.node(addr)
		if err != nil {
			return 0, err
		}
		i := slices.IndexFunc(insts, func(i branch.Inst) bool {
			return i.Kind == branch.JumpDirect || i.Kind == branch.CallDirect
		})
		if i < 0 {
			return addr, nil
		}
		name, _ := c.table.Starts(insts[i].Target)
		switch {
		case strings.HasPrefix(name, "__x86_indirect_"):
			return addr, nil
		case strings.HasPrefix(name, "__SCT__"), addr == insts[i].Addr:
			addr = insts[i].Target
		default:
			return insts[i].Target, nil
		}
	}
	return addr, nil
}

// node decodes from addr to the first instruction that does not go on: a node of
// the tree, and its children to the left.
func (c *code) node(addr uint64) ([]branch.Inst, error) {
	b := make([]byte, 256)
	if err := c.text.ReadAddr(b, addr); err != nil {
		return nil, err
	}
	var insts []branch.Inst
	for inst := range branch.Decode(b, addr) {
		insts = append(insts, inst)
		if inst.Kind == branch.JumpDirect || inst.Kind == branch.JumpIndirect || inst.Kind == branch.Return || inst.Kind == branch.Bad {
			break
		}
	}
	return insts, nil
}

// dispatched tells whether a program stands in the dispatcher, and how many do.
func (c *code) dispatched(p *ebpf.Program) (in bool, size int, fallback string, err error) {
	functions, err := c.functions(p)
	if err != nil {
		return false, 0, "", err
	}
	if functions == nil {
		return false, 0, "", refusal(errNoJIT)
	}
	programs, fallback, err := c.dispatcher()
	main := functions[0]
	in = slices.ContainsFunc(programs, func(addr uint64) bool { return addr >= main.addr && addr < main.addr+main.size })
	return in, len(programs), fallback, err
}

// Sizes of one climb.
const (
	climbPrograms = 6               // programs loaded afresh at each size
	climbSlots    = 16              // of each arm
	climbRuns     = 10_000          // of the program in a slot
	climbTime     = 2 * time.Second // what it takes, about
)

// climb fills the dispatcher step by step and times a program's call at each
// size. Every program is loaded afresh climbPrograms times a size.
type climb struct {
	code *code
	lab  *netlab.Namespace
	// devices are interface indices. The first is for the program that is
	// measured, the i-th after it for the i-th filler.
	devices []int
	// fillers are attached, and take room in the dispatcher.
	fillers []*ebpf.Program
	// inside has the times of programs in the dispatcher, by its size;
	// outside those of programs beside a full one. Both as a multiple of
	// the reference's, which ran in turn with them: sizes are not timed at
	// one moment, and the machine has moods.
	inside  map[int][]float64
	outside []float64
	// refused are sizes that the dispatcher never had, and why.
	refused map[int]string
	// reference runs in the same test loop and is never in the dispatcher.
	reference   *ebpf.Program
	referenceNs []float64
	premise     string
}

// Why a climb has no price.
const (
	errNoDispatcher  = refusal("this kernel has no BPF dispatcher for XDP: every program is called indirectly")
	errNotDispatched = refusal("an attached program does not stand in the dispatcher")
	errNotFull       = refusal("the dispatcher never fills up: no program can be kept outside")
	errDisturbed     = refusal("somebody else changed the dispatcher meanwhile")
)

func (c *climb) run(ctx context.Context, sizes []int) error {
	for i := range (maxDispatcher + 3) / 2 {
		a, b, err := c.lab.VethPair(fmt.Sprintf("da%d", i), fmt.Sprintf("db%d", i))
		if err != nil {
			return err
		}
		c.devices = append(c.devices, a, b)
	}
	before, _, err := c.code.dispatcher()
	if err != nil {
		return err
	}
	if c.reference, err = price.Load("reference"); err != nil {
		return err
	}
	for _, size := range sizes {
		if size == full {
			continue
		}
		// The user's own programs count.
		for len(before)+len(c.fillers) < size-1 {
			if _, err := c.fill(); err != nil {
				return err
			}
		}
		if err := c.measure(ctx, size); err != nil {
			return err
		}
	}
	if !slices.Contains(sizes, full) {
		return nil
	}
	for in := true; in; {
		if len(c.fillers) == maxDispatcher {
			return errNotFull
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if in, err = c.fill(); err != nil {
			return err
		}
	}
	// The last filler found no room. The first one makes some for the program
	// that is measured.
	if err := c.lab.Detach(c.devices[1]); err != nil {
		return err
	}
	return c.measureFull(ctx)
}

// fill attaches one more program and reports whether it stands in the
// dispatcher.
func (c *climb) fill() (in bool, err error) {
	p, err := price.Load("nothing")
	if err != nil {
		return false, err
	}
	c.fillers = append(c.fillers, p)
	if err := c.lab.Attach(p, c.devices[len(c.fillers)], link.XDPGenericMode); err != nil {
		return false, err
	}
	in, _, _, err = c.code.dispatched(p)
	return in, err
}

// attached loads a program, attaches it, runs f and takes it off again.
func (c *climb) attached(f func(*ebpf.Program) error) (err error) {
	p, err := price.Load("nothing")
	if err != nil {
		return err
	}
	defer p.Close()
	if err := c.lab.Attach(p, c.devices[0], link.XDPGenericMode); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.lab.Detach(c.devices[0])) }()
	return f(p)
}

func (c *climb) measure(ctx context.Context, size int) error {
	for range climbPrograms {
		err := c.attached(func(p *ebpf.Program) error {
			in, programs, _, err := c.code.dispatched(p)
			if err != nil || !in {
				return cmp.Or(err, error(errNotDispatched))
			}
			if programs != size {
				c.refused[size] = fmt.Sprintf("%d programs stand in the dispatcher, not %d: others have theirs there", programs, size)
				return nil
			}
			multiples, err := c.time(ctx, p)
			if err != nil {
				return err
			}
			c.inside[size] = append(c.inside[size], multiples[0])
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *climb) measureFull(ctx context.Context) error {
	for range climbPrograms {
		err := c.attached(func(in *ebpf.Program) error {
			out, err := price.Load("nothing")
			if err != nil {
				return err
			}
			defer out.Close()
			isIn, size, fallback, err := c.code.dispatched(in)
			if err != nil {
				return err
			}
			isOut, _, _, err := c.code.dispatched(out)
			if err != nil {
				return err
			}
			if !isIn || isOut {
				return errDisturbed
			}
			c.premise = fmt.Sprintf("of %d programs in the compare tree one is the program inside; outside it ends in %s", size, fallback)
			multiples, err := c.time(ctx, in, out)
			if err != nil {
				return err
			}
			c.inside[full] = append(c.inside[full], multiples[0])
			c.outside = append(c.outside, multiples[1])
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// time runs programs and the reference in turn. It returns the low quantile of
// each one's slots as a multiple of the reference's.
func (c *climb) time(ctx context.Context, programs ...*ebpf.Program) ([]float64, error) {
	all := append([]*ebpf.Program{c.reference}, programs...)
	slots := make([][]float64, len(all))
	opts := ebpf.RunOptions{Data: make([]byte, 64), Repeat: climbRuns}
	err := c.lab.Do(func() error {
		for range climbSlots {
			if err := ctx.Err(); err != nil {
				return err
			}
			for _, i := range rand.Perm(len(all)) {
				// The call takes some 5 µs by itself, 0.5 ns a run.
				begin := time.Now()
				if _, err := all[i].Run(&opts); err != nil {
					return fmt.Errorf("run program: %w", err)
				}
				slots[i] = append(slots[i], float64(time.Since(begin))/climbRuns)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ns := stat.Quantile(slots[0], quiet)
	c.referenceNs = append(c.referenceNs, ns)
	multiples := make([]float64, len(programs))
	for i := range programs {
		multiples[i] = stat.Quantile(slots[1+i], quiet) / ns
	}
	return multiples, nil
}

// ns turns a multiple of the reference into ns.
func (c *climb) ns(multiple float64) float64 { return multiple * stat.Median(c.referenceNs) }

// Close unloads the programs. They are detached with the namespace.
func (c *climb) Close() {
	for _, p := range append(c.fillers, c.reference) {
		p.Close() // nil too
	}
}
