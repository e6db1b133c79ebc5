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
		got, unsteady := raw.Behaviors([2]*prog.Clean{&oldTwin, &newTwin}, [2][]string{}, nil)
		if got == nil || !slices.Equal(got, append([]record.BehaviorChange{}, tt.want...)) || unsteady != tt.unsteady {
			t.Errorf("%s: %+v, %d unsteady", tt.name, got, unsteady)
		}
	}
}

// What varies in one program alone is another behavior when it varies in many runs, and the other program does the same in all.
func TestBehaviorsOfOneProgram(t *testing.T) {
	t.Parallel()
	const runs = Loads * (loadPasses - 1)
	every := func(f func(run int) Seen) (seen []Seen) {
		for run := range runs {
			seen = append(seen, f(run))
		}
		return seen
	}
	sent := func(to string, hash uint64) Seen { return Seen{Verdict: Redirected, Length: 60, Hash: hash, To: to} }
	always := every(func(int) Seen { return sent("device 1", 1) })
	bytes := every(func(run int) Seen { return sent("device 1", uint64(2+run)) })
	coin := every(func(run int) Seen { return sent("device 1", uint64(1+run%2)) })
	seldom := every(func(run int) Seen { return sent("device 1", uint64(1+run/(runs-1))) })
	turns := every(func(run int) Seen { return sent([]string{"device 1", "device 2"}[run%2], 1) })
	elsewhere := every(func(run int) Seen { return sent("device 2", uint64(2+run)) })
	unseen := every(func(int) Seen { return sent("", 1) })
	long := every(func(int) Seen { return Seen{Verdict: 3, Length: prog.MaxFrame + 1} })
	drops := every(func(run int) Seen { return Seen{Verdict: uint32(1 + run%2), Length: 60, Hash: 1} })
	passes := every(func(int) Seen { return Seen{Verdict: 2, Length: 60, Hash: 1} })
	grows := every(func(run int) Seen { return Seen{Verdict: 2, Length: 60 + run, Hash: uint64(run + 1)} })
	change := func(what, old, is string) *record.BehaviorChange {
		return &record.BehaviorChange{What: what, Old: old, New: is, Packets: 1, First: 1}
	}
	for _, tt := range []struct {
		name    string
		old, is []Seen
		want    *record.BehaviorChange
	}{
		{"random bytes now", always, bytes, change("bytes", AlwaysSame, EachTime)},
		{"no random bytes now", bytes, always, change("bytes", EachTime, AlwaysSame)},
		{"one of two now", always, coin, change("bytes", AlwaysSame, EachTime)},
		{"random bytes in both", bytes, bytes, nil},
		{"random in many ways, in two ways", bytes, coin, nil},
		{"other bytes from time to time", always, seldom, nil},
		{"a random device now", always, turns, change("target", "device 1", EachTime)},
		{"a random device no more", turns, always, change("target", EachTime, "device 1")},
		{"a random device in both", turns, turns, nil},
		{"another device", bytes, elsewhere, change("target", "device 1", "device 2")},
		{"a device that is not seen", unseen, turns, nil},
		{"too long for bytes", long, long, nil},
		{"drops at random", passes, drops, change("verdict", "pass", EachTime)},
		{"a random length", passes, grows, change("length", "60", EachTime)},
		{"the run was stopped", nil, nil, nil},
	} {
		varies := []prog.Clean{{Outcomes: []prog.Outcome{{Verdict: 2, Length: 60, Hash: 1}}},
			{Outcomes: []prog.Outcome{{Verdict: 2, Length: 60, Unsteady: true}}}}
		raw := Raw{Clean: varies}
		if got := raw.Unsettled([2]*prog.Clean{}, [2][]string{}); !slices.Equal(got, []int{0}) {
			t.Fatalf("unsettled: %v", got)
		}
		got, unsteady := raw.Behaviors([2]*prog.Clean{}, [2][]string{}, map[int][2][]Seen{0: {tt.old, tt.is}})
		if tt.want == nil && (len(got) > 0 || unsteady != 1) ||
			tt.want != nil && (!slices.Equal(got, []record.BehaviorChange{*tt.want}) || unsteady != 0) {
			t.Errorf("%s: %+v, %d unsteady", tt.name, got, unsteady)
		}
	}
}

// What varies in both is not run more often, nor what varies in none.
func TestUnsettled(t *testing.T) {
	t.Parallel()
	same, varies := prog.Outcome{Verdict: Redirected, Length: 60, Hash: 1}, prog.Outcome{Verdict: Redirected, Length: 60}
	at := [2][]string{{"device 1", "device 1", "device 1", Unknown, "device 1"}, {"device 1", "device 1", Unknown, Unknown, "device 1"}}
	raw := Raw{Clean: []prog.Clean{
		{Outcomes: []prog.Outcome{same, varies, same, same, same}}, {Outcomes: []prog.Outcome{same, varies, same, same, varies}},
	}}
	if got := raw.Unsettled([2]*prog.Clean{}, at); !slices.Equal(got, []int{2, 4}) {
		t.Errorf("%v", got)
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
		got, unsteady := raw.Behaviors([2]*prog.Clean{}, tt.to, nil)
		if !slices.Equal(got, append([]record.BehaviorChange{}, tt.want...)) || unsteady != tt.unsteady {
			t.Errorf("%s: %+v, %d unsteady", tt.name, got, unsteady)
		}
	}
}
