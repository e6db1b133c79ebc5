package compare

import (
	"fmt"
	"slices"

	"github.com/unthunk/unthunk/internal/kernel/functions"
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

	m := machines(old.References, new.References)
	c.Machine = m.changes()
	roundsOld, roundsNew := old.Rows[0].Rounds, new.Rows[0].Rounds
	add := func(name string, old, new *stat.Quantity, olds, news stat.Run) {
		d := stat.UnpairedMeans(olds, news, "ns")
		row := record.ProfileChange{Name: name, Change: record.Change{Old: old, New: new, Difference: &d}}
		m.scale(&row.Change, &entry{samples: olds.Samples, rounds: roundsOld}, &entry{samples: news.Samples, rounds: roundsNew},
			func(a, b []float64) stat.Difference {
				return stat.UnpairedMeans(stat.Run{Samples: a, Grain: olds.Grain}, stat.Run{Samples: b, Grain: news.Grain}, "ns")
			})
		c.Rows = append(c.Rows, row)
	}
	add(record.PacketRow, old.Packet, new.Packet,
		stat.Run{Samples: sums(old, anyStage)}, stat.Run{Samples: sums(new, anyStage)})
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
	threshold := opts.Threshold / 100 * old.Packet.Median
	conclude(changes, threshold, c.MachineChanged())
	for i := range c.Rows {
		row := &c.Rows[i]
		switch {
		case !row.Regression:
		case row.Name == record.PacketRow:
			row.Regression = ownRegressed(old, new, m, threshold, len(c.Rows))
		default:
			row.Regression = isOwn(row.Name)
		}
	}
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

// ownRegressed tells whether the stages that are the packet's own got slower together by
// more than a threshold in ns. The whole packet holds other tasks and the generator too.
// What no sample was taken of is added for the test: by how much the samples of a round
// are too few or too many, it has more or less. It is no regression by itself. The test is
// corrected for as many rows as there are: those of other stages can be no regression,
// which leaves room for this one.
func ownRegressed(old, new *record.Profile, m machine, threshold float64, rows int) bool {
	differ := func(wanted func(stage string) bool) stat.Difference {
		var c record.Change
		compare := func(a, b []float64) stat.Difference {
			return stat.UnpairedMeans(stat.Run{Samples: a}, stat.Run{Samples: b}, "ns")
		}
		a, b := sums(old, wanted), sums(new, wanted)
		m.scale(&c, &entry{samples: a, rounds: old.Rows[0].Rounds}, &entry{samples: b, rounds: new.Rows[0].Rounds}, compare)
		if c.Relative != nil {
			return *c.Relative
		}
		return compare(a, b)
	}
	d := differ(func(stage string) bool { return isOwn(stage) || stage == record.Unattributed })
	d = d.At(stat.Alpha / float64(rows))
	d.P *= float64(rows)
	return stat.Beyond(d, threshold) && differ(isOwn).Median > threshold
}

// isOwn tells whether a stage is work for the packet that a NIC's packet has too: it is
// of the redirect path or shared by it. The generator, the sink, other tasks, tracing
// and what no sample was taken of are not.
func isOwn(stage string) bool {
	group := functions.Stage(stage).Group()
	return group == functions.GroupPath || group == functions.GroupShared
}

// anyStage is for sums of all stages.
func anyStage(string) bool { return true }

// sums are the stages that are wanted together, round by round.
func sums(p *record.Profile, wanted func(stage string) bool) []float64 {
	sums := make([]float64, len(p.Rows[0].Samples))
	for _, row := range p.Rows {
		if !wanted(row.Name) {
			continue
		}
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
	asked := []string{"prog", "devmap", "packets", "scenario", "bulk", "operation", "size", "mode", "place", "event", "rate", "duration",
		"rounds", "cpu", "in", "out"}
	if text := unlike(old.Settings, new.Settings, asked); text != "" {
		c.Warn("", text)
	}
	if a, b := old.Sampling.Event, new.Sampling.Event; a != b {
		c.Warn("", fmt.Sprintf("old was sampled by %s, new by %s: what one counts for a stage the other may count for "+
			"its neighbor", a, b))
	}
	if text := unknownSpeed(len(old.References) > 0, len(new.References) > 0); text != "" {
		c.Warn("", text)
	}
	if slices.ContainsFunc(c.Rows, func(r record.ProfileChange) bool { return r.Outcome() == stat.CannotTell }) {
		c.Warn("", drifted)
	}
}
