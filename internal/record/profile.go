package record

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/unthunk/unthunk/internal/stat"
)

// ProfileRow is one row of `profile`: a stage of a redirected packet's way.
type ProfileRow struct {
	// Name of the stage, one of Stages of package functions.
	Name string `json:"name"`
	// Ns is in ns per packet. Its median is the mean over all rounds, as means
	// add up and medians do not; the interval is that of the mean over rounds.
	Ns *stat.Quantity `json:"ns"`
	// Samples are ns per packet, one a round; Rounds are the numbers of those
	// rounds. Unattributed may be negative in a round.
	Samples []float64 `json:"samples"`
	Rounds  []int     `json:"rounds"`
}

// Profile is the record of `profile`: where the ns of a packet go. Its rows are
// stages, which together are Packet.
type Profile struct {
	Document[ProfileRow]
	ProfileParts
}

// ProfileParts are what a profile has besides stages.
type ProfileParts struct {
	// Packet is ns per packet, without what is in Outside; as in [ProfileRow] the
	// median is a mean. Of a chain it is measured by the programs' own time stamps
	// while samples were taken, in windows in which no other task ran. Of real devices
	// it is the time that samples of the packets' work stand for.
	Packet *stat.Quantity `json:"packet"`
	// CannotTell is why Packet and the stages are no answer; empty when they are.
	CannotTell string `json:"cannot-tell,omitempty"`
	// Undisturbed is ns per packet as bench counts it, the 10th percentile of the
	// windows without sampling. Nil where there are no windows.
	Undisturbed *stat.Quantity `json:"undisturbed"`
	// Outside is what else the CPUs did while samples were taken.
	Outside []ProfileOutside `json:"outside"`
	// Sampling is how samples were taken.
	Sampling Sampling `json:"sampling"`
	// Functions are those that samples fell into, the most ns first.
	Functions []ProfileFunction `json:"functions"`
	// Lines are the source lines of a program of the user's that took time or ran, in the order of the source.
	Lines []ProfileLine `json:"lines,omitempty"`
	// Tax is what samples say of indirect branches; null when the code could not
	// be read.
	Tax *ProfileTax `json:"tax"`
	// Counters are per packet; empty without a PMU.
	Counters []ProfileCounter `json:"counters"`
	// Stacks are the distinct call chains, the most ns first.
	Stacks []ProfileStack `json:"stacks"`
}

// Sampling is how samples were taken and how many.
type Sampling struct {
	// Event is "cycles", with as many p as it is precise, or "cpu-clock".
	Event string `json:"event"`
	// Rate is samples a second and CPU, asked for.
	Rate int `json:"rate"`
	// CPUs that were sampled.
	CPUs []int `json:"cpus"`
	// Samples are those of the packets' work, in windows that count; Lost are those
	// that there was no room for, in the kernel or among the call chains that are held.
	// Throttled is how often the kernel slowed sampling down.
	Samples   int `json:"samples"`
	Lost      int `json:"lost"`
	Throttled int `json:"throttled"`
	// Packets went through in that time.
	Packets uint64 `json:"packets"`
	// Windows are how many parts the time had, LeftOut how many of these were left
	// out, as another task ran in them. Both are 0 for real devices.
	Windows int `json:"windows"`
	LeftOut int `json:"left-out"`
	// Throughput is the rate with sampling in percent of that without, measured
	// in turn. Nil when it was not.
	Throughput *stat.Quantity `json:"throughput"`
}

// ProfileOutside is work of the CPUs that is no packet's, and in no stage.
type ProfileOutside struct {
	// Name is other-tasks, interrupts, timers, rcu, scheduler, sampling or idle.
	Name string `json:"name"`
	// Share of the CPUs' time while samples were taken, in percent.
	Share *stat.Quantity `json:"share"`
}

// ProfileFunction is a function, or one BPF program, that samples fell into.
type ProfileFunction struct {
	Name  string `json:"name"`
	Stage string `json:"stage"` // where it took most
	// Samples that fell into it.
	Samples int `json:"samples"`
	// Ns is in ns per packet, of the function itself without what it calls.
	Ns *stat.Quantity `json:"ns"`
}

// ProfileLine is a source line of a BPF program.
type ProfileLine struct {
	File string `json:"file"`
	Line int    `json:"line"`
	// Text is the line itself.
	Text string `json:"source"`
	// Samples that fell into it or what it calls.
	Samples int `json:"samples"`
	// Ns is in ns per packet, with what the line calls, Self without.
	Ns   *stat.Quantity `json:"ns"`
	Self *stat.Quantity `json:"self"`
	// Runs is how often it runs for a packet, counted; nil when that was not.
	Runs *float64 `json:"runs"`
}

func (l *ProfileLine) check() error {
	if err := checkTexts([]string{l.File, l.Text}); err != nil {
		return err
	}
	if l.Line < 0 || l.Samples < 0 || l.Runs != nil && !(*l.Runs >= 0 && *l.Runs <= maxNs) {
		return fmt.Errorf("impossible line %d", l.Line)
	}
	if l.Ns == nil || l.Self == nil {
		return errNeither
	}
	return checkMeans([]quantity{{"ns", "ns", l.Ns, false}, {"self", "ns", l.Self, false}})
}

// ProfileTax is what samples say of indirect branches, in ns per packet.
type ProfileTax struct {
	// Thunks is the time in indirect thunks, TargetEntries the excess on the first
	// instructions of functions that are entered through one, Total both.
	Thunks        *stat.Quantity `json:"thunks"`
	TargetEntries *stat.Quantity `json:"landings"`
	Total         *stat.Quantity `json:"total"`
	// Returns is the time in return thunks, ReturnEntries that on the first two
	// instructions behind calls of the redirect path, which is the most that returns
	// through thunks can have cost there; nil where functions return by themselves. They are no
	// part of Total.
	Returns       *stat.Quantity `json:"returns"`
	ReturnEntries *stat.Quantity `json:"return-landings"`
	// Direct is what the first instructions of a function take that is entered
	// directly, in ns per call: what target entries are compared with. Nil when none
	// was seen.
	Direct *stat.Quantity `json:"direct"`
	// Estimate is what tax makes of it: price of a call times calls of the hop.
	// Nil when no price was measured, or no calls are known.
	Estimate *stat.Quantity `json:"estimate"`
	// Hop is the part of Total that Estimate is compared with: that of sites on
	// the way from the receiving poll on, whose calls per packet are known.
	Hop *stat.Quantity `json:"hop"`
	// Agree says whether Hop and Estimate agree: "agree", "disagree" or
	// "cannot tell". Empty without Estimate.
	Agree string        `json:"agree,omitempty"`
	Sites []ProfileSite `json:"sites"`
}

// ProfileSite is an indirect branch that samples speak of.
type ProfileSite struct {
	// Function it is in, Offset in bytes from its start.
	Function string `json:"function"`
	Offset   uint64 `json:"offset"`
	Stage    string `json:"stage"`
	// Pointer is the chain of struct members the target is read from, null when
	// unknown.
	Pointer *string `json:"calls"`
	// Targets are the functions it was seen to enter.
	Targets []string `json:"targets,omitempty"`
	// PerPacket is how often it runs for a packet, unit "calls"; nil when
	// unknown.
	PerPacket *stat.Quantity `json:"per-packet"`
	// Thunk is the time in its thunk, TargetEntry the excess on the first
	// instructions of its targets, in ns per packet.
	Thunk       *stat.Quantity `json:"thunk"`
	TargetEntry *stat.Quantity `json:"landing"`
}

// ProfileCounter is what a PMU counted, per packet.
type ProfileCounter struct {
	// Name of the event: cycles, instructions, branch-misses, l1d-misses,
	// llc-misses, indirect-branches, indirect-mispredicts; indirect-speculated,
	// returns-speculated, mispredicts-retired.
	Name string `json:"name"`
	// PerPacket, unit "events".
	PerPacket *stat.Quantity `json:"per-packet"`
}

// ProfileStack is a call chain that samples fell into.
type ProfileStack struct {
	// Frames are functions, the outermost first.
	Frames []string `json:"frames"`
	Stage  string   `json:"stage"`
	// Samples that fell into it, Ns in ns per packet.
	Samples int     `json:"samples"`
	Ns      float64 `json:"ns"`
}

// Limits on what [Load] accepts of a profile.
const (
	// MaxSourceLines of a profile.
	MaxSourceLines = 10_000
	// MaxFunctions of a profile.
	MaxFunctions = 100_000
	// MaxStacks of a profile.
	MaxStacks = 200_000
	// MaxFrames of a stack.
	MaxFrames = 256
	// maxCPUs is the most a kernel can be built for.
	maxCPUs = 8192
)

// Rows of a profile, or of the comparison of two, that are no stage of code.
const (
	PacketRow    = "packet"
	Unattributed = "unattributed"
)

func (r *ProfileRow) check() error {
	signed := r.Name == Unattributed
	possible := func(ns float64) bool { return math.Abs(ns) <= maxNs && (signed || ns >= 0) }
	if err := checkSamples(r.Samples, r.Rounds, possible); err != nil {
		return err
	}
	switch {
	case r.Ns == nil || math.IsNaN(r.Ns.Median):
		return errNeither
	case len(r.Samples) == 0:
		return errNoSamples
	case signed:
		return checkQuantities([]quantity{{"ns", "ns", r.Ns, true}})
	}
	return checkMeans([]quantity{{"ns", "ns", r.Ns, false}})
}

func (s *Sampling) check() error {
	if s.Event == "" || !plain(s.Event) {
		return fmt.Errorf("impossible event %.60q", s.Event)
	}
	if s.Rate < 0 || s.Samples < 0 || s.Lost < 0 || s.Throttled < 0 || s.Windows < 0 || s.LeftOut < 0 {
		return errors.New("a count below 0")
	}
	if s.LeftOut > s.Windows {
		return fmt.Errorf("%d of %d windows were left out", s.LeftOut, s.Windows)
	}
	if len(s.CPUs) > maxCPUs || slices.ContainsFunc(s.CPUs, func(cpu int) bool { return cpu < 0 || cpu >= maxCPUs }) {
		return errors.New("impossible CPUs")
	}
	return checkMeans([]quantity{{"throughput", "percent", s.Throughput, false}})
}

func (f *ProfileFunction) check() error {
	if err := checkNames(f.Name, f.Stage); err != nil {
		return err
	}
	if f.Samples < 0 {
		return fmt.Errorf("impossible number of samples: %d", f.Samples)
	}
	if f.Ns == nil {
		return errNeither
	}
	return checkMeans([]quantity{{"ns", "ns", f.Ns, false}})
}

func (o *ProfileOutside) check() error {
	if o.Name == "" || !plain(o.Name) {
		return fmt.Errorf("impossible name %.60q", o.Name)
	}
	if o.Share == nil {
		return errNeither
	}
	return checkMeans([]quantity{{"share", "percent", o.Share, false}})
}

func (t *ProfileTax) check() error {
	if !slices.Contains([]string{"", "agree", "disagree", stat.CannotTell}, t.Agree) {
		return fmt.Errorf("impossible agree %.60q", t.Agree)
	}
	if len(t.Sites) > MaxRows {
		return fmt.Errorf("%d sites: at most %d are possible", len(t.Sites), MaxRows)
	}
	err := checkMeans([]quantity{
		{"thunks", "ns", t.Thunks, false},
		{"landings", "ns", t.TargetEntries, true},
		{"total", "ns", t.Total, true},
		{"returns", "ns", t.Returns, false},
		{"return-landings", "ns", t.ReturnEntries, false},
		{"direct", "ns", t.Direct, false},
		{"estimate", "ns", t.Estimate, true},
		{"hop", "ns", t.Hop, true},
	})
	if err != nil {
		return err
	}
	return checkEach("site", t.Sites)
}

func (s *ProfileSite) check() error {
	if err := checkNames(s.Function, s.Stage); err != nil {
		return err
	}
	texts := s.Targets
	if s.Pointer != nil {
		texts = append(slices.Clone(texts), *s.Pointer)
	}
	if err := checkTexts(texts); err != nil {
		return err
	}
	return checkMeans([]quantity{
		{"per-packet", "calls", s.PerPacket, false}, {"thunk", "ns", s.Thunk, false}, {"landing", "ns", s.TargetEntry, true},
	})
}

func (s *ProfileStack) check() error {
	if n := len(s.Frames); n == 0 || n > MaxFrames {
		return fmt.Errorf("%d frames: 1 to %d are possible", n, MaxFrames)
	}
	for _, frame := range s.Frames {
		if err := checkNames(frame, s.Stage); err != nil {
			return err
		}
	}
	if s.Samples < 0 || !(s.Ns >= 0 && s.Ns <= maxNs) {
		return fmt.Errorf("impossible: %d samples, %v ns", s.Samples, s.Ns)
	}
	return nil
}

func (r *ProfileRow) rowName() string { return r.Name }

func (p *Profile) check() error {
	for _, part := range []struct {
		name    string
		n, most int
	}{
		{"rows", len(p.Rows), MaxRows},
		{"functions", len(p.Functions), MaxFunctions},
		{"lines", len(p.Lines), MaxSourceLines},
		{"stacks", len(p.Stacks), MaxStacks},
		{"counters", len(p.Counters), MaxRows},
	} {
		if part.n > part.most {
			return fmt.Errorf("%d %s: at most %d are possible", part.n, part.name, part.most)
		}
	}
	if p.Packet == nil || !(p.Packet.Median > 0) {
		return errors.New("it has no ns per packet")
	}
	err := checkQuantities([]quantity{{"packet", "ns", p.Packet, true}, {"undisturbed", "ns", p.Undisturbed, true}})
	if err != nil {
		return err
	}
	if err := checkEach("line", p.Lines); err != nil {
		return err
	}
	if err := checkEach("outside", p.Outside); err != nil {
		return err
	}
	if len(p.Rows) == 0 {
		return errors.New("it has no stages")
	}
	if err := checkRows(p.Rows, map[string]bool{PacketRow: true}); err != nil {
		return err
	}
	for _, row := range p.Rows { // stages add up round by round
		if !slices.Equal(row.Rounds, p.Rows[0].Rounds) {
			return fmt.Errorf("row %s: its rounds are not those of %s", row.Name, p.Rows[0].Name)
		}
	}
	if err := checkReferences(p.References); err != nil {
		return err
	}
	if err := p.Sampling.check(); err != nil {
		return fmt.Errorf("sampling: %w", err)
	}
	if p.Tax != nil {
		if err := p.Tax.check(); err != nil {
			return fmt.Errorf("tax: %w", err)
		}
	}
	if err := checkEach("function", p.Functions); err != nil {
		return err
	}
	for i, c := range p.Counters {
		if c.Name == "" || !plain(c.Name) {
			return fmt.Errorf("counter %d: impossible name %.60q", i, c.Name)
		}
		if err := c.check(); err != nil {
			return fmt.Errorf("counter %s: %w", c.Name, err)
		}
	}
	return checkEach("stack", p.Stacks)
}

func (c *ProfileCounter) check() error {
	if c.PerPacket == nil {
		return errNeither
	}
	return checkQuantities([]quantity{{"per-packet", "events", c.PerPacket, false}})
}
