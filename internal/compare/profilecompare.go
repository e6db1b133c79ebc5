package compare

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Profiles compares the stages of two profiles: first the whole packet,
// which is the sum of its stages, then the stages of new in their order, then
// those that only old has. A difference is one of means, in ns, by
// [stat.UnpairedMeans]: a stage may have no sample in many rounds, and a percentage
// of it may mean nothing. The threshold is in percent of the old packet, so that a
// stage counts when it moves the packet by more.
func Profiles(old, new *record.Profile, opts Options) *record.ProfileComparison {
	c := &profileComparison{&record.ProfileComparison{
		Old: record.Origin{Time: old.Time, Run: old.Run}, New: record.Origin{Time: new.Time, Run: new.Run},
		Threshold: opts.Threshold, Causes: causes(old.Host, new.Host),
	}}
	c.Schema, c.Kind, c.Time, c.Run, c.Host, c.Settings = record.Schema, "compare", new.Time, new.Run, new.Host, new.Settings
	c.Incomplete = old.Incomplete || new.Incomplete
	c.Warnings = []record.Warning{}

	c.add(record.PacketRow, old.Packet, new.Packet, stat.Run{Samples: sums(old)}, stat.Run{Samples: sums(new)})
	olds := make(map[string]*record.ProfileRow)
	for i := range old.Rows {
		olds[old.Rows[i].Name] = &old.Rows[i]
	}
	oldGrain, newGrain := grain(old), grain(new)
	for i := range new.Rows {
		row := &new.Rows[i]
		was := olds[row.Name]
		delete(olds, row.Name)
		if was == nil {
			c.Rows = append(c.Rows, record.ProfileChange{Name: row.Name, New: row.Ns, Missing: "only in new"})
			continue
		}
		c.add(row.Name, was.Ns, row.Ns, stat.Run{Samples: was.Samples, Grain: oldGrain}, stat.Run{Samples: row.Samples, Grain: newGrain})
	}
	for i := range old.Rows {
		if row := &old.Rows[i]; olds[row.Name] != nil {
			c.Rows = append(c.Rows, record.ProfileChange{Name: row.Name, Old: row.Ns, Missing: "only in old"})
		}
	}
	c.conclude(opts.Threshold / 100 * old.Packet.Median)
	c.warnTwo(old, new)
	c.carry("old: ", old)
	c.carry("new: ", new)
	return c.ProfileComparison
}

// profileComparison is one of two profiles under way.
type profileComparison struct{ *record.ProfileComparison }

func (c *profileComparison) add(name string, old, new *stat.Quantity, olds, news stat.Run) {
	d := stat.UnpairedMeans(olds, news, "ns")
	c.Rows = append(c.Rows, record.ProfileChange{Name: name, Old: old, New: new, Difference: &d})
}

// sums are the stages together, round by round.
func sums(p *record.Profile) []float64 {
	sums := make([]float64, len(p.Rows[0].Samples))
	for _, row := range p.Rows {
		for i, ns := range row.Samples {
			sums[i] += ns
		}
	}
	return sums
}

// grain is what one sample adds to a stage in a round, in ns per packet.
func grain(p *record.Profile) float64 {
	sampled := 0.0
	for _, row := range p.Rows {
		if row.Name == record.Unattributed {
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
func (c *profileComparison) conclude(threshold float64) {
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
func (c *profileComparison) warnTwo(old, new *record.Profile) {
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
	if slices.ContainsFunc(c.Rows, func(r record.ProfileChange) bool { return r.Verdict == stat.CannotTell }) {
		c.warn("", "two runs at different times: their drift is counted as uncertainty; longer runs see smaller differences")
	}
}

// carry takes over the warnings of a profile.
func (c *profileComparison) carry(prefix string, p *record.Profile) {
	if p.Incomplete {
		c.warn("", prefix+"the run was stopped before its end")
	}
	for _, w := range p.Warnings {
		c.warn(w.Row, prefix+w.Text)
	}
}

func (c *profileComparison) warn(row, text string) {
	c.Warnings = append(c.Warnings, record.Warning{Row: row, Text: text})
}
