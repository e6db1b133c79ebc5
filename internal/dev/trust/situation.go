package main

import (
	"encoding/json"
	"fmt"

	"github.com/unthunk/unthunk/internal/record"
)

// situation is what is tried.
type situation struct {
	name string
	runs int // 1 or 2
	// slow is by how much the second side is slowed, in percent of a packet at bulk 64. Where it is 0 nothing differs.
	slow float64
	// load picks for the n-th try what else the machine has to do, and in which of the two runs; nil for nothing.
	load func(n int, loads []load) (run int, l load)
	// profiles is set for runs of profile, the one with the load the second.
	profiles bool
	// machine makes the second run of "two runs" one of a machine that takes so many times as long, by the name of the
	// reference, and path so many times as long for rows. Nothing is measured for such a situation.
	machine map[string]float64
	path    float64
}

// simulated tells whether the situation is made of what was measured in another.
func (s situation) simulated() bool { return s.path > 0 }

// every is a machine on which all work takes so many times as long.
func every(times float64) map[string]float64 {
	return map[string]float64{
		record.CoreClock: times, record.KernelLoop: times, record.NearWalk: times, record.FarWalk: times,
	}
}

// twoRuns is the place of that situation.
const twoRuns = 1

// situations are all that are tried.
func situations() []situation {
	return []situation{
		{name: "one run", runs: 1},
		{name: "two runs", runs: 2},
		{name: "speed changes", runs: 2, load: func(n int, loads []load) (int, load) {
			return 1, loads[n%len(loads)]
		}},
		{name: "busy and quiet", runs: 2, load: fourBusy},
		{name: "half the speed, simulated", runs: 2, machine: every(2), path: 2},
		{name: "slower memory, simulated", runs: 2, machine: map[string]float64{record.FarWalk: 1.8}, path: 1.3},
		{name: "slower clock, same path, simulated", runs: 2, machine: every(1.4), path: 1},
		{name: "slower, one run", runs: 1, slow: 10},
		{name: "slower, two runs", runs: 2, slow: 40},
		{name: "profiles", runs: 2, profiles: true, load: fourBusy},
	}
}

// fourBusy are four busy loops on any CPU, in the first run and in the second in turn.
func fourBusy(n int, _ []load) (run int, l load) {
	return n % 2, load{name: "four busy loops", loops: make([]loop, 4)}
}

// title is the situation's name in the table.
func (s situation) title() string {
	if s.slow > 0 {
		return fmt.Sprintf("%s (%.0f %% at bulk 64)", s.name, s.slow)
	}
	return s.name
}

// simulate makes two runs those of the situation.
func (s situation) simulate(one outcome) (outcome, error) {
	b, err := json.Marshal(one.runs[1].Doc)
	if err != nil {
		return outcome{}, err
	}
	doc := new(record.Document[record.BenchRow])
	if err := json.Unmarshal(b, doc); err != nil {
		return outcome{}, err
	}
	for i := range doc.Rows {
		slow(doc.Rows[i].Samples, s.path)
	}
	for i := range doc.References {
		r := &doc.References[i]
		times, ok := s.machine[r.Name]
		switch {
		case !ok:
			continue
		case r.Name == record.CoreClock:
			times = 1 / times
		}
		slow(r.Samples, times)
	}
	return outcome{runs: []*record.Saved{one.runs[0], record.NewSaved(doc)}}, nil
}

func slow(samples []float64, times float64) {
	for i := range samples {
		samples[i] *= times
	}
}
