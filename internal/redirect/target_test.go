package redirect

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/traffic"
)

// Objects that a user could name.
const (
	sampleObject = "../bpf/sample/sample_bpfel.o"
	chainObject  = "../bpf/chain/chain_bpfel.o"
)

// target opens a program of an object.
func target(t testing.TB, text string, o TargetOptions) *Target {
	t.Helper()
	testutil.Root(t)
	parsed, err := program.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := parsed.Open(t.Context(), program.Options{Run: true})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	made, err := NewTarget(opened, strings.TrimSuffix(text, ":"+opened.Name), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	})
	return made
}

// targetRow measures a target at one bulk.
func targetRow(t *testing.T, made *Target, bulk int) (record.BenchRow, RawRow) {
	t.Helper()
	raw, err := Run(t.Context(), Plan{
		Target: made, Bulks: []int{bulk}, Schedule: rounds.Schedule{Rounds: 2, Duration: 2 * time.Second},
	}, nil)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	rows, warnings := raw.Record()
	for _, w := range warnings {
		t.Log(w.Row, w.Text)
	}
	return rows[0], raw.Rows[0]
}

// Each frame meets the program as it was: one that makes it longer, one that counts it down and one that rewrites it stay
// on the way that they have for the first frame, for as many frames as are sent.
func TestTargets(t *testing.T) {
	for _, test := range []struct {
		name  string
		ports []Port
		way   func(netlab.XDPCounts) uint64
	}{
		{"encap", nil, func(c netlab.XDPCounts) uint64 { return c.Sent }},
		{"ttl", nil, func(c netlab.XDPCounts) uint64 { return c.Sent }},
		{"nat", nil, func(c netlab.XDPCounts) uint64 { return c.Sent }},
		{"pass", nil, netlab.XDPCounts.Passed},
		{"leaf_drop", nil, func(c netlab.XDPCounts) uint64 { return c.Dropped }},
		{"tailcall", nil, func(c netlab.XDPCounts) uint64 { return c.Sent }},
		{"redirect", []Port{{"ports", 0}}, func(c netlab.XDPCounts) uint64 { return c.Redirected }},
		{"redirect", nil, func(c netlab.XDPCounts) uint64 { return c.Dropped }},
	} {
		t.Run(test.name, func(t *testing.T) {
			made := target(t, sampleObject+":"+test.name, TargetOptions{Ports: test.ports})
			row, raw := targetRow(t, made, 16)
			if row.Refused != "" {
				t.Fatalf("%s: %s; %+v", row.Name, row.Refused, raw.Verdicts)
			}
			if n := test.way(raw.Verdicts); n != raw.Counts.Sent || n == 0 {
				t.Errorf("%d of %d frames went the way of the first: %+v", n, raw.Counts.Sent, raw.Verdicts)
			}
			if row.Counts.Sent != row.Counts.Received || row.Hop == nil {
				t.Errorf("counts %+v, hop %v", row.Counts, row.Hop)
			}
			t.Logf("%s: %.1f ns, hop %.1f, %d frames", row.Name, row.Ns.Median, row.Hop.Median, row.Counts.Sent)
		})
	}
}

// Packets of several verdicts and lengths come in turn, each as often as the others, as they are.
func TestTargetPackets(t *testing.T) {
	ip := func(size int, protocol byte) []byte {
		frame, err := traffic.UDPFrame(size)
		if err != nil {
			t.Fatal(err)
		}
		frame[23] = protocol
		return frame
	}
	const tcp, udp, icmp6 = 6, 17, 58
	made := target(t, sampleObject+":tailcall", TargetOptions{
		Packets: [][]byte{ip(60, udp), ip(1514, tcp), ip(MaxPacket/2, icmp6), ip(42, udp)},
		Source:  "four", Bulks: []int{16},
	})
	row, raw := targetRow(t, made, 16)
	if row.Refused != "" {
		t.Fatalf("%s; %+v", row.Refused, raw.Verdicts)
	}
	n := raw.Counts.Sent / 4
	want := netlab.XDPCounts{Seen: 4 * n, Sent: 2 * n, Dropped: n}
	if raw.Verdicts != want || want.Passed() != n {
		t.Errorf("%+v of %d frames", raw.Verdicts, raw.Counts.Sent)
	}
	labels := row.Labels
	if labels["packets"] != "four" || labels["prog"] != "tailcall" || len(labels["tag"]) != 16 || labels["object"] != "sample_bpfel.o" {
		t.Errorf("labels are %v", row.Labels)
	}
	if got := row.Verdicts.Named(); len(got) != 3 || got[0] != (record.NamedShare{Name: "tx", Share: 0.5}) {
		t.Errorf("verdicts are %v", got)
	}
}

// A redirect to where frames are lost has no number.
func TestTargetLoses(t *testing.T) {
	made := target(t, sampleObject+":redirect", TargetOptions{Ports: []Port{{"ports", 0}}})
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	c, err := build(t.Context(), lab, 0, ChainSpec{Prog, Operation{}, Native, DefaultSize, OneCore, made}, cores{}, counting)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deaf, _, err := lab.VethPair("deaf0", "deaf1")
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Do(func() error { return made.connect(deaf) }); err != nil {
		t.Fatal(err)
	}
	m, err := newMeasurement(c, 16)
	if err != nil {
		t.Fatal(err)
	}
	rows := []RawRow{{Row: Row{c.spec, 16}}}
	if err := rows[0].watch(t.Context(), m); err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	if err := m.Slot(t.Context()); err != nil {
		t.Fatal(err)
	}
	(&built{measurements: []*Measurement{m}}).count(rows)
	row := rows[0].record()
	if row.Ns != nil || !strings.Contains(row.Refused, "counts disagree") || !strings.Contains(row.Refused, "ndo_xdp_xmit") &&
		!strings.Contains(row.Refused, "xdp_do_redirect") {
		t.Errorf("refused: %q", row.Refused)
	}
}

// What the chain cannot offer is refused in one line.
func TestTargetRefused(t *testing.T) {
	testutil.Root(t)
	for _, test := range []struct {
		text string
		o    TargetOptions
		want string
	}{
		{sampleObject + ":redirect", TargetOptions{Ports: []Port{{"port", 0}}}, "has no map port; its devmaps are ports"},
		{sampleObject + ":redirect", TargetOptions{Ports: []Port{{"ports", 8}}}, "has the keys 0 to 7, not 8"},
		{sampleObject + ":nat", TargetOptions{Ports: []Port{{"flows", 0}}}, "no devmap"},
		{chainObject + ":redirect_cpu", TargetOptions{Ports: []Port{{"cpus", 0}}}, "the chain offers DEVMAP and DEVMAP_HASH"},
		{chainObject + ":redirect_xsk", TargetOptions{Ports: []Port{{"sockets", 0}}}, "the chain offers DEVMAP and DEVMAP_HASH"},
		{sampleObject + ":pass", TargetOptions{Packets: [][]byte{make([]byte, 13)}}, "14 to 2044"},
		{sampleObject + ":pass", TargetOptions{Size: 20}, "frame size 20"},
		{sampleObject + ":pass", TargetOptions{Packets: make([][]byte, 61*67), Bulks: []int{64}}, "do not fit"},
	} {
		parsed, err := program.Parse(test.text)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := parsed.Open(t.Context(), program.Options{Run: true})
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		if made, err := NewTarget(opened, test.text, test.o); err == nil || !strings.Contains(err.Error(), test.want) || made != nil {
			t.Errorf("%s: error %v, want %q", test.text, err, test.want)
		}
	}
	plan := Plan{Target: &Target{}, Mode: Generic}
	if err := plan.Validate(); err == nil {
		t.Error("a target in generic mode")
	}
}

func TestFitPackets(t *testing.T) {
	for _, test := range []struct {
		n     int
		bulks []int
		want  int
	}{
		{1, []int{1, 64}, 1}, {61, []int{64}, 61}, {1021, []int{1, 64}, 1008}, {1021, []int{1}, 1021},
		{16384, []int{16, 64}, 1024}, {100, []int{7, 64}, 100}, {101, []int{100, 64}, 100}, {0, []int{1}, 0},
		{256, []int{255}, 255},
	} {
		if got := FitPackets(test.n, test.bulks); got != test.want {
			t.Errorf("%d packets in bulks of %v: %d, want %d", test.n, test.bulks, got, test.want)
		}
	}
}

// A program that cuts each frame short and spoils a byte of it sees neither the next time.
func TestTargetMeetsFramesAsMade(t *testing.T) {
	testutil.Root(t)
	const size, ttl, timeToLive = 60, 22, 64
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "spoil", Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMem(asm.R2, asm.R6, 0, asm.Word), // data of struct xdp_md
			asm.LoadMem(asm.R3, asm.R6, 4, asm.Word), // data_end
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, size),
			asm.JGT.Reg(asm.R4, asm.R3, "drop"), // shorter
			asm.LoadMem(asm.R5, asm.R2, ttl, asm.Byte),
			asm.JNE.Imm(asm.R5, timeToLive, "drop"),
			asm.StoreImm(asm.R2, ttl, 1, asm.Byte),
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, size+1),
			asm.JLE.Reg(asm.R4, asm.R3, "drop"), // longer
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, -10),
			asm.FnXdpAdjustTail.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
			asm.Mov.Imm(asm.R0, 3), // XDP_TX
			asm.Return(),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("drop"), // XDP_DROP
			asm.Return(),
		},
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	made, err := NewTarget(&program.Opened{Program: p, Name: "spoil", Type: ebpf.XDP}, "spoil.o", TargetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	row, raw := targetRow(t, made, 64)
	if row.Refused != "" || raw.Verdicts.Sent != raw.Counts.Sent || raw.Counts.Sent < 10_000 {
		t.Errorf("refused %q, %+v of %d frames", row.Refused, raw.Verdicts, raw.Counts.Sent)
	}
}

// A program that redirects by a number finds the next device by the one that the documentation names.
func TestTargetByIndex(t *testing.T) {
	testutil.Root(t)
	for _, test := range []struct {
		index int32
		good  bool
	}{{NextIndex, true}, {NextIndex + 1, false}} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "by_number", Type: ebpf.XDP, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{
				asm.Mov.Imm(asm.R1, test.index), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
			},
		})
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		made, err := NewTarget(&program.Opened{Program: p, Name: "by_number", Type: ebpf.XDP}, "x.o", TargetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		row, raw := targetRow(t, made, 16)
		if (row.Refused == "") != test.good || (raw.Verdicts.Redirected == raw.Counts.Sent) != test.good {
			t.Errorf("index %d: refused %q, %+v of %d frames", test.index, row.Refused, raw.Verdicts, raw.Counts.Sent)
		}
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Entries of a live program's devmap are copied with its maps, and lead to devices of production: no frame may go there.
func TestTargetForgetsDevices(t *testing.T) {
	testutil.Root(t)
	coll, p, err := sample.Load("redirect")
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer coll.Close()
	// The loopback device takes no redirected frames, so that the test is harmless if it fails.
	if err := coll.Maps["ports"].Put(uint32(0), uint32(1)); err != nil {
		t.Fatal(err)
	}
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	parsed, err := program.Parse(sampleObject + ":redirect")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := parsed.Open(t.Context(), program.Options{Run: true, MapsFrom: fmt.Sprintf("id:%d", id)})
	if err != nil {
		t.Fatal(err)
	}
	var before, after, live uint32
	if err := opened.Maps["ports"].Lookup(uint32(0), &before); err != nil || before != 1 {
		t.Fatalf("the copy has device %d, %v: the test shows nothing", before, err)
	}
	made, err := NewTarget(opened, sampleObject, TargetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	row, raw := targetRow(t, made, 16)
	if row.Refused != "" || raw.Verdicts.Dropped != raw.Counts.Sent {
		t.Errorf("refused %q, %+v of %d frames", row.Refused, raw.Verdicts, raw.Counts.Sent)
	}
	if err := opened.Maps["ports"].Lookup(uint32(0), &after); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the entry is there: %d, %v", after, err)
	}
	if err := coll.Maps["ports"].Lookup(uint32(0), &live); err != nil || live != 1 {
		t.Errorf("the live entry is %d, %v", live, err)
	}
}

// A program that is not in the BPF dispatcher is said to be outside: no device has it yet. One that a device has is in it,
// where there is room.
func TestTargetOutside(t *testing.T) {
	testutil.Root(t)
	k, err := kernel.OpenLive()
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	made := target(t, sampleObject+":ttl", TargetOptions{})
	p, err := made.load()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if text, err := made.outside(p); err != nil || !strings.HasPrefix(text, "ttl is outside the BPF dispatcher, which holds ") {
		t.Errorf("before: %q, %v", text, err)
	}
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	d, _, err := lab.VethPair("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Attach(p, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	if text, err := made.outside(p); err != nil || text != "" && !strings.Contains(text, "holds 48 of 48") {
		t.Errorf("attached: %q, %v", text, err)
	}
}

// The polls that end what a program sends back are those of the device that it came from.
func TestTargetCalls(t *testing.T) {
	made := target(t, sampleObject+":ttl", TargetOptions{})
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	c, err := BuildTarget(t.Context(), lab, 0, made, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m, err := c.Measure(t.Context(), 16)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	calls, err := m.CallsPerPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if calls.Polls < 0.01 || calls.Polls > 0.1 || calls.Xmits != 0 || calls.Redirects != 0 {
		t.Errorf("%+v", calls)
	}
}
