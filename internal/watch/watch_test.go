package watch

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/program/list"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// short is long enough for samples of everything under a flood.
var short = Plan{Duration: 2 * time.Second, Rate: 4000}

func idOf(t *testing.T, p *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

// value is the value of a row, which must have one.
func value(t *testing.T, doc *record.ProgWatch, row string) float64 {
	t.Helper()
	r := doc.Row(row)
	if r == nil || r.Value == nil {
		t.Fatalf("row %s: %+v", row, r)
	}
	return r.Value.Median
}

// sink makes a pair of veths that a redirect goes to. Without a program at its end the veth
// refuses redirected frames.
func sink(t *testing.T, b bench, open bool) netlab.Device {
	t.Helper()
	to, end := veth.Pair(t, b.lab, "to", "end")
	if open {
		if err := end.Attach(loaded(t, "leaf_drop", 1), link.XDPDriverMode); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// redirecting loads the program redirect with a port.
func redirecting(t *testing.T, b bench, to int) *ebpf.Program {
	t.Helper()
	coll, p, err := sample.Load("redirect")
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	// The kernel looks for the device in the thread's namespace.
	if err := b.lab.Do(func() error { return coll.Maps["ports"].Put(uint32(0), uint32(to)) }); err != nil {
		t.Fatal(err)
	}
	return p
}

// Redirects are counted, and sampled as far as the device's polls go: what the veth behind polls,
// by the same driver's function, is another device's. What watches holds no program.
func TestRedirect(t *testing.T) {
	b := newBench(t)
	p := redirecting(t, b, sink(t, b, true).Index)
	if err := b.in.Attach(p, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	plan := short
	plan.Tracepoints = true
	doc := b.watch(t, "dev:in", plan)
	if packets, redirects := value(t, doc, "packets"), value(t, doc, "verdict/redirect"); packets != redirects || packets <= 0 {
		t.Errorf("%v of %v packets were redirected", redirects, packets)
	}
	if n := value(t, doc, "frames-per-xmit"); n < 1 || n > 16 {
		t.Errorf("%v frames an ndo_xdp_xmit", n)
	}
	for _, stage := range []string{"receive", "program", "redirect", "bulk-queue", "transmit"} {
		if value(t, doc, "stage/"+stage) <= 0 {
			t.Errorf("no time in %s", stage)
		}
	}
	for _, s := range doc.Stacks {
		if slices.ContainsFunc(s.Frames, func(f string) bool { return strings.Contains(f, "leaf_drop") }) {
			t.Errorf("the sink's program is in the path: %v", s.Frames)
		}
	}
	if doc.Row("lost/drops") == nil || value(t, doc, "lost/drops") != 0 {
		t.Errorf("lost: %+v", doc.Row("lost/drops"))
	}
}

// A redirect that fails is a loss that the device counts, and has a name by tracepoints.
func TestFailingRedirect(t *testing.T) {
	b := newBench(t)
	if err := b.in.Attach(redirecting(t, b, sink(t, b, false).Index), link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	plan := short
	plan.Tracepoints = true
	doc := b.watch(t, "dev:in", plan)
	failed := 0.0
	for _, row := range doc.Rows {
		if strings.HasPrefix(row.Name, "error/") && row.Value != nil {
			failed += row.Value.Median
		}
	}
	if failed <= 0 {
		t.Errorf("no redirect failed: %+v", doc.Rows)
	}
}

// Targets of tail calls are the program's, also when one of them is what is watched. The program
// was attached by netlink.
func TestTailCalls(t *testing.T) {
	b := newBench(t)
	coll, p, err := sample.Load("tailcall")
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer coll.Close()
	if err := b.out.Attach(loaded(t, "leaf_drop", 1), link.XDPDriverMode); err != nil { // else XDP_TX fails
		t.Fatal(err)
	}
	err = b.lab.Do(func() error {
		l, err := netlink.LinkByIndex(b.in.Index)
		if err != nil {
			return err
		}
		return netlink.LinkSetXdpFdWithFlags(l, p.FD(), int(link.XDPDriverMode))
	})
	if err != nil {
		t.Fatal(err)
	}
	doc := b.watch(t, "dev:in", short)
	if doc.Program.Programs != 4 || doc.Program.Name != "tailcall" { // UDP goes to leaf_tx
		t.Errorf("%+v", doc.Program)
	}
	if packets, sent := value(t, doc, "packets"), value(t, doc, "verdict/tx"); math.Abs(packets-sent) > packets/1000 {
		// The driver counts both, one after the other, while they are read.
		t.Errorf("%v of %v packets were sent back", sent, packets)
	}
	if value(t, doc, "program") <= 0 {
		t.Error("no time in the program")
	}
}

// The second in which a program is detached is in no mean, and has no ns a packet.
func TestDetached(t *testing.T) {
	b := newBench(t)
	p := loaded(t, "pass", 1)
	var attached link.Link
	var seconds []Second
	var doc *record.ProgWatch
	stop := flood.Start(t, b.lab, b.out.Index)
	defer stop()
	err := b.lab.Do(func() (err error) {
		if attached, err = link.AttachXDP(link.XDPOptions{Program: p, Interface: b.in.Index, Flags: link.XDPDriverMode}); err != nil {
			return err
		}
		defer attached.Close()
		plan := Plan{Duration: 10 * time.Second, Rate: 4000}
		if plan.Target, err = program.Parse("dev:in"); err != nil {
			return err
		}
		w, err := Open(t.Context(), plan)
		if err != nil {
			return err
		}
		defer w.Close()
		result, err := w.Run(t.Context(), func(s Second) {
			if seconds = append(seconds, s); len(seconds) == 2 {
				_ = attached.Close()
			}
		})
		if err == nil {
			doc = result.Record("dev:in")
		}
		return err
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	last := seconds[len(seconds)-1]
	if len(seconds) != 3 || doc.Ended == "" || seconds[0].Program == nil || last.Program != nil || last.Path != nil {
		t.Errorf("%d seconds, the last %+v; ended: %q", len(seconds), last, doc.Ended)
	}
	if n := len(doc.Row("packets").Samples); n != 2 || doc.Sampling.Packets != seconds[0].Packets+seconds[1].Packets {
		t.Errorf("means of %d seconds, %d packets", n, doc.Sampling.Packets)
	}
	sum := 0.0
	for _, s := range doc.Stacks {
		sum += s.Ns
	}
	if path := value(t, doc, "path"); sum < path*0.999 || sum > path*1.05 { // observers are no part of it
		t.Errorf("call chains of %v ns a packet in a path of %v", sum, path)
	}
}

// What is not at work is said in one line, and so is a device on which nothing comes.
func TestNothing(t *testing.T) {
	b := newBench(t)
	if _, err := b.quiet(t, "dev:in", short); err == nil || !strings.Contains(err.Error(), "has no XDP program attached") {
		t.Error(err)
	}
	p := loaded(t, "pass", 1)
	if _, err := b.quiet(t, fmt.Sprintf("id:%d", idOf(t, p)), short); err == nil || !strings.Contains(err.Error(), "is not at work") {
		t.Error(err)
	}
	if err := b.in.Attach(p, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	doc, err := b.quiet(t, "dev:in", short)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	if row := doc.Row("program"); row.Value != nil && value(t, doc, "packets") == 0 {
		t.Errorf("ns a packet of no packet: %+v", row)
	}
}

// A program is at work where it is on a device, a part of what is, or where that goes by a tail
// call.
func TestMayRun(t *testing.T) {
	t.Parallel()
	found := &list.Found{ProgramListParts: record.ProgramListParts{Maps: []record.ProgramMap{
		{ID: 1, Type: "prog_array", Programs: []record.HeldProgram{{Key: 0, Program: 30}}},
		{ID: 2, Type: "devmap", Programs: []record.HeldProgram{{Key: 0, Program: 40}}},
	}}}
	row := &record.ProgramRow{ID: 10, Parts: []uint32{20, 21}, MapIDs: []uint32{1, 2, 3}}
	for id, want := range map[uint32]bool{10: true, 21: true, 30: true, 40: false, 50: false} {
		if got := mayRun(found, row, id); got != want {
			t.Errorf("program %d: %v, want %v", id, got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, plan := range []Plan{
		{Duration: time.Millisecond}, {Duration: -time.Second}, {Rate: -1}, {Rate: 1_000_000},
	} {
		if plan.Validate() == nil {
			t.Errorf("%+v: no error", plan)
		}
	}
	if err := errors.Join(Plan{}.Validate(), short.Validate()); err != nil {
		t.Error(err)
	}
}
