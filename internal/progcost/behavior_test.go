package progcost

import (
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/prog"
)

// What a program does otherwise by itself is not compared, and the rest of the same packet is.
func TestBehaviors(t *testing.T) {
	t.Parallel()
	sent := func(hash uint64) prog.Outcome { return prog.Outcome{Verdict: 3, Length: 60, Hash: hash} }
	dropped := prog.Outcome{Verdict: 1, Length: 60, Hash: 1}
	atRandom := prog.Outcome{Verdict: 3, Length: 60, Hash: 1, Unsteady: true}
	dropsNow := prog.Outcome{Verdict: 1, Length: 60, Hash: 1, Unsteady: true}
	drop := record.BehaviorChange{What: "verdict", Old: "tx", New: "drop", Packets: 1, First: 1}
	for _, tt := range []struct {
		name                      string
		old, oldTwin, is, newTwin prog.Outcome
		want                      []record.BehaviorChange
		unsteady                  int
	}{
		{"alike", sent(1), sent(1), sent(1), sent(1), nil, 0},
		{"a random port, then a drop", sent(1), sent(2), dropped, dropped, []record.BehaviorChange{drop}, 0},
		{"a random port in both", sent(1), sent(2), sent(3), sent(4), nil, 1},
		{"a port that is random now", sent(1), sent(1), sent(3), sent(4), nil, 1},
		{"other bytes", sent(1), sent(1), sent(2), sent(2), []record.BehaviorChange{{What: "bytes", Packets: 1, First: 1}}, 0},
		{"bytes that vary", sent(0), sent(0), sent(0), sent(0), nil, 1},
		{"drops at random, seen by the old one", atRandom, dropped, dropped, dropped, nil, 1},
		{"drops at random, seen by the new one", sent(1), sent(1), dropsNow, sent(1), nil, 1},
		{"drops at random, seen by the new one's other load", sent(1), sent(1), dropped, sent(1), nil, 1},
	} {
		clean := func(o prog.Outcome) prog.Clean { return prog.Clean{Outcomes: []prog.Outcome{o}} }
		oldTwin, newTwin := clean(tt.oldTwin), clean(tt.newTwin)
		raw := Raw{Clean: []prog.Clean{clean(tt.old), clean(tt.is)}}
		got, unsteady := raw.Behaviors([2]*prog.Clean{&oldTwin, &newTwin}, [2][]string{})
		if got == nil || !slices.Equal(got, append([]record.BehaviorChange{}, tt.want...)) || unsteady != tt.unsteady {
			t.Errorf("%s: %+v, %d unsteady", tt.name, got, unsteady)
		}
	}
}

// Where a redirect goes is compared as a verdict is: other devices are other behavior, also of packets whose bytes vary.
func TestBehaviorsOfRedirects(t *testing.T) {
	t.Parallel()
	sent := prog.Outcome{Verdict: Redirected, Length: 60, Hash: 1}
	varies := prog.Outcome{Verdict: Redirected, Length: 60}
	other := func(old, is string) []record.BehaviorChange {
		return []record.BehaviorChange{{What: "target", Old: old, New: is, Packets: 1, First: 1}}
	}
	marked := prog.Outcome{Verdict: Redirected, Length: 60, Hash: 2}
	bytes := []record.BehaviorChange{{What: "bytes", Packets: 1, First: 1}}
	for _, tt := range []struct {
		name     string
		old, is  prog.Outcome
		to       [2][]string
		want     []record.BehaviorChange
		unsteady int
	}{
		{"the same", sent, sent, [2][]string{{"device 1"}, {"device 1"}}, nil, 0},
		{"another device", sent, sent, [2][]string{{"device 1"}, {"device 2"}}, other("device 1", "device 2"), 0},
		{"another device, other bytes each time", varies, varies, [2][]string{{"device 1"}, {"device 2"}}, other("device 1", "device 2"), 0},
		{"at random", sent, sent, [2][]string{{"device 1"}, {Unknown}}, nil, 1},
		{"at random, other bytes", sent, marked, [2][]string{{Unknown}, {Unknown}}, bytes, 0},
		{"at random, other bytes each time", sent, varies, [2][]string{{Unknown}, {Unknown}}, nil, 1},
		{"not seen", sent, sent, [2][]string{}, nil, 0},
	} {
		raw := Raw{Clean: []prog.Clean{{Outcomes: []prog.Outcome{tt.old}}, {Outcomes: []prog.Outcome{tt.is}}}}
		got, unsteady := raw.Behaviors([2]*prog.Clean{}, tt.to)
		if !slices.Equal(got, append([]record.BehaviorChange{}, tt.want...)) || unsteady != tt.unsteady {
			t.Errorf("%s: %+v, %d unsteady", tt.name, got, unsteady)
		}
	}
}
