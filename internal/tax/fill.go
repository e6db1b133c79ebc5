package tax

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// onFill are sides that the kernel's test loop calls while the BPF dispatcher is
// filled.
type onFill interface {
	sides
	// sizes are how many programs have to be in the dispatcher.
	sizes() []int
	// multiples are the times of both sides, as multiples of the reference's,
	// and what was found in the dispatcher. It may refuse.
	multiples(*fill) (with, without []float64, premise string, err error)
}

// fillsDispatcher tells whether the pair is priced while the dispatcher is filled.
func (p pair) fillsDispatcher() bool {
	_, ok := p.sides.(onFill)
	return ok
}

// full is the size of a dispatcher that has no room for one more program.
const full = 0

// outsideFull are a program that found no room in the full dispatcher, and one in it.
type outsideFull struct{}

func (outsideFull) inspect(k *kernel.Kernel) (string, error) { return "", needDispatcher(k) }

func (outsideFull) sizes() []int { return []int{full} }

func (outsideFull) multiples(f *fill) (with, without []float64, premise string, err error) {
	return f.outside, f.inside[full], f.premise, nil
}

// complete adds how many of the programs that a packet meets are called from outside.
func (outsideFull) complete(raw *Raw, p *rawPair, row *record.TaxRow) []string {
	if len(raw.calls) > 0 {
		setPerPacket(row, raw.outside)
	}
	return fewFills(p)
}

// treeSize are a program in a dispatcher with more programs, and one with fewer.
type treeSize struct{ with, without int }

func (treeSize) inspect(k *kernel.Kernel) (string, error) { return "", needDispatcher(k) }

func (s treeSize) sizes() []int { return []int{s.with, s.without} }

func (s treeSize) multiples(f *fill) (with, without []float64, premise string, err error) {
	if why := cmp.Or(f.refused[s.with], f.refused[s.without]); why != "" {
		return nil, nil, "", why
	}
	return f.inside[s.with], f.inside[s.without], "both are in the compare tree, whose programs were counted", nil
}

func (treeSize) complete(_ *Raw, p *rawPair, _ *record.TaxRow) []string { return fewFills(p) }

// fewFills warns of an interval that knows of few fills of the dispatcher.
func fewFills(p *rawPair) []string {
	if p.enoughRounds() || p.uncharged {
		return nil
	}
	return []string{fmt.Sprintf("fills of the dispatcher: %d; the interval is too narrow: it leaves out what differs between fills",
		p.fills())}
}

// fill fills the dispatcher once and prices the call of a program on the way.
func (r *run) fill(ctx context.Context) error {
	pairs := of[onFill](r.raw)
	if len(pairs) == 0 {
		return nil
	}
	r.round.Show("filling the BPF dispatcher")
	var sizes []int
	for _, p := range pairs {
		for _, size := range p.sides.sizes() {
			if !slices.Contains(sizes, size) {
				sizes = append(sizes, size)
			}
		}
	}
	slices.SortFunc(sizes, func(a, b int) int { return occupied(a) - occupied(b) })
	f := &fill{kernel: r.kernel, inside: make(map[int][]float64), refused: make(map[int]refusal)}
	defer f.Close()
	err := r.inNamespace(func(namespace *netlab.Namespace) error {
		f.namespace = namespace
		return f.run(ctx, sizes)
	})
	var refused refusal
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	for _, p := range pairs {
		switch {
		case refused == "":
			with, without, premise, err := p.sides.multiples(f)
			if err := p.found(premise, err); err != nil {
				return err
			}
			for i := range with {
				p.add(r.fills, f.ns(with[i]), f.ns(without[i]))
			}
		case p.rounds == nil:
			p.refused = string(refused)
		}
	}
	if refused == "" {
		r.fills++
	}
	return nil
}

// occupied is how many programs are in a dispatcher of a size, at least.
func occupied(size int) int {
	if size == full {
		return maxDispatcher
	}
	return size
}

// Sizes of one fill.
const (
	fillPrograms = 6               // programs loaded anew at each size
	fillSlots    = 16              // of each program
	fillRuns     = 10_000          // of the program in a slot
	fillTime     = 2 * time.Second // what a fill takes, about
	maxRefills   = 8               // of a dispatcher that others change
)

// fill is one filling of the dispatcher, step by step, and the times of a program's
// call at each size. Every program is loaded anew fillPrograms times a size.
type fill struct {
	kernel    *kernel.Kernel
	namespace *netlab.Namespace
	// devices are those programs are attached to. The first is for the program that is
	// measured, the i-th after it for the i-th filler.
	devices []netlab.Device
	// fillers are attached, and take room in the dispatcher.
	fillers []*ebpf.Program
	// detached is how many of the first fillers are detached again.
	detached int
	// inside has the times of programs in the dispatcher, by its size;
	// outside those of programs beside a full one. Both are multiples of
	// the time of the reference, which ran in turn with them: sizes are not
	// timed at one moment, and the speed of the machine changes.
	inside  map[int][]float64
	outside []float64
	// refused are sizes that the dispatcher never had, and why.
	refused map[int]refusal
	// reference runs in the same test loop and is never in the dispatcher.
	reference   *ebpf.Program
	referenceNs []float64
	// premise is what was found in the full dispatcher.
	premise string
}

// Why a fill gives no price.
const (
	errNotDispatched = refusal("an attached program is not in the dispatcher")
	errNotFull       = refusal("the dispatcher never fills up: no program can be kept outside")
	errDisturbed     = refusal("another process changed the dispatcher, or had the CPU, while it was measured")
)

func (f *fill) run(ctx context.Context, sizes []int) error {
	if err := f.prepare(); err != nil {
		return err
	}
	before, _, err := dispatcher(f.kernel)
	if err != nil {
		return err
	}
	for _, size := range sizes {
		if size == full {
			continue
		}
		// The user's own programs count.
		for len(before)+len(f.fillers) < size-1 {
			if _, err := f.attachFiller(); err != nil {
				return err
			}
		}
		if err := f.measure(ctx, size); err != nil {
			return err
		}
	}
	if !slices.Contains(sizes, full) {
		return nil
	}
	if err := f.fillUp(ctx); err != nil {
		return err
	}
	return f.measureFull(ctx)
}

// prepare makes the devices and loads the reference.
func (f *fill) prepare() error {
	for i := range (maxDispatcher + 3) / 2 {
		a, b, err := f.namespace.VethPair(fmt.Sprintf("da%d", i), fmt.Sprintf("db%d", i))
		if err != nil {
			return err
		}
		f.devices = append(f.devices, a, b)
	}
	reference, err := price.Load("reference")
	f.reference = reference
	return err
}

// fillUp fills the dispatcher but for one program.
func (f *fill) fillUp(ctx context.Context) error {
	for in := true; in; {
		if len(f.fillers) == maxDispatcher {
			return errNotFull
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if in, err = f.attachFiller(); err != nil {
			return err
		}
	}
	// The last filler found no room. An early one makes some for the program
	// that is measured.
	f.detached++
	return f.devices[f.detached].Detach()
}

// attachFiller attaches one more program and tells whether it is in the dispatcher.
func (f *fill) attachFiller() (in bool, err error) {
	p, err := price.Load("nothing")
	if err != nil {
		return false, err
	}
	f.fillers = append(f.fillers, p)
	if err := f.devices[len(f.fillers)].Attach(p, link.XDPGenericMode); err != nil {
		return false, err
	}
	at, err := dispatched(f.kernel, p)
	return at.in, err
}

// attached loads a program, attaches it, calls do and detaches it.
func (f *fill) attached(do func(*ebpf.Program) error) (err error) {
	p, err := price.Load("nothing")
	if err != nil {
		return err
	}
	defer p.Close()
	if err := f.devices[0].Attach(p, link.XDPGenericMode); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.devices[0].Detach()) }()
	return do(p)
}

func (f *fill) measure(ctx context.Context, size int) error {
	for range fillPrograms {
		err := f.attached(func(p *ebpf.Program) error {
			at, err := dispatched(f.kernel, p)
			if err != nil {
				return err
			}
			if !at.in {
				return errNotDispatched
			}
			if at.programs != size {
				f.refused[size] = refusal(fmt.Sprintf(
					"%d programs are in the dispatcher, not %d: others have attached theirs", at.programs, size))
				return nil
			}
			multiples, err := f.time(ctx, p)
			if err != nil {
				return err
			}
			f.inside[size] = append(f.inside[size], multiples[0])
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// measureFull times programs inside and outside a dispatcher that is full but for the
// program inside. Where others attach one of theirs into that room, or detach one and leave
// more, the dispatcher is filled up again.
func (f *fill) measureFull(ctx context.Context) error {
	for refills := 0; len(f.outside) < fillPrograms; {
		err := f.attached(func(in *ebpf.Program) error { return f.timeFull(ctx, in) })
		if errors.Is(err, errDisturbed) && refills < maxRefills {
			refills++
			if err = f.fillUp(ctx); errors.Is(err, errNotFull) {
				err = errDisturbed
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *fill) timeFull(ctx context.Context, in *ebpf.Program) error {
	out, err := price.Load("nothing")
	if err != nil {
		return err
	}
	defer out.Close()
	atIn, err := dispatched(f.kernel, in)
	if err != nil {
		return err
	}
	atOut, err := dispatched(f.kernel, out)
	if err != nil {
		return err
	}
	if !atIn.in || atOut.in {
		return errDisturbed
	}
	f.premise = fmt.Sprintf("of %d programs in the compare tree one is the program inside; outside it ends in %s",
		atIn.programs, atIn.fallback)
	multiples, err := f.time(ctx, in, out)
	if err != nil {
		return err
	}
	f.inside[full] = append(f.inside[full], multiples[0])
	f.outside = append(f.outside, multiples[1])
	return nil
}

// time runs programs and the reference in turn. It returns the low quantile of
// each one's slots as a multiple of the reference's.
//
// The kernel puts a program into the dispatcher before it runs it more than once, where there
// is room, and takes it out at the end, which takes longer than all the runs (bpf_test_run in
// net/bpf/test_run.c). That is no part of the time that the kernel says: a slot that took much
// longer was that, or another task's. It refuses when few slots are left.
func (f *fill) time(ctx context.Context, programs ...*ebpf.Program) ([]float64, error) {
	all := append([]*ebpf.Program{f.reference}, programs...)
	slots := make([][]float64, len(all))
	frame := make([]byte, 64)
	err := f.namespace.Do(func() error {
		for range fillSlots {
			if err := ctx.Err(); err != nil {
				return err
			}
			for _, i := range rand.Perm(len(all)) {
				// The call takes some 5 µs by itself, 0.5 ns a run.
				begin := time.Now()
				_, run, err := all[i].Benchmark(frame, fillRuns, nil)
				if err != nil {
					return fmt.Errorf("run program: %w", err)
				}
				ns := float64(time.Since(begin)) / fillRuns
				if runsAlone(ns, run) {
					slots[i] = append(slots[i], ns)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range slots {
		if len(s) < fillSlots/4 {
			return nil, errDisturbed
		}
	}
	ns := rounds.Undisturbed(slots[0])
	f.referenceNs = append(f.referenceNs, ns)
	multiples := make([]float64, len(programs))
	for i := range programs {
		multiples[i] = rounds.Undisturbed(slots[1+i]) / ns
	}
	return multiples, nil
}

// runsAlone tells whether a slot of ns a run holds little but the runs, each of which took run
// as the kernel says: in whole ns.
func runsAlone(ns float64, run time.Duration) bool { return ns < 1.25*float64(run+1) }

// ns turns a multiple of the reference into ns.
func (f *fill) ns(multiple float64) float64 { return multiple * stat.Median(f.referenceNs) }

// Close unloads the programs. They are detached with the namespace.
func (f *fill) Close() {
	for _, p := range append(f.fillers, f.reference) {
		p.Close() // nil too
	}
}
