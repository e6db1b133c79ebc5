package record

import (
	"fmt"
	"math"
	"slices"

	"github.com/unthunk/unthunk/internal/stat"
)

// ProgWatch is a record of `prog watch`: a row is one figure of a program at work.
type ProgWatch struct {
	Document[WatchRow]
	WatchParts
}

// WatchParts are what a record of prog watch has beside its rows.
type WatchParts struct {
	// Program is what was watched, at the end.
	Program WatchedProgram `json:"program"`
	// Seconds is how long it was watched, Each how many seconds a sample of a row is of.
	Seconds float64 `json:"seconds"`
	Each    int     `json:"each"`
	// Ended is why there was nothing to watch any more; empty when the watch ended by itself.
	Ended string `json:"ended,omitempty"`
	// Sampling is how samples were taken.
	Sampling Sampling `json:"sampling"`
	// Unfiltered is why the device's polls could not be told from others; empty when they were.
	Unfiltered string `json:"unfiltered,omitempty"`
	// SampleNs is what a sample takes of its CPU, in ns: the interrupt, and all of a usual
	// one with its call chain. Nil where that could not be measured.
	SampleNs *SampleCost `json:"sample-cost"`
	// Stacks are the call chains that samples fell into, the most ns first.
	Stacks []ProfileStack `json:"stacks"`
}

// SampleCost is what a sample takes of the CPU that it is taken on, in ns.
type SampleCost struct {
	// Interrupt is without a call chain, Frame what each frame of that adds.
	Interrupt float64 `json:"interrupt"`
	Frame     float64 `json:"frame"`
}

// WatchedProgram is a program at work.
type WatchedProgram struct {
	Target string `json:"target"`
	ID     uint32 `json:"id"`
	Name   string `json:"name"`
	Tag    string `json:"tag"`
	// JitedBytes is the size of its machine code, without what it goes to by tail calls.
	JitedBytes uint32 `json:"jited-bytes"`
	// Device that it is at work on, its driver, and the mode: "native" or "generic".
	Device string `json:"device"`
	Driver string `json:"driver"`
	Mode   string `json:"mode"`
	// Attached is the program on the device: another one for a part of a libxdp dispatcher, or
	// the target of a tail call.
	Attached uint32 `json:"attached"`
	// Programs is how many programs its figures are of: with parts, and targets of tail calls.
	Programs int `json:"programs"`
}

// WatchRow is one figure of `prog watch`.
type WatchRow struct {
	// Name is "packets", "verdict/drop", "program", "path", "stage/receive", "core",
	// "frames-per-xmit", "lost/rx_missed_errors", "error/EOPNOTSUPP", "statistics", "cost".
	Name string `json:"name"`
	// Value is in packets a second ("pps"), ns a packet ("ns"), "percent" or "frames". Its
	// median is a mean: of ns a packet it is all ns by all packets. The interval is that of the
	// mean over the samples. Nil when Refused says why.
	Value   *stat.Quantity `json:"value"`
	Refused string         `json:"refused,omitempty"`
	// Samples are of Each seconds, in the unit of Value; Rounds are their numbers. A stretch
	// without packets has no ns a packet.
	Samples []float64 `json:"samples"`
	Rounds  []int     `json:"rounds"`
}

func (r *WatchRow) rowName() string { return r.Name }

// maxPPS is more packets than any device has in a second.
const maxPPS = 1e12

func (r *WatchRow) check() error {
	most := maxNs
	if r.Value != nil && r.Value.Unit == "pps" {
		most = maxPPS
	}
	if err := checkSamples(r.Samples, r.Rounds, func(x float64) bool { return math.Abs(x) <= most }); err != nil {
		return err
	}
	if err := checkTexts([]string{r.Refused}); err != nil {
		return err
	}
	switch {
	case r.Refused == "" && r.Value == nil:
		return errNeither
	case r.Refused != "" && r.Value != nil:
		return errBoth
	case r.Value == nil:
		return nil
	case len(r.Samples) == 0:
		return errNoSamples
	case math.IsNaN(r.Value.Median):
		return errNeither
	case !slices.Contains([]string{"pps", "ns", "percent", "frames"}, r.Value.Unit):
		return fmt.Errorf("impossible unit %.20q", r.Value.Unit)
	}
	for _, x := range []float64{r.Value.Median, r.Value.Low, r.Value.High} {
		if math.Abs(x) > most {
			return fmt.Errorf("impossible: %v %s", x, r.Value.Unit)
		}
	}
	if r.Value.Low > r.Value.Median || r.Value.Median > r.Value.High || r.Value.N < 0 {
		return fmt.Errorf("the value lies outside its interval")
	}
	return nil
}

func (w *ProgWatch) check() error {
	if err := w.RunParts.checkNone(w.Kind); err != nil {
		return err
	}
	if len(w.References) > 0 {
		return fmt.Errorf("references in a record of %s", w.Kind)
	}
	p := &w.Program
	if err := checkTexts([]string{p.Target, p.Name, p.Tag, p.Device, p.Driver, p.Mode, w.Ended, w.Unfiltered}); err != nil {
		return err
	}
	if !(w.Seconds >= 0 && w.Seconds < 1e10) || w.Each < 0 || p.Programs < 0 {
		return fmt.Errorf("impossible time or number of programs: %v s, %d s each, %d", w.Seconds, w.Each, p.Programs)
	}
	if c := w.SampleNs; c != nil && !(c.Interrupt >= 0 && c.Interrupt <= maxNs && c.Frame >= 0 && c.Frame <= maxNs) {
		return fmt.Errorf("a sample cannot take %v ns and %v ns a frame", c.Interrupt, c.Frame)
	}
	if err := w.Sampling.check(); err != nil {
		return fmt.Errorf("sampling: %w", err)
	}
	if n := len(w.Stacks); n > MaxStacks {
		return fmt.Errorf("%d stacks: at most %d are possible", n, MaxStacks)
	}
	if err := checkEach("stack", w.Stacks); err != nil {
		return err
	}
	return checkRows(w.Rows, nil)
}

// ProgWatch is a record of prog watch.
func (s *Saved) ProgWatch() *ProgWatch { return as[*ProgWatch](s) }

// Row is the row of that name, nil when there is none.
func (w *ProgWatch) Row(name string) *WatchRow {
	if i := slices.IndexFunc(w.Rows, func(r WatchRow) bool { return r.Name == name }); i >= 0 {
		return &w.Rows[i]
	}
	return nil
}

// Profile is what samples say, as a profile: for pprof.
func (w *ProgWatch) Profile() *Profile {
	p := &Profile{ProfileParts: ProfileParts{Sampling: w.Sampling, Stacks: w.Stacks}}
	p.Head = w.Head
	return p
}
