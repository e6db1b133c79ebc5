package watch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/bpf/poll"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/profile"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/xdppath"
)

// Plan says what is watched and how.
type Plan struct {
	// Target is a program that is loaded: no object file.
	Target program.Target
	// Duration of the watch; 0 is until ctx ends.
	Duration time.Duration
	// CPU is what is sampled; the zero value samples those that poll the device.
	CPU rounds.CPU
	// Rate is samples a second and CPU; 0 picks the most that takes 0.4 % of each.
	Rate int
	// Stats switches the kernel's run statistics on, for one second in ten.
	Stats bool
	// Tracepoints attaches programs that see bulks and errors of redirects.
	Tracepoints bool
}

// Limits of a rate, in Hz.
const (
	minRate = 20
	maxRate = 2000
	// allowed is the share of a CPU that the interrupts may take when the rate is not given.
	// Reading the samples has the rest of 0.5 %.
	allowed = 0.004
)

// Validate returns an error in one line when the plan cannot be meant.
func (p Plan) Validate() error {
	switch {
	case p.Target.Object():
		return fmt.Errorf("%s is no program at work: name what is loaded, by dev:DEV, id:N or its pinned path", p.Target)
	case p.Duration < 0 || p.Duration > 0 && p.Duration < time.Second:
		return fmt.Errorf("a duration of %v is too short: 1s at least", p.Duration)
	case p.Rate < 0 || p.Rate > perf.MaxRateOfClock:
		return fmt.Errorf("a rate of %d Hz is not within 1 … %d", p.Rate, perf.MaxRateOfClock)
	}
	if _, given := p.CPU.Number(); given {
		if _, err := p.CPU.Pick(); err != nil {
			return err
		}
	}
	return nil
}

// Watch is a program that is watched. All its methods but Totals must be called on one thread,
// in the network namespace of the device.
type Watch struct {
	plan    Plan
	subject *subject
	kernel  *kernel.Kernel
	driver  *ethtool.Ethtool
	price   *price // nil when it could not be measured
	rate    int
	cpus    []int
	// filter lets through what is sampled in the device's polls; nil when the polls are not
	// known, for which unfiltered is the reason: then only the program can be told.
	filter     *poll.Filter
	unfiltered string
	napis      []uint64
	samplers   []*perf.Sampler
	classes    *profile.Classifier
	observer   *observe.Observer
	stats      *statistics
	warnings   []string
	// replacements is how often another program came onto the device.
	replacements int

	second tally // the one under way
	tallies
	chains
	counts perf.Counts

	mu     sync.Mutex // of what follows
	totals Totals
	total  tally
}

// Open begins to watch. It measures what a sample takes, which takes a quarter of a second of a
// CPU's idle time. Warnings say what cannot be told, and Price what an option costs: both are
// known before Run.
//
// It returns a [feature.Missing] without perf events, kernel symbols or BTF. Requires at least
// Linux 5.18; CAP_SYS_ADMIN, CAP_BPF, CAP_PERFMON, CAP_SYSLOG and CAP_NET_ADMIN.
func Open(ctx context.Context, plan Plan) (_ *Watch, err error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	w := &Watch{plan: plan}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if w.subject, err = find(ctx, plan.Target); err != nil {
		return nil, err
	}
	if plan.Tracepoints {
		inode, err := ownNamespace()
		if err != nil {
			return nil, err
		}
		if w.observer, err = observe.New(observe.Config{Netns: uint32(inode), From: w.subject.device.Index}); err != nil {
			return nil, err
		}
	}
	if w.kernel, err = kernel.OpenLive(); err != nil { // after the programs, also the observer's: it has their symbols
		return nil, err
	}
	if w.driver, err = ethtool.NewEthtool(); err != nil {
		return nil, fmt.Errorf("open ethtool: %w", err)
	}
	w.classes = profile.NewClassifier(w.kernel.Symbols, w.subject.find)
	if w.cpus, err = w.choose(); err != nil {
		return nil, err
	}
	p, err := measurePrice(ctx, slices.Concat(w.cpus, others(w.cpus)))
	switch {
	case err == nil:
		w.price = &p
	case errors.Is(err, errNoPrice):
		w.warnf("what sampling takes is not known: %v", err)
	default:
		return nil, err
	}
	w.rate = w.affordable()
	if s := w.subject; s.watched != s.attached {
		w.warnf("%s is not what is attached to %s (id:%d): packets, and what each took, are of all packets of %s, "+
			"also of those that do not reach it", s.title(), s.device.Name, s.attached, s.device.Name)
	}
	if plan.Stats {
		if w.stats, err = openStatistics(ctx, w.subject.watched); err != nil {
			return nil, err
		}
	}
	return w, w.attach()
}

// others are the CPUs that are online and not among some.
func others(cpus []int) []int {
	online, _ := perf.Online()
	return slices.DeleteFunc(online, func(cpu int) bool { return slices.Contains(cpus, cpu) })
}

// choose is which CPUs to sample.
func (w *Watch) choose() ([]int, error) {
	if cpu, given := w.plan.CPU.Number(); given {
		return []int{cpu}, nil
	}
	return cpusOf(w.subject)
}

// affordable is the rate at which the interrupts take what they are allowed to, if each samples
// a poll.
func (w *Watch) affordable() int {
	if w.plan.Rate > 0 {
		return w.plan.Rate
	}
	if w.price == nil {
		return minRate
	}
	ns := w.price.of(1, usualFrames)
	return int(min(max(allowed*1e9/ns, minRate), maxRate))
}

func (w *Watch) warnf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(w.warnings, text) {
		w.warnings = append(w.warnings, text)
	}
}

// attach opens the samplers.
func (w *Watch) attach() (err error) {
	if w.napis, err = w.polls(); err != nil {
		return err
	}
	if w.napis != nil {
		if w.filter, err = poll.New(w.napis); err != nil {
			return err
		}
	}
	for _, cpu := range w.cpus {
		s, err := perf.NewSamplerOf(perf.Clock, cpu, w.rate, ringFor(w.rate))
		if err != nil {
			return err
		}
		w.samplers = append(w.samplers, s)
		if w.filter != nil {
			if err := w.filter.Attach(s.FD()); err != nil {
				return err
			}
		}
		if err := s.Start(); err != nil {
			return err
		}
	}
	return nil
}

// ringFor is the size of a ring that holds the samples of two drains, of 300 bytes each.
func ringFor(rate int) int {
	const least, most = 1 << 15, 1 << 20
	size := least
	for size < most && size < 2*rate*300*int(drain)/int(time.Second) {
		size *= 2
	}
	return size
}

// polls are the NAPI instances that run the program; nil, with a warning, when that is not known.
func (w *Watch) polls() ([]uint64, error) {
	if w.subject.mode != "native" {
		w.unfiltered = "the network stack runs the program (generic XDP), whoever polls the device"
		return nil, nil
	}
	runtime.LockOSThread() // the thread's namespace is what is read
	defer runtime.UnlockOSThread()
	all, err := xdppath.NAPIs(w.kernel, w.subject.device.Index)
	if _, missing := errors.AsType[*feature.Missing](err); missing {
		return nil, err
	}
	switch {
	case err != nil:
		w.unfiltered = fmt.Sprintf("the polls of %s were not found: %v", w.subject.device.Name, err)
		return nil, nil
	case len(all) > poll.Max:
		w.unfiltered = fmt.Sprintf("%s has %d NAPI instances, more than the %d that can be told apart", w.subject.device.Name, len(all), poll.Max)
		return nil, nil
	}
	w.unfiltered = ""
	return all, nil
}

// detach closes samplers and filter.
func (w *Watch) detach() error {
	var errs []error
	for _, s := range w.samplers {
		w.counts = w.counts.Plus(s.Counts())
		errs = append(errs, s.Close())
	}
	w.samplers = nil
	if w.filter != nil {
		errs = append(errs, w.filter.Close())
		w.filter = nil
	}
	return errors.Join(errs...)
}

// Close ends the watch. Nothing of it is left.
func (w *Watch) Close() error {
	errs := []error{w.detach()}
	if w.observer != nil {
		errs = append(errs, w.observer.Close())
		w.observer = nil
	}
	if w.stats != nil {
		errs = append(errs, w.stats.close())
		w.stats = nil
	}
	if w.driver != nil {
		w.driver.Close()
		w.driver = nil
	}
	if w.kernel != nil {
		errs = append(errs, w.kernel.Close())
		w.kernel = nil
	}
	return errors.Join(errs...)
}

// About says in a sentence what is watched, how often, and at what price.
func (w *Watch) About() string {
	s := w.subject
	text := fmt.Sprintf("%s on %s (%s)", s.title(), s.device.Name, s.mode)
	if s.programs > 1 {
		text += fmt.Sprintf(", %d programs", s.programs)
	}
	text += fmt.Sprintf("; %d Hz on %s", w.rate, cpuList(w.cpus))
	if w.price != nil {
		text += fmt.Sprintf(", a sample takes %.1f µs", w.price.of(1, usualFrames)/1000)
	}
	return text
}

// cpuList names CPUs.
func cpuList(cpus []int) string {
	if len(cpus) == 1 {
		return fmt.Sprintf("CPU %d", cpus[0])
	}
	return fmt.Sprintf("%d CPUs", len(cpus))
}

// Prices say what the options cost everybody on the machine, a sentence each.
func (w *Watch) Prices() (out []string) {
	if w.stats != nil {
		out = append(out, fmt.Sprintf("run statistics cost each run of each BPF program of this machine %.0f ns, for one second in ten",
			w.stats.price))
	}
	if w.observer != nil {
		out = append(out, "programs at the tracepoints xdp_devmap_xmit and xdp_redirect_err run for each bulk and each failed "+
			"redirect of this machine; what they take here is in the stage observer")
	}
	return out
}

// Warnings say what cannot be told, a sentence each.
func (w *Watch) Warnings() []string { return slices.Clone(w.warnings) }

// statistics are a device's own.
func (w *Watch) read() (c counters, xdp uint32, err error) {
	l, err := netlink.LinkByIndex(w.subject.device.Index)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return c, 0, errGone
	}
	if err != nil {
		return c, 0, fmt.Errorf("read statistics of %s: %w", w.subject.device.Name, err)
	}
	attrs := l.Attrs()
	if attrs.Xdp != nil && attrs.Xdp.Attached {
		if xdp = attrs.Xdp.ProgId; xdp == 0 { // in several modes
			p, err := attached(w.subject.device)
			if err != nil && !errors.Is(err, errDetached) {
				return c, 0, err
			}
			xdp = p.ID
		}
	}
	driver, err := w.driver.Stats(attrs.Name)
	if err != nil {
		driver = nil // not every driver has some
	}
	if w.subject.mode != "native" {
		driver = nil // it counts what its own XDP does
	}
	return count(driver, attrs.Statistics), xdp, nil
}

var errGone = errors.New("the device went away")
