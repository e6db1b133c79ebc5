package profile

import (
	"context"
	"errors"
	"runtime"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ksym"
)

// Raw is what a run measured.
type Raw struct {
	// Name is that of the row, or of the devices.
	Name  string
	Event perf.Event
	Rate  int
	// RateGiven is set when the rate was not picked.
	RateGiven bool
	// RateWanted is what was picked or asked for where the kernel allowed less, which is Rate then; else 0.
	RateWanted int
	CPUs       []int
	rounds.Outcome
	// References are what fixed work took in the same rounds, NoReferences why there is none where it was tried.
	References   []record.Reference
	NoReferences string
	// Rounds are those that were finished. Crowded counts rounds that are not among
	// them, as another task ran in each of their windows.
	Rounds  []Round
	Crowded int
	// Stacks are all distinct call chains in the measured time.
	Stacks []*Stack
	perf.Counts
	Slots rounds.Slots
	// NoRoom counts samples that are left out because other call chains took all the room.
	NoRoom int
	// DevicePair is set for a run on real devices: the time of a packet is that which
	// samples stand for, and what of it samples take is not known.
	DevicePair bool
	// Lines are the source lines of a program of the user's, LineRuns how often each runs for a packet, NoRuns why that was
	// not counted.
	Lines    map[sourceLine]*lineTime
	LineRuns []redirect.LineRuns
	NoRuns   string
	// Code is that of the BPF programs that were sampled, by name.
	Code map[string]Code
	// Counted are the events of the PMU that could be counted; empty without one.
	Counted []string
	// TSCRate is the rate of the time stamp counter in Hz, 0 when unknown.
	TSCRate float64
	// Path is the way of a redirected packet as the code has it, Calls how often
	// what repeats runs for a packet. Path is nil when the code could not be
	// read, for which PathError is the reason, and when ctx ended the run.
	Path      *xdppath.Inventory
	Calls     redirect.CallsPerPacket
	PathError error
}

// allow notes at what rate samples are taken, where another was wanted.
func (raw *Raw) allow(rate, wanted int) {
	if rate < wanted {
		raw.Rate, raw.RateWanted = rate, max(raw.RateWanted, wanted)
	}
}

// Code is the code of a function.
type Code struct {
	Addr  uint64
	Bytes []byte
}

// Round is one round's time and packets, while samples were taken.
type Round struct {
	// Number of the round, from 0.
	Number int
	// Packets and Ns are those of windows that nothing but the chain's work was seen
	// in. For real devices they are all packets, and the time that samples of the
	// packet's work stand for.
	Packets uint64
	Ns      float64
	// CPUNs is all time in which samples were taken, on all CPUs together.
	CPUNs float64
	// Windows are all of the sampled slots, LeftOut those in which another task ran.
	Windows, LeftOut int
	// SampledNs and PlainNs are ns per packet with sampling and without, in slots
	// that took turns; the mean of the quicker half. 0 when there was none.
	SampledNs, PlainNs float64
	// Undisturbed is ns per packet without sampling as bench counts it, by
	// [rounds.Undisturbed]. 0 when there was none.
	Undisturbed float64
	// Events are what a PMU counted per packet in slots without sampling, by name.
	Events map[string]float64
}

// collector gathers samples round by round, and what is needed to make sense of
// them.
type collector struct {
	raw    *Raw
	stacks *stacks
}

func collect(raw *Raw) *collector {
	raw.Code = make(map[string]Code)
	return &collector{raw: raw, stacks: newStacks()}
}

// release closes a sampler and keeps its counts.
func (c *collector) release(s *perf.Sampler) error {
	c.raw.Counts = c.raw.Counts.Plus(s.Counts())
	return s.Close()
}

// done is what was measured.
func (c *collector) done() *Raw {
	c.raw.Stacks, c.raw.Lines = c.stacks.all(), c.stacks.byLine
	return c.raw
}

// add counts a sample.
func (c *collector) add(s *perf.Sample, at circumstances) {
	if !c.stacks.add(s.Chain, s.Link, at, float64(s.Period)) {
		c.raw.NoRoom++
	}
}

// end adds a round and names what was sampled in it, while its programs are there. scale is
// that of [stacks.end]. It must run on a thread in the network
// namespace of the devices that packets go through.
func (c *collector) end(ctx context.Context, round Round, scale func(kept float64) float64, devices ...int) (err error) {
	// Each round has programs of its own, so each needs the symbols anew.
	var code *reader
	k, errCode := kernel.OpenLive()
	if errCode == nil {
		defer func() { err = errors.Join(err, k.Close()) }()
		code = newReader(k)
	} else {
		// Names are enough for the stages.
		symbols, err := ksym.Live()
		if err != nil {
			return err
		}
		k, c.raw.PathError = kernel.New(nil, symbols, nil), errCode
		k.Arch = runtime.GOARCH
	}
	c.raw.NoRoom += c.stacks.end(k.Symbols, code, scale)
	c.raw.Rounds = append(c.raw.Rounds, round)
	if code == nil {
		return nil
	}
	c.keepCode(k)
	if c.raw.Path == nil && c.raw.PathError == nil {
		path, err := walk(ctx, k, devices)
		if ctx.Err() == nil {
			c.raw.Path, c.raw.PathError = path, err
		}
	}
	return nil
}

// keepCode copies the code of BPF programs before they go.
func (c *collector) keepCode(k *kernel.Kernel) {
	for _, stack := range c.stacks.known {
		name := stack.innermost()
		if !isProgram(name) {
			continue
		}
		if s, ok := k.Symbols.Lookup(name); ok && c.raw.Code[name].Addr != s.Addr {
			if code, err := k.Code(s); err == nil {
				c.raw.Code[name] = Code{s.Addr, code}
			}
		}
	}
}

// walk reads the way of a packet through the devices.
func walk(ctx context.Context, k *kernel.Kernel, devices []int) (*xdppath.Inventory, error) {
	var roots []xdppath.Root
	for _, ifindex := range devices {
		more, err := xdppath.LiveRoots(k, ifindex)
		if err != nil {
			return nil, err
		}
		roots = append(roots, more...)
	}
	return xdppath.Walk(ctx, k, roots)
}
