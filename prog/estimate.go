package prog

import (
	"slices"

	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/stat"
)

// series is what the windows of a group took, in ns a run.
type series struct {
	null, between []float64
	cost          [][]float64
}

// estimate makes one number for each of the rows, and program. Hot windows of one group are alike but for what disturbed them,
// so their middle half is averaged; groups are averaged by their sizes. A cold window is one run of one packet: those
// of a packet are averaged, then all packets.
func (r *Replay) estimate(windows []replay.Window, spans []replay.Span, cycles []cycle, rows []int) map[int]Sample {
	ns := func(at int) float64 { return float64(spans[at].Ns) / float64(windows[at].Timed) }
	found := make([]map[int]*series, len(r.rows))
	for i := range r.rows {
		found[i] = map[int]*series{}
	}
	disturbed := r.disturbed(cycles, ns)
	for n, c := range cycles {
		if disturbed[n] {
			continue
		}
		s := found[c.row][c.group]
		if s == nil {
			s = &series{cost: make([][]float64, len(r.programs))}
			found[c.row][c.group] = s
		}
		null := ns(c.at[0])
		s.null = append(s.null, null)
		for p := range r.programs {
			s.cost[p] = append(s.cost[p], ns(c.at[p+1])-null)
		}
		if len(r.programs) > 1 {
			s.between = append(s.between, ns(c.at[2])-ns(c.at[1]))
		}
	}
	samples := make(map[int]Sample, len(rows))
	for _, i := range rows {
		samples[i] = r.average(&r.rows[i], found[i])
		mean := samples[i].Null
		for _, cost := range samples[i].Cost {
			mean += max(cost, 0) / float64(1+len(samples[i].Cost))
		}
		r.rows[i].ns = max(mean, 1)
	}
	return samples
}

// average is that of a row over its groups, or its cold packets, of which a call may end before all had their turn.
func (r *Replay) average(row *row, found map[int]*series) Sample {
	center := middle
	if r.opts.Cold > 0 {
		center = mean
	}
	sum, total := Sample{Cost: make([]float64, len(r.programs))}, 0.0
	for g, s := range found {
		weight := 1.0
		if r.opts.Cold == 0 {
			weight = float64(row.groups[g].size)
		}
		total += weight
		sum.Null += weight * center(s.null)
		sum.Between += weight * center(s.between)
		for p := range sum.Cost {
			sum.Cost[p] += weight * center(s.cost[p])
		}
	}
	sum.Null /= total
	sum.Between /= total
	for p := range sum.Cost {
		sum.Cost[p] /= total
	}
	return sum
}

// farOff is how many times what is usual a window takes in which something else had the CPU. Groups of a row hold the
// same mix, so that their own times are much nearer to each other.
const farOff = 3

// disturbed tells of each cycle whether something else had the CPU in one of its windows. Where that is so of all cycles
// of a row, as each can have another program's window, it is told of none.
func (r *Replay) disturbed(cycles []cycle, ns func(window int) float64) []bool {
	limit := r.limits(cycles, ns)
	out := make([]bool, len(cycles))
	left := make([]int, len(r.rows))
	for n, c := range cycles {
		for p, at := range c.at {
			out[n] = out[n] || ns(at) > limit(c, p)
		}
		if !out[n] {
			left[c.row]++
		}
	}
	for n, c := range cycles {
		out[n] = out[n] && left[c.row] > 0
	}
	return out
}

// limits makes the longest time of a program's window in a cycle. It goes by the median of the program and row. A cold
// window has one packet, and packets of a row may be of many kinds: where the quickest window of a packet is above the
// median, it goes by that one.
func (r *Replay) limits(cycles []cycle, ns func(window int) float64) func(c cycle, program int) float64 {
	type which struct{ row, packet, program int }
	quickest, all := map[which]float64{}, map[which][]float64{}
	for _, c := range cycles {
		for p, at := range c.at {
			row, packet := which{row: c.row, program: p}, which{c.row, c.group, p}
			all[row] = append(all[row], ns(at))
			if before, seen := quickest[packet]; !seen || ns(at) < before {
				quickest[packet] = ns(at)
			}
		}
	}
	medians := map[which]float64{}
	for row, times := range all {
		medians[row] = stat.Median(times)
	}
	return func(c cycle, program int) float64 {
		usual := medians[which{row: c.row, program: program}]
		if r.opts.Cold > 0 {
			usual = max(usual, quickest[which{c.row, c.group, program}])
		}
		return farOff * usual
	}
}

// middle is the mean of the middle half; 0 of nothing.
func middle(xs []float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	return mean(s[len(s)/4 : len(s)-len(s)/4])
}

// mean is 0 of nothing.
func mean(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}
