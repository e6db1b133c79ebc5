package compare

import (
	"fmt"
	"slices"

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
	c := &record.ProfileComparison{Threshold: opts.Threshold, Causes: causes(old.Host, new.Host)}
	c.Head, c.Compared = headOf(&old.Head, &new.Head)
	c.Incomplete = old.Incomplete || new.Incomplete
	c.Warnings = []record.Warning{}

	add := func(name string, old, new *stat.Quantity, olds, news stat.Run) {
		d := stat.UnpairedMeans(olds, news, "ns")
		c.Rows = append(c.Rows, record.ProfileChange{Name: name, Change: record.Change{Old: old, New: new, Difference: &d}})
	}
	add(record.PacketRow, old.Packet, new.Packet, stat.Run{Samples: sums(old)}, stat.Run{Samples: sums(new)})
	oldGrain, newGrain := grain(old), grain(new)
	for was, is := range matched(old.Rows, new.Rows, func(r *record.ProfileRow) string { return r.Name }) {
		switch {
		case was == nil:
			c.Rows = append(c.Rows, record.ProfileChange{
				Name: is.Name, Change: record.Change{New: is.Ns, Missing: "only in new"},
			})
		case is == nil:
			c.Rows = append(c.Rows, record.ProfileChange{
				Name: was.Name, Change: record.Change{Old: was.Ns, Missing: "only in old"},
			})
		default:
			add(is.Name, was.Ns, is.Ns,
				stat.Run{Samples: was.Samples, Grain: oldGrain}, stat.Run{Samples: is.Samples, Grain: newGrain})
		}
	}
	changes := make([]*record.Change, len(c.Rows))
	for i := range c.Rows {
		changes[i] = &c.Rows[i].Change
	}
	conclude(changes, opts.Threshold/100*old.Packet.Median)
	warnProfiles(c, old, new)
	for _, side := range []struct {
		prefix string
		*record.Profile
	}{{"old: ", old}, {"new: ", new}} {
		if side.Incomplete {
			c.Warn("", side.prefix+stoppedEarly)
		}
		for _, w := range side.Warnings {
			c.Warn(w.Row, side.prefix+w.Text)
		}
	}
	return c
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

// warnProfiles says what makes the two profiles unlike each other, and what a
// comparison of two runs cannot know.
func warnProfiles(c *record.ProfileComparison, old, new *record.Profile) {
	asked := []string{"scenario", "bulk", "operation", "size", "mode", "place", "event", "rate", "duration",
		"rounds", "cpu", "in", "out"}
	if text := unlike(old.Settings, new.Settings, asked); text != "" {
		c.Warn("", text)
	}
	if a, b := old.Sampling.Event, new.Sampling.Event; a != b {
		c.Warn("", fmt.Sprintf("old was sampled by %s, new by %s: what one counts for a stage the other may count for "+
			"its neighbour", a, b))
	}
	if slices.ContainsFunc(c.Rows, func(r record.ProfileChange) bool { return r.Verdict == stat.CannotTell }) {
		c.Warn("", drifted)
	}
}
