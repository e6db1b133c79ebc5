package compare

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
)

// onMachine is a run whose rows take factor times what they usually do, on a machine whose references take so many times
// what they usually take, by name; those that are not named take once.
func onMachine(run string, seed uint64, factor float64, times map[string]float64) *record.Document[record.BenchRow] {
	doc := recordtest.Ladder(run, seed, factor)
	random := rand.New(rand.NewPCG(seed, 1))
	var refs []record.Reference
	for _, name := range []string{record.CoreClock, record.KernelLoop, record.NearWalk, record.FarWalk} {
		r := record.Reference{Name: name, Rounds: doc.Rows[0].Rounds}
		for range r.Rounds {
			x := math.Exp(0.005 * random.NormFloat64())
			if slower, ok := times[name]; ok {
				x *= slower
			}
			if name == record.CoreClock {
				x = 1 / x
			}
			r.Samples = append(r.Samples, x)
		}
		q := stat.Summarize(r.Samples, record.ReferenceUnit(name))
		r.Value = &q
		refs = append(refs, r)
	}
	doc.AddReferences("", refs)
	return doc
}

// all are references that all take so many times what they usually take.
func all(x float64) map[string]float64 {
	return map[string]float64{record.CoreClock: x, record.KernelLoop: x, record.NearWalk: x, record.FarWalk: x}
}

// Only what no reference explains is faster or slower, and what keeps pace while they slow down is neither.
func TestMachineChanged(t *testing.T) {
	for _, test := range []struct {
		name  string
		row   float64
		times map[string]float64
		want  string // of each row
		moved bool
	}{
		{"steady machine", 1.5, nil, stat.Slower, false},
		{"half the speed", 2, all(2), stat.CannotTell + machineChanged, true},
		{"twice the speed", 0.5, all(0.5), stat.CannotTell + machineChanged, true},
		{"slower machine, slower path", 2, all(1.3), stat.Slower, true},
		{"faster machine, faster path", 0.5, all(0.8), stat.Faster, true},
		{"slower machine, same time", 1, all(1.5), stat.CannotTell + machineChanged, true},
		{"faster machine, same time", 1, all(0.7), stat.CannotTell + machineChanged, true},
		{"slower memory", 1.2, map[string]float64{record.FarWalk: 1.5}, stat.CannotTell + machineChanged, true},
		{"slower memory and path", 2, map[string]float64{record.FarWalk: 1.5}, stat.Slower, true},
		{"slower clock", 1.3, map[string]float64{record.CoreClock: 1.4}, stat.CannotTell + machineChanged, true},
	} {
		c := compared(t, onMachine("a", 1, 1, nil), onMachine("b", 2, test.row, test.times), Options{Threshold: 2})
		if c.MachineChanged() != test.moved {
			t.Errorf("%s: changed %v, want %v: %+v", test.name, c.MachineChanged(), test.moved, c.Machine)
		}
		for _, r := range c.Rows {
			if !strings.HasPrefix(r.Verdict, test.want) || r.Relative == nil || r.Cycles == nil {
				t.Errorf("%s: %s: %s, want %s; relative %+v", test.name, r.Name, r.Verdict, test.want, r.Relative)
			}
		}
	}
}
