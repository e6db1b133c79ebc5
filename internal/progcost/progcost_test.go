package progcost

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/prog"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func made(t *testing.T, names string) *prog.Packets {
	t.Helper()
	p, err := prog.MakePackets(names)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// names of the classes, each with how many packets it has.
func TestClasses(t *testing.T) {
	t.Parallel()
	packets := made(t, "udp4,udp4:100,tcp4:600,tcp4:1518,tcp4:3000,udp4,arp,vlan-udp4:64")
	clean := prog.Clean{Outcomes: make([]prog.Outcome, len(packets.Frames))}
	for i := range clean.Outcomes {
		clean.Outcomes[i].Verdict = 2
	}
	clean.Outcomes[3].Verdict = 3
	for by, want := range map[By]map[string]int{
		ByVerdict: {"all": 8, "verdict/pass": 7, "verdict/tx": 1},
		ByLength:  {"all": 8, "length/0-64": 4, "length/65-127": 1, "length/512-1023": 1, "length/1024-1518": 1, "length/1519-": 1},
		ByFlow: {"all": 8, "flow/udp 192.0.2.1:40000 > 198.51.100.2:53": 4, "flow/tcp 192.0.2.1:40000 > 198.51.100.2:443": 3,
			"flow/type 0x806": 1},
		ByPacket: {"all": 8, "packet/1": 2, "packet/2": 1, "packet/3": 1, "packet/4": 1, "packet/5": 1, "packet/7": 1, "packet/8": 1},
	} {
		got := map[string]int{}
		for _, c := range classes(by, packets, clean) {
			got[c.name] = len(c.packets)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("by %s: %s", by, diff)
		}
	}
	if c := classes(ByVerdict, made(t, "udp4,arp"), clean); len(c) != 1 || c[0].name != All {
		t.Errorf("of one verdict: %+v", c)
	}
	var many []string
	for size := range 40 {
		many = append(many, "udp4:"+[]string{"1", "2", "3", "4"}[size/10]+string(rune('0'+size%10))+"0")
	}
	c := classes(ByPacket, made(t, strings.Join(many, ",")), prog.Clean{})
	if len(c) != 1+maxClasses || c[maxClasses].name != "packet/others" || len(c[maxClasses].packets) != 40-maxClasses+1 {
		t.Errorf("of 40 packets: %d classes, last %+v", len(c), c[len(c)-1])
	}
}

func TestCacheSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"48K": 48 << 10, "2M": 2 << 20, "": 0, "-1K": 0, "99999999999K": 0, "32768K": 32 << 20} {
		if got := cacheSize(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if n := coldBytes(0); n < 1<<20 || n > 256<<20 {
		t.Errorf("a cold run walks through %d bytes", n)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	if err := (Plan{By: "color"}).Validate(); err == nil {
		t.Error("rows by color: no error")
	}
	if err := (Plan{By: ByFlow, Schedule: rounds.Schedule{Rounds: -1}}).Validate(); err == nil {
		t.Error("-1 rounds: no error")
	}
}

// sampled is a sample program, which can be loaded anew.
func sampled(t *testing.T, name string) prog.Program {
	t.Helper()
	testutil.Root(t)
	coll, p, err := sample.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return prog.Program{Name: name, Loaded: p, Reload: func() (*ebpf.Program, error) {
		other, fresh, err := sample.Load(name)
		if err != nil {
			return nil, err
		}
		defer other.Close()
		return fresh.Clone()
	}}
}

func plan(t *testing.T, packets, program string) Plan {
	return Plan{
		Programs: []prog.Program{sampled(t, program)}, Packets: made(t, packets), By: ByVerdict,
		Schedule: rounds.Schedule{Rounds: 7, Duration: 2 * time.Second},
	}
}

// A run has a number for each class, all of them weighted, and its references.
func TestRun(t *testing.T) {
	raw, err := Run(t.Context(), plan(t, "udp4,udp6,arp,tcp4", "encap"), nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := raw.Record(0)
	if len(rows) != 3 || len(raw.References) == 0 {
		t.Fatalf("%d rows, %d references", len(rows), len(raw.References))
	}
	ns := map[string]float64{}
	for _, row := range rows {
		if row.Refused != "" || row.Ns == nil || len(row.Samples) < 6 {
			t.Fatalf("%+v", row)
		}
		ns[row.Name] = row.Ns.Median
	}
	mixed := (ns["verdict/tx"] + ns["verdict/pass"]) / 2
	if ns["verdict/tx"] < 5 || ns["verdict/pass"] > ns["verdict/tx"]/2 || ns["all"] < mixed/2 || ns["all"] > 2*mixed {
		t.Errorf("%v: all is not near %.1f", ns, mixed)
	}
	if diff := cmp.Diff(map[string]int{"tx": 2, "pass": 2}, rows[0].Verdicts); diff != "" {
		t.Error(diff)
	}
}

// What differs from a single run refuses the row, and says how often and what was first.
func TestRefused(t *testing.T) {
	t.Parallel()
	raw := &Raw{
		packets: &prog.Packets{Frames: make([][]byte, 2)}, classes: []class{{name: All, packets: []int{0, 1}}},
		Clean:   []prog.Clean{{Outcomes: make([]prog.Outcome, 2)}},
		checked: [][]prog.Mismatch{{{Runs: 4}}}, found: [][]prog.Mismatch{{{Runs: 1000, Verdicts: 1}}},
		samples: [][]prog.Sample{{{Cost: []float64{1}, Null: 80}}}, numbers: []int{0},
	}
	rows, warns := raw.Record(0)
	if rows[0].Refused != "" || len(warns) == 0 {
		t.Errorf("one run in a thousand: %q, %v", rows[0].Refused, warns)
	}
	raw.found[0][0].Verdicts, raw.found[0][0].First = 20, "packet 1: XDP_DROP, and XDP_TX when run once"
	rows, _ = raw.Record(0)
	want := "timed runs differ from a single run: the verdict of 2 %; first packet 1: XDP_DROP, and XDP_TX when run once"
	if rows[0].Refused != want || rows[0].Ns != nil {
		t.Errorf("%q", rows[0].Refused)
	}
	raw.checked[0][0].Bytes = 4
	if rows, _ = raw.Record(0); !strings.Contains(rows[0].Refused, "what comes out is not what a single run gives: the bytes of 100 %") {
		t.Errorf("%q", rows[0].Refused)
	}
}

// The record says how many packets of a row were timed: with a large working set more than else.
func TestTimed(t *testing.T) {
	for working, want := range map[int]int{0: 1024, 64: 1024, 1200: 1200, 4000: 1500} {
		p := plan(t, "udp4", "pass")
		p.Packets = &prog.Packets{Frames: slices.Repeat(p.Packets.Frames, 1500)}
		p.Replay.WorkingSet = working
		p.Schedule = rounds.Schedule{Rounds: 1, Duration: time.Second}
		raw, err := Run(t.Context(), p, nil)
		testutil.SkipMissing(t, err)
		if err != nil {
			t.Fatal(err)
		}
		if rows, _ := raw.Record(0); rows[0].Timed != want || rows[0].Packets != 1500 {
			t.Errorf("working set %d: %d of %d timed, want %d of 1500", working, rows[0].Timed, rows[0].Packets, want)
		}
	}
}

// A run that is stopped has what it found until then, and ends soon.
func TestStopped(t *testing.T) {
	p := plan(t, "udp4", "nat")
	p.Schedule = rounds.Schedule{Rounds: 100, Duration: time.Minute}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	raw, err := Run(ctx, p, func(done rounds.Progress) {
		if done.Round > 5 {
			cancel()
		}
	})
	testutil.SkipMissing(t, err)
	if err != nil || !raw.Incomplete {
		t.Fatalf("%+v, %v", raw, err)
	}
	rows, _ := raw.Record(0)
	if n := len(rows[0].Samples); rows[0].Ns == nil || n != len(rows[0].Rounds) || n > 10 {
		t.Errorf("%+v", rows[0])
	}
	cancel()
	if _, err := Run(ctx, p, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("before it began: %v", err)
	}
}

// A record of a run is one that can be read again.
func TestRecord(t *testing.T) {
	raw, err := Run(t.Context(), plan(t, "udp4,tcp4", "tailcall"), nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	doc := &record.ProgCost{}
	doc.Head = record.Head{Schema: record.Schema, Kind: "prog-cost", Run: "x"}
	doc.Rows, doc.Warnings = raw.Record(0)
	path := t.TempDir() + "/cost.json"
	if err := record.Save(path, doc); err != nil {
		t.Fatal(err)
	}
	if s, err := record.Load(path); err != nil || s.ProgCost() == nil || len(s.ProgCost().Rows) != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A run of packets that take long ends all the same, and says why: the packets are run before the time is looked at.
func TestTooSlow(t *testing.T) {
	before := overrun
	overrun = 50*time.Millisecond - 3*time.Second
	defer func() { overrun = before }()
	p := plan(t, "udp4", "pass")
	p.Packets = &prog.Packets{Frames: slices.Repeat(p.Packets.Frames, 50_000)}
	p.Schedule = rounds.Schedule{Rounds: 1, Duration: time.Second}
	_, err := Run(t.Context(), p, nil)
	testutil.SkipMissing(t, err)
	if err == nil || !strings.Contains(err.Error(), "50000 of them are not through after 50ms") {
		t.Error(err)
	}
}

// How long loading a program takes is found out by loading it: that too is left when ctx ends.
func TestCancelledInFirstReload(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	p := prog.Program{Reload: func() (*ebpf.Program, error) {
		cancel()
		select {
		case <-release:
		case <-time.After(time.Minute):
		}
		return nil, errors.New("the run waits for it")
	}}
	_, err := dropSlow(ctx, []prog.Program{p}, rounds.Schedule{Rounds: 1, Duration: time.Second})
	close(release)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}
