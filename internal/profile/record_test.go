package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// made is a run of the chain. In each of its rounds a thousand packets took packetNs each
// in the windows that count, which are half of the time; a fifth of that is the tick's.
func made(packetNs ...float64) *Raw {
	raw := &Raw{Name: "made", Event: perf.Clock, Rate: 1000, CPUs: []int{1},
		Outcome: rounds.Outcome{Begun: len(packetNs), Planned: len(packetNs)}, PathError: errors.New("not read")}
	stack := func(stage functions.Stage, outside Outside, disturbed bool, share float64) {
		s := &Stack{Frames: []Frame{{Function: "f"}}, Stage: stage, Outside: outside, Disturbed: disturbed, Samples: 10}
		for _, ns := range packetNs {
			s.Ns = append(s.Ns, 1000*ns*share)
		}
		raw.Stacks = append(raw.Stacks, s)
	}
	for i, ns := range packetNs {
		raw.Rounds = append(raw.Rounds, Round{
			Number: i, Packets: 1000, Ns: 1000 * ns, CPUNs: 2000 * ns, Windows: 20, LeftOut: 10, Undisturbed: 0.7 * ns,
		})
	}
	stack(functions.StageReceive, Inside, false, 0.5)
	stack(functions.StageGenerator, Inside, false, 0.25)
	stack("", Timers, false, 0.2)
	stack("", OtherTasks, true, 0.9)
	stack(functions.StageReceive, Inside, true, 0.1)
	return raw
}

// What is no packet's leaves the stages and the packet, and is said as a share of the CPU.
func TestOutside(t *testing.T) {
	p := made(100, 100, 100, 100, 100, 100).Record(nil)
	near := func(what string, got, want float64) {
		t.Helper()
		if !(math.Abs(got-want) < 1e-9) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	near("a packet", ns(p.Packet), 80)
	near("receive", row(p, functions.StageReceive), 50)
	near("generator", row(p, functions.StageGenerator), 25)
	near("unattributed", row(p, functions.StageUnattributed), 5)
	near("other", row(p, functions.StageOther), 0)
	near("as bench counts it", ns(p.Undisturbed), 70)
	want := []struct {
		name  Outside
		share float64
	}{{OtherTasks, 45}, {Timers, 10}}
	if len(p.Outside) != len(want) {
		t.Fatalf("%+v", p.Outside)
	}
	for i, o := range p.Outside {
		if o.Name != string(want[i].name) {
			t.Errorf("%s where %s was wanted", o.Name, want[i].name)
		}
		near(o.Name, ns(o.Share), want[i].share)
	}
	if p.CannotTell != "" || p.Sampling.Windows != 120 || p.Sampling.LeftOut != 60 || p.Sampling.Samples != 20 {
		t.Errorf("cannot tell %q, %+v", p.CannotTell, p.Sampling)
	}
	for _, part := range []int{len(p.Functions), len(p.Stacks)} {
		if part == 0 {
			t.Error("no functions or no stacks")
		}
	}
	sum := 0.0
	for _, s := range p.Stacks {
		sum += s.Ns
	}
	near("stacks", sum, 75)
}

// Sampling's own time leaves both too.
func TestOutsideSampling(t *testing.T) {
	raw := made(100, 100, 100, 100, 100, 100)
	for i := range raw.Rounds {
		raw.Rounds[i].SampledNs, raw.Rounds[i].PlainNs = 100, 90
	}
	p := raw.Record(nil)
	if packet := ns(p.Packet); math.Abs(packet-72) > 1e-9 {
		t.Errorf("a packet takes %v ns, want 72", packet)
	}
	for _, o := range p.Outside {
		if o.Name == string(Sampling) && math.Abs(ns(o.Share)-10) < 1e-9 {
			return
		}
	}
	t.Errorf("%+v", p.Outside)
}

// A run that cannot tell says so.
func TestCannotTell(t *testing.T) {
	unsteady := made(60, 140, 70, 150, 60, 130)
	crowded := made(100, 100, 100)
	crowded.Crowded = 4
	empty := made()
	empty.Crowded = 6
	disagree := made(100, 100, 100)
	disagree.Slots = rounds.Slots{All: 10, Bad: 5}
	for name, test := range map[string]struct {
		raw  *Raw
		want string
	}{
		"unsteady": {unsteady, "uncertain by ±"},
		"crowded":  {crowded, "in every window of 4 of 7 rounds"},
		"empty":    {empty, "in every window: stop them"},
		"disagree": {disagree, "packet counts disagreed"},
		"devices":  {&Raw{DevicePair: true}, "no packet was redirected"},
		"stopped":  {&Raw{DevicePair: true, Outcome: rounds.Outcome{Incomplete: true}}, ""},
	} {
		got := test.raw.Record(nil).CannotTell
		if got != test.want && (test.want == "" || !strings.Contains(got, test.want)) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// What the record says can be read again, whatever the samples were: few of them stand for much more than the time in
// which they were taken, or for nothing.
func TestRecordIsReadable(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	refused, told := 0, 0
	for range 2000 {
		packets := make([]float64, 1+random.IntN(9))
		for i := range packets {
			packets[i] = 100 * math.Exp(random.NormFloat64())
		}
		raw := made(packets...)
		raw.TSCRate, raw.DevicePair = 2.6e9, random.IntN(4) == 0
		if random.IntN(2) == 0 {
			raw.Counted = []string{"cycles"}
		}
		for i := range raw.Rounds {
			r := &raw.Rounds[i]
			r.Events = map[string]float64{"cycles": 100 * math.Exp(3*random.NormFloat64())}
			r.SampledNs, r.PlainNs = 1+random.Float64(), 1+random.Float64()
		}
		for _, s := range raw.Stacks {
			for i := range s.Ns {
				s.Ns[i] *= 3 * random.Float64() * float64(random.IntN(2))
			}
		}
		p := raw.Record(nil)
		if p.Packet == nil {
			refused++
			continue
		}
		told++
		p.Head = record.New[record.ProfileRow]("profile", host.Fingerprint{}).Head
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := record.Parse(b); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
	}
	if refused == 0 || told == 0 {
		t.Errorf("%d runs without a number, %d with one: both are to be tried", refused, told)
	}
}

// Of real devices the time is what samples of the packets' work stand for.
func TestDevicePairOutside(t *testing.T) {
	raw := made(100, 100, 100, 100, 100, 100)
	raw.DevicePair = true
	p := raw.Record(nil)
	if packet := ns(p.Packet); math.Abs(packet-75) > 1e-9 || p.Rows[len(p.Rows)-1].Name == record.Unattributed {
		t.Errorf("a packet takes %v ns, want 75; rows %+v", packet, p.Rows)
	}
}

// Call chains beyond those that are held are left out, counted and said; more samples of those held count.
func TestNoRoom(t *testing.T) {
	raw := &Raw{}
	c := collect(raw)
	chain := make([]uint64, 2)
	for i := range uint64(maxChains + 10) {
		chain[1] = i
		if c.add(&perf.Sample{Chain: chain, Period: 1}, circumstances{}); raw.NoRoom != max(0, int(i)+1-maxChains) {
			t.Fatalf("%d samples left out at chain %d of %d", raw.NoRoom, i, maxChains)
		}
	}
	chain[1] = 0
	if c.add(&perf.Sample{Chain: chain, Period: 1}, circumstances{}); raw.NoRoom != 10 {
		t.Error("a chain that is held was left out")
	}
	var said []string
	raw.warnSampling(func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }, nil)
	want := fmt.Sprintf("10 samples were left out: more than %d distinct call chains, or ", maxChains)
	if len(said) != 1 || !strings.HasPrefix(said[0], want) {
		t.Errorf("%q", said)
	}
	var p record.Profile
	if raw.sampling(&p); p.Sampling.Lost != 10 {
		t.Errorf("%d lost, want 10", p.Sampling.Lost)
	}
}

// Deep call chains take more room than shallow ones. A round that is dropped leaves its room.
func TestNoRoomForDeep(t *testing.T) {
	table := madeTable(t)
	s := newStacks()
	chain := make([]uint64, 125)
	const room = maxFrames / 125
	for range 3 {
		for n := range uint64(room) {
			chain[0] = madeText + n
			if !s.add(chain, 0, circumstances{}, 1) {
				t.Fatalf("no room for chain %d", n)
			}
		}
		chain[0] = madeText + room
		if s.add(chain, 0, circumstances{}, 1) {
			t.Error("there is room for another")
		}
		s.drop()
	}
	for n := range uint64(room) {
		chain[0] = madeText + n
		s.add(chain, 0, circumstances{}, 1)
	}
	if noRoom := s.end(table, nil, unscaled); noRoom != 0 {
		t.Errorf("%d samples left out in the first round", noRoom)
	}
	chain[0] = madeText + room
	s.add(chain, 0, circumstances{}, 1)
	if noRoom := s.end(table, nil, unscaled); noRoom != 1 {
		t.Errorf("%d samples left out in the second round, want 1", noRoom)
	}
}

// Call chains of earlier rounds are held in later ones, however many there are. New ones beyond are left out and counted, and have
// no share of the time.
func TestNoRoomInLaterRounds(t *testing.T) {
	table := madeTable(t)
	s := newStacks()
	add := func(n uint64, at circumstances) {
		if !s.add([]uint64{madeText + n%4096, madeText + 4096 + n/4096}, 0, at, 2) {
			t.Fatalf("no room for chain %d of a round", n)
		}
	}
	const ns = 1e6
	end := func(wantKept float64, wantNoRoom int) {
		t.Helper()
		noRoom := s.end(table, nil, func(kept float64) float64 {
			if kept != wantKept {
				t.Errorf("round %d: a weight of %v, want %v", s.round, kept, wantKept)
			}
			return ns / kept
		})
		if noRoom != wantNoRoom {
			t.Errorf("round %d: %d samples left out, want %d", s.round-1, noRoom, wantNoRoom)
		}
	}
	for _, chains := range []uint64{maxChains * 2 / 3, maxChains * 2 / 3, maxChains * 2 / 3, maxChains - 1} {
		for n := range chains {
			add(n, circumstances{})
		}
		add(0, circumstances{disturbed: true}) // which has its place and no share
		if got := s.weight(); got != 2*float64(chains) {
			t.Errorf("a weight of %v in a round of %d chains", got, chains)
		}
		end(2*float64(chains), 0)
	}
	for range 5 {
		add(7, circumstances{})
	}
	for n := range uint64(10) {
		add(maxChains+n, circumstances{})
		add(maxChains+n, circumstances{})
	}
	end(10, 20)
	end(0, 0) // a round without a sample
	all := s.all()
	if len(all) != maxChains {
		t.Errorf("%d stacks, want %d", len(all), maxChains)
	}
	sums, samples := make([]float64, s.round), 0
	for _, stack := range all {
		samples += stack.Samples
		for i, n := range stack.Ns {
			if !stack.Disturbed {
				sums[i] += n
			}
		}
	}
	if want := 3*(maxChains*2/3+1) + maxChains + 5; samples != want {
		t.Errorf("%d samples, want %d", samples, want)
	}
	for i, sum := range sums {
		want := float64(ns)
		if i == 5 {
			want = 0
		}
		if math.Abs(sum-want) > 1 {
			t.Errorf("round %d: %v ns, want %v", i, sum, want)
		}
	}
}

// Only a rate that was asked for can be lowered.
func TestWarnSampling(t *testing.T) {
	slow := &stat.Quantity{Median: 53, Low: 50, High: 60}
	for _, given := range []bool{false, true} {
		var said []string
		(&Raw{RateGiven: given, Counts: perf.Counts{Throttled: 2}}).warnSampling(func(format string, _ ...any) {
			said = append(said, format)
		}, slow)
		if (len(said) == 2) != given || len(said) == 0 {
			t.Errorf("rate given %v: %q", given, said)
		}
	}
}

// An event that counts nothing in any round is no number: the PMU takes what it does not have. A rate that the kernel does not allow
// is said.
func TestSilentEvents(t *testing.T) {
	t.Parallel()
	raw := made(100, 100, 100, 100, 100, 100)
	raw.Counted = []string{"cycles", "indirect-speculated", "llc-misses"}
	for i := range raw.Rounds {
		raw.Rounds[i].Events = map[string]float64{"cycles": 300, "indirect-speculated": 0, "llc-misses": 0}
	}
	raw.Rounds[2].Events["llc-misses"] = 0.5
	raw.allow(4000, 4000)
	if p := raw.Record(nil); strings.Contains(fmt.Sprint(p.Warnings), "max_sample_rate") {
		t.Errorf("the kernel allows what was wanted: %v", p.Warnings)
	}
	raw.allow(300, 4000)
	raw.allow(200, 300)
	p := raw.Record(nil)
	var names []string
	for _, c := range p.Counters {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{"cycles", "llc-misses"}) {
		t.Errorf("counters %q", names)
	}
	said := fmt.Sprint(p.Warnings)
	for _, want := range []string{
		"no indirect-speculated: the PMU takes the event and counts nothing",
		"200 samples a second in place of 4000: the kernel allows no more (kernel.perf_event_max_sample_rate)",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q: %s", want, said)
		}
	}
	if p.Sampling.Rate != 200 {
		t.Errorf("%d samples a second", p.Sampling.Rate)
	}
}
