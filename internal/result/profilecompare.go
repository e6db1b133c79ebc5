package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/stat"
)

// Limits on what [LoadProfile] accepts.
const (
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
	packetRow    = "packet"
	unattributed = "unattributed"
)

// LoadProfile reads a record that profile wrote with --save or --json. A record
// of another kind is an [ErrKind]; anything else that is not one is an error of
// one line with the file's name.
func LoadProfile(path string) (*Profile, error) { return load(path, parseProfile) }

func parseProfile(b []byte) (*Profile, error) {
	kind, err := parseHead(b)
	if err != nil {
		return nil, err
	}
	if kind != "profile" {
		return nil, fmt.Errorf("%w: %.40q", ErrKind, kind)
	}
	p := new(Profile)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("not a record of profile: %w", err)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Profile) check() error {
	if p.Run == "" {
		return errors.New("the record has no run identity")
	}
	return p.checkParts()
}

func (p *Profile) checkParts() error {
	for _, part := range []struct {
		name    string
		n, most int
	}{
		{"rows", len(p.Rows), MaxRows},
		{"functions", len(p.Functions), MaxFunctions},
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
	if err := checkQuantities([]quantity{{"packet", "ns", p.Packet, true}}); err != nil {
		return err
	}
	if len(p.Rows) == 0 {
		return errors.New("it has no stages")
	}
	seen := map[string]bool{packetRow: true}
	for i := range p.Rows {
		row := &p.Rows[i]
		if err := checkRow(seen, i, row.Name, row.check); err != nil {
			return err
		}
		// Stages add up round by round.
		if !slices.Equal(row.Rounds, p.Rows[0].Rounds) {
			return fmt.Errorf("row %s: its rounds are not those of %s", row.Name, p.Rows[0].Name)
		}
	}
	if err := p.Sampling.check(); err != nil {
		return fmt.Errorf("sampling: %w", err)
	}
	for i := range p.Functions {
		if err := p.Functions[i].check(); err != nil {
			return fmt.Errorf("function %d: %w", i, err)
		}
	}
	if p.Tax != nil {
		if err := p.Tax.check(); err != nil {
			return fmt.Errorf("tax: %w", err)
		}
	}
	for i, c := range p.Counters {
		if c.Name == "" || !plain(c.Name) {
			return fmt.Errorf("counter %d: impossible name %.60q", i, c.Name)
		}
		if c.PerPacket == nil {
			return fmt.Errorf("counter %s: %w", c.Name, errNeither)
		}
		if err := checkQuantities([]quantity{{"per-packet", "events", c.PerPacket, false}}); err != nil {
			return fmt.Errorf("counter %s: %w", c.Name, err)
		}
	}
	for i := range p.Stacks {
		if err := p.Stacks[i].check(); err != nil {
			return fmt.Errorf("stack %d: %w", i, err)
		}
	}
	return nil
}

func (r *ProfileRow) check() error {
	signed := r.Name == unattributed
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

// checkMeans is [checkQuantities] for means: the interval of one may reach below
// 0 when it itself cannot.
func checkMeans(qs []quantity) error {
	for i, q := range qs {
		if q.Quantity != nil && !q.signed && q.Median < 0 {
			return fmt.Errorf("%s is impossible: %v %s", q.name, q.Median, q.Unit)
		}
		qs[i].signed = true
	}
	return checkQuantities(qs)
}

func (s *Sampling) check() error {
	if s.Event == "" || !plain(s.Event) {
		return fmt.Errorf("impossible event %.60q", s.Event)
	}
	if s.Rate < 0 || s.Samples < 0 || s.Lost < 0 || s.Throttled < 0 {
		return errors.New("a count below 0")
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

func (t *ProfileTax) check() error {
	if !slices.Contains([]string{"", "agree", "disagree", stat.CannotTell}, t.Agree) {
		return fmt.Errorf("impossible agree %.60q", t.Agree)
	}
	if len(t.Sites) > MaxRows {
		return fmt.Errorf("%d sites: at most %d are possible", len(t.Sites), MaxRows)
	}
	err := checkMeans([]quantity{
		{"thunks", "ns", t.Thunks, false},
		{"landings", "ns", t.Landings, true},
		{"total", "ns", t.Total, true},
		{"returns", "ns", t.Returns, false},
		{"return-landings", "ns", t.ReturnLandings, false},
		{"direct", "ns", t.Direct, false},
		{"estimate", "ns", t.Estimate, true},
		{"hop", "ns", t.Hop, true},
	})
	if err != nil {
		return err
	}
	for i := range t.Sites {
		if err := t.Sites[i].check(); err != nil {
			return fmt.Errorf("site %d: %w", i, err)
		}
	}
	return nil
}

func (s *ProfileSite) check() error {
	if err := checkNames(s.Function, s.Stage); err != nil {
		return err
	}
	texts := s.Targets
	if s.Calls != nil {
		texts = append(slices.Clone(texts), *s.Calls)
	}
	if err := checkTexts(texts); err != nil {
		return err
	}
	return checkMeans([]quantity{
		{"per-packet", "calls", s.PerPacket, false}, {"thunk", "ns", s.Thunk, false}, {"landing", "ns", s.Landing, true},
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

// checkNames is for a function and its stage, which both have to be there.
func checkNames(function, stage string) error {
	if function == "" || stage == "" {
		return errors.New("it has no name or no stage")
	}
	return checkTexts([]string{function, stage})
}

func checkTexts(texts []string) error {
	for _, text := range texts {
		if utf8.RuneCountInString(text) > maxText || !printable(text) {
			return fmt.Errorf("impossible text %.60q", text)
		}
	}
	return nil
}

// ProfileComparison is what two profiles differ in. It marshals as a document of
// kind "compare" whose host is that of the new record.
type ProfileComparison struct {
	Document[ProfileChange]
	Old Origin `json:"old"`
	New Origin `json:"new"`
	// Threshold in percent of the old packet.
	Threshold float64 `json:"threshold"`
	Causes    []Cause `json:"causes"`
}

// ProfileChange is what two profiles differ in at one stage.
type ProfileChange struct {
	// Name of the stage; "packet" is the whole.
	Name string `json:"name"`
	// Old and New are in ns per packet; null where there is no such stage.
	Old *stat.Quantity `json:"old"`
	New *stat.Quantity `json:"new"`
	// Difference is new less old in ns per packet: positive is slower. Its
	// interval and p hold for all rows of the comparison together. Nil when
	// one side has no such stage.
	Difference *stat.Difference `json:"difference"`
	// Verdict is in the words of [stat.Verdict], for a threshold in percent of
	// the old packet; empty when one side has no such stage.
	Verdict string `json:"verdict,omitempty"`
	// Regression is set when the stage makes the packet slower by more than the
	// threshold, with confidence.
	Regression bool `json:"regression"`
	// Missing says which side has no such stage.
	Missing string `json:"missing,omitempty"`
}

// Regressed reports whether the packet, or a stage of it, got slower by more
// than the threshold.
func (c *ProfileComparison) Regressed() bool {
	return slices.ContainsFunc(c.Rows, func(r ProfileChange) bool { return r.Regression })
}

// CompareProfiles compares the stages of two profiles: first the whole packet,
// which is the sum of its stages, then the stages of new in their order, then
// those that only old has. A difference is one of means, in ns, by
// [stat.UnpairedMeans]: a stage may have no sample in many rounds, and a percentage
// of it may mean nothing. The threshold is in percent of the old packet, so that a
// stage counts when it moves the packet by more.
func CompareProfiles(old, new *Profile, opts CompareOptions) *ProfileComparison {
	c := &ProfileComparison{
		Old: Origin{Time: old.Time, Run: old.Run}, New: Origin{Time: new.Time, Run: new.Run},
		Threshold: opts.Threshold, Causes: causes(old.Host, new.Host),
	}
	c.Schema, c.Kind, c.Time, c.Run, c.Host, c.Settings = Schema, "compare", new.Time, new.Run, new.Host, new.Settings
	c.Incomplete = old.Incomplete || new.Incomplete
	c.Warnings = []Warning{}

	c.add(packetRow, old.Packet, new.Packet, stat.Run{Samples: old.sums()}, stat.Run{Samples: new.sums()})
	olds := make(map[string]*ProfileRow)
	for i := range old.Rows {
		olds[old.Rows[i].Name] = &old.Rows[i]
	}
	oldGrain, newGrain := old.grain(), new.grain()
	for i := range new.Rows {
		row := &new.Rows[i]
		was := olds[row.Name]
		delete(olds, row.Name)
		if was == nil {
			c.Rows = append(c.Rows, ProfileChange{Name: row.Name, New: row.Ns, Missing: "only in new"})
			continue
		}
		c.add(row.Name, was.Ns, row.Ns, stat.Run{Samples: was.Samples, Grain: oldGrain}, stat.Run{Samples: row.Samples, Grain: newGrain})
	}
	for i := range old.Rows {
		if row := &old.Rows[i]; olds[row.Name] != nil {
			c.Rows = append(c.Rows, ProfileChange{Name: row.Name, Old: row.Ns, Missing: "only in old"})
		}
	}
	c.conclude(opts.Threshold / 100 * old.Packet.Median)
	c.warnTwo(old, new)
	c.carry("old: ", old)
	c.carry("new: ", new)
	return c
}

func (c *ProfileComparison) add(name string, old, new *stat.Quantity, olds, news stat.Run) {
	d := stat.UnpairedMeans(olds, news, "ns")
	c.Rows = append(c.Rows, ProfileChange{Name: name, Old: old, New: new, Difference: &d})
}

// sums are the stages together, round by round.
func (p *Profile) sums() []float64 {
	sums := make([]float64, len(p.Rows[0].Samples))
	for _, row := range p.Rows {
		for i, ns := range row.Samples {
			sums[i] += ns
		}
	}
	return sums
}

// grain is what one sample adds to a stage in a round, in ns per packet.
func (p *Profile) grain() float64 {
	sampled := 0.0
	for _, row := range p.Rows {
		if row.Name == unattributed {
			continue
		}
		for _, ns := range row.Samples {
			sampled += ns
		}
	}
	if p.Sampling.Samples == 0 {
		return 0
	}
	return sampled / float64(p.Sampling.Samples)
}

// conclude corrects for many rows and gives the verdicts; threshold is in ns per
// packet.
func (c *ProfileComparison) conclude(threshold float64) {
	var ds []stat.Difference
	for _, row := range c.Rows {
		if row.Difference != nil {
			ds = append(ds, *row.Difference)
		}
	}
	ds = stat.Family(ds)
	for i := range c.Rows {
		row := &c.Rows[i]
		if row.Difference == nil {
			continue
		}
		*row.Difference, ds = ds[0], ds[1:]
		row.Verdict = stat.Verdict(*row.Difference, threshold)
		row.Regression = stat.Beyond(*row.Difference, threshold)
	}
}

// warnTwo says what makes the two profiles unlike each other, and what a
// comparison of two runs cannot know.
func (c *ProfileComparison) warnTwo(old, new *Profile) {
	var unlike []string
	for _, name := range []string{"scenario", "bulk", "operation", "size", "mode", "place", "event", "rate", "duration", "rounds", "cpu", "in", "out"} {
		if old.Settings[name] != new.Settings[name] {
			unlike = append(unlike, fmt.Sprintf("%s (%s, %s)", name, orDefault(old.Settings[name]), orDefault(new.Settings[name])))
		}
	}
	if len(unlike) > 0 {
		c.warn("", "the runs were asked for different things: "+strings.Join(unlike, ", "))
	}
	if a, b := old.Sampling.Event, new.Sampling.Event; a != b {
		c.warn("", fmt.Sprintf("old was sampled by %s, new by %s: what one counts for a stage the other may count for its neighbour", a, b))
	}
	if slices.ContainsFunc(c.Rows, func(r ProfileChange) bool { return r.Verdict == stat.CannotTell }) {
		c.warn("", "two runs at different times: their drift is counted as uncertainty; longer runs see smaller differences")
	}
}

// carry takes over the warnings of a profile.
func (c *ProfileComparison) carry(prefix string, p *Profile) {
	if p.Incomplete {
		c.warn("", prefix+"the run was stopped before its end")
	}
	for _, w := range p.Warnings {
		c.warn(w.Row, prefix+w.Text)
	}
}

func (c *ProfileComparison) warn(row, text string) {
	c.Warnings = append(c.Warnings, Warning{Row: row, Text: text})
}
