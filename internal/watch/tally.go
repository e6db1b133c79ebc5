package watch

import (
	"time"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// tally is what happened in a while.
type tally struct {
	length   time.Duration
	packets  uint64
	verdicts map[string]uint64
	lost     map[string]uint64
	errors   map[string]uint64 // of redirects, by errno
	// samples were taken in the polls, or in the program where the polls are not known. They
	// stand for the ns in program, in the program and what it calls, and in stages.
	samples int
	program float64
	stages  map[functions.Stage]float64
	// cost is what watching took of the sampled CPUs, in ns; costly is set when it is known.
	cost float64
	// calls of ndo_xdp_xmit and frames that it took.
	calls, frames uint64
	// stats is the sum of what run statistics said of a run in ns, statsSeconds how many it
	// is of.
	stats        float64
	statsSeconds int
}

// path is the time in the polls, without observers.
func (t *tally) path() (ns float64) {
	for stage, each := range t.stages {
		if stage != functions.StageObserver {
			ns += each
		}
	}
	return ns
}

// plus is both together.
func (t tally) plus(b tally) tally {
	t.length += b.length
	t.packets += b.packets
	t.verdicts, t.lost, t.errors = added(t.verdicts, b.verdicts), added(t.lost, b.lost), added(t.errors, b.errors)
	t.samples += b.samples
	t.program += b.program
	t.stages = added(t.stages, b.stages)
	t.cost += b.cost
	t.calls, t.frames = t.calls+b.calls, t.frames+b.frames
	t.stats, t.statsSeconds = t.stats+b.stats, t.statsSeconds+b.statsSeconds
	return t
}

// added is a new map with the sums of both.
func added[K comparable, N uint64 | float64](a, b map[K]N) map[K]N {
	out := make(map[K]N, max(len(a), len(b)))
	for k, n := range a {
		out[k] += n
	}
	for k, n := range b {
		out[k] += n
	}
	return out
}

// tallies are those of a whole watch, each of as many seconds as the others.
type tallies struct {
	all  []tally
	each int // seconds of a tally
	last tally
	held int // seconds in last
}

// maxTallies bounds how many there are: a longer watch has longer ones.
const maxTallies = 2048

// add adds a second.
func (ts *tallies) add(t tally) {
	ts.each = max(ts.each, 1)
	if ts.held == 0 {
		ts.last = t
	} else {
		ts.last = ts.last.plus(t)
	}
	if ts.held++; ts.held < ts.each {
		return
	}
	ts.all, ts.held = append(ts.all, ts.last), 0
	if len(ts.all) < maxTallies {
		return
	}
	for i := range maxTallies / 2 {
		ts.all[i] = ts.all[2*i].plus(ts.all[2*i+1])
	}
	ts.all = ts.all[:maxTallies/2]
	ts.each *= 2
}

// sum is all of it.
func (ts *tallies) sum() (t tally) {
	for _, each := range ts.all {
		t = t.plus(each)
	}
	if ts.held > 0 {
		t = t.plus(ts.last)
	}
	return t
}
