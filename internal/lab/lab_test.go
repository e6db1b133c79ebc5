package lab

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/trace"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func TestPlan(t *testing.T) {
	p := Plan{Kernels: []string{"a", "b"}, CPUs: []string{"", "EPYC"}, Appends: []string{"x=1", "x=0", "x=1"}}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	cells := p.Cells()
	if len(cells) != 8 || cells[0].Name() != "a/x=1" || cells[3].Name() != "a/cpu=EPYC/x=0" {
		t.Errorf("%d cells: %+v", len(cells), cells)
	}
	p = Plan{Kernels: []string{"a"}, Appends: []string{"x=1"}, NICs: []string{Veth, "igb"}, DMAs: []DMA{Direct, IOMMULazy}}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range p.Cells() {
		names = append(names, c.Name())
	}
	if want := []string{"a/x=1", "a/nic=igb/dma=direct/x=1", "a/nic=igb/dma=iommu-lazy/x=1"}; !slices.Equal(names, want) {
		t.Errorf("cells %v, want %v", names, want)
	}
	for _, tt := range []struct {
		want string
		plan Plan
	}{
		{`NIC "e1000" is not`, Plan{Kernels: []string{"a"}, NICs: []string{"e1000"}}},
		{`DMA "bounce" is not`, Plan{Kernels: []string{"a"}, NICs: []string{"igb"}, DMAs: []DMA{"bounce"}}},
		{"a veth does no DMA", Plan{Kernels: []string{"a"}, DMAs: []DMA{Swiotlb}}},
		{"no kernel is named", Plan{}},
		{"bulk 0", Plan{Kernels: []string{"a"}, Bulks: []int{0}}},
		{"too short for a boot", Plan{Kernels: []string{"a"}, Limit: time.Millisecond}},
		{"has a control character", Plan{Kernels: []string{"a"}, Appends: []string{"x\ny"}}},
		{`scenario "tx2" is not one of`, Plan{Kernels: []string{"a"}, Scenarios: []string{"tx2"}}},
		{"scenario skb-tx is counted on veth", Plan{Kernels: []string{"a"}, NICs: []string{"igb"}, Scenarios: []string{"skb-tx"}}},
		{`architecture "riscv64" is not amd64 or arm64`, Plan{Kernels: []string{"a"}, Arch: "riscv64"}},
		{"guests of arm64 have veth", Plan{Kernels: []string{"a"}, Arch: guest.ARM64, NICs: []string{"igb"}}},
		{"scenario forward-copy is counted on wires", Plan{Kernels: []string{"a"}, Scenarios: []string{"forward-copy"}}},
		{"scenario forward-copy is counted on wires alone: choose --nic igb or virtio, without veth",
			Plan{Kernels: []string{"a"}, NICs: []string{"igb", Veth}, Scenarios: []string{"forward-copy"}}},
		{"257 guests: at most 256", Plan{Kernels: []string{"a"}, Appends: numbered(maxCells + 1)}},
	} {
		if err := tt.plan.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
	// All are those that the NICs have.
	for _, test := range []struct {
		nics      []string
		has, lack string
	}{{nil, "skb-tx", "forward-copy"}, {[]string{Veth, "igb"}, "skb-tx", "forward-copy"}, {[]string{"igb"}, "forward-copy", "skb-tx"}} {
		all := Plan{Kernels: []string{"a"}, NICs: test.nics, Scenarios: []string{AllScenarios}, Bulks: []int{16}}
		rows := all.Rows()
		if err := all.Validate(); err != nil || !slices.Contains(rows, Row{test.has, 16}) || slices.Contains(rows, Row{test.lack, 16}) {
			t.Errorf("all on %q: %v, %v", test.nics, rows, err)
		}
	}
	// What is named again makes no guest more.
	again := Plan{Kernels: []string{"a"}, Appends: slices.Repeat([]string{"x"}, maxCells+1)}
	if err := again.Validate(); err != nil || len(again.Cells()) != 1 {
		t.Errorf("%d guests: %v", len(again.Cells()), err)
	}
	for name, arch := range map[string]string{"nonsense": guest.AMD64, "spectre_v2": guest.ARM64} {
		if _, _, err := AB(name, arch); err == nil {
			t.Errorf("experiment %s on %s, which does not exist: no error", name, arch)
		}
	}
}

// Rows have names of their own; those of a redirect by a map keep the names that they had.
func TestRows(t *testing.T) {
	plan := Plan{
		Kernels: []string{"k"}, Appends: []string{"x=1"}, Scenarios: []string{"redirect-map", "skb-drop", "skb-drop"}, Bulks: []int{1, 16},
	}
	cells := []CellResult{{Cell: plan.Cells()[0], Err: errors.New("no boot")}}
	var names []string
	for _, r := range Record(cells, plan.Rows(), nil).Rows {
		names = append(names, r.Name)
		if r.Guest() != "k/x=1" || r.Scenario() != r.Labels["scenario"] {
			t.Errorf("%s: guest %q, scenario %q", r.Name, r.Guest(), r.Scenario())
		}
	}
	want := []string{"k/x=1/bulk=1", "k/x=1/bulk=16", "k/x=1/skb-drop/bulk=1", "k/x=1/skb-drop/bulk=16"}
	if !slices.Equal(names, want) {
		t.Errorf("rows %v, want %v", names, want)
	}
	for _, name := range append(Scenarios(), WireScenarios()...) {
		r, err := ParseRow(name + ":16")
		if err != nil || r.String() != name+":16" {
			t.Errorf("%v, %v", r, err)
		}
	}
	for _, text := range []string{"", "tx", "tx:", "tx:0", "tx:x", "tx2:16", "generic-redirect-cpu:16"} {
		if r, err := ParseRow(text); err == nil {
			t.Errorf("%q is %v", text, r)
		}
	}
}

func numbered(n int) (out []string) {
	for i := range n {
		out = append(out, strings.Repeat("x", i))
	}
	return out
}

func TestConfirm(t *testing.T) {
	state := func(sys, thunk string) *Measurement {
		return &Measurement{Host: host.Fingerprint{IndirectThunk: thunk, Mitigations: map[string]string{"spectre-v2": sys}}}
	}
	on, off := state("Mitigation: Retpolines; STIBP: disabled", "retpoline"), state("Vulnerable", "plain jmp")
	for _, test := range []struct {
		line string
		m    *Measurement
		ok   bool
	}{
		{"spectre_v2=retpoline", on, true},
		{"spectre_v2=retpoline", off, false},
		{"spectre_v2=retpoline", state("Mitigation: Retpolines", "plain jmp"), false},
		{"spectre_v2=off", off, true},
		{"spectre_v2=off", on, false},
		{"quiet mitigations=off", on, false},
		{"quiet", on, true},
		{"", off, true},
	} {
		if err := confirm(Cell{Append: test.line}, test.m); (err == nil) != test.ok {
			t.Errorf("%q with %q: %v", test.line, test.m.Host.IndirectThunk, err)
		}
	}
}

func TestConfirmDMA(t *testing.T) {
	m := &Measurement{Mapped: IOMMULazy}
	if err := confirm(Cell{NIC: "igb", DMA: IOMMULazy}, m); err != nil {
		t.Error(err)
	}
	if err := confirm(Cell{NIC: "igb", DMA: IOMMUStrict}, m); err == nil {
		t.Error("strict was asked for, lazy found: no error")
	}
}

// TestProbe asks where a counter stands: never on a call with a prefix, which crashes
// the kernel.
func TestProbe(t *testing.T) {
	const at = 0xffffffff81000000
	var (
		load    = []byte{0x49, 0x89, 0xc2}                   // mov %rax,%r10
		other   = []byte{0x44, 0x89, 0xf9}                   // mov %r15d,%ecx
		prefix  = []byte{0x2e, 0xe8, 0, 0, 0, 0}             // cs call
		plain   = []byte{0xe8, 0, 0, 0, 0}                   // call
		jump    = []byte{0x75, 0x03}                         // jne over the next 3 bytes
		ret     = []byte{0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc} //
		symbols = func(n int) *ksym.Table {
			table, err := ksym.New([]ksym.Symbol{{Addr: at, Type: 't', Name: "f"}, {Addr: at + uint64(n), Type: 't', Name: "g"}})
			if err != nil {
				t.Fatal(err)
			}
			return table
		}
	)
	for name, test := range map[string]struct {
		code     [][]byte
		site     int // which part
		want     uint64
		register string
		refused  bool
		check    branch.Check
		checkLen uint64
	}{
		"a plain call":          {[][]byte{load, plain, ret}, 1, 3, "r10", false, "", 0},
		"the one before":        {[][]byte{load, other, prefix, ret}, 2, 3, "r10", false, "", 0},
		"loaded just before":    {[][]byte{load, prefix, ret}, 1, 0, "", false, "", 0},
		"a jump leads there":    {[][]byte{jump, other, prefix, ret}, 2, 0, "", true, "", 0},
		"right behind a branch": {[][]byte{other, plain, prefix, ret}, 2, 0, "", true, "", 0},
		"the first instruction": {[][]byte{prefix, ret}, 0, 0, "", true, "", 0},
		// The kernel refuses a kprobe on the first two instructions of a kCFI check.
		"behind kCFI":    {[][]byte{load, make([]byte, 14), prefix, ret}, 2, 3 + 10, "r10", false, branch.CheckKCFI, 14},
		"behind its udb": {[][]byte{load, make([]byte, 14), prefix, ret}, 2, 3 + 10, "r10", false, branch.CheckKCFIUDB, 14},
		"behind FineIBT": {[][]byte{load, make([]byte, 14), prefix, ret}, 2, 3, "r10", false, branch.CheckFineIBT, 14},
		"paranoid":       {[][]byte{load, make([]byte, 16), plain, ret}, 2, 3, "r10", false, branch.CheckParanoid, 16},
	} {
		t.Run(name, func(t *testing.T) {
			var offset uint64
			for _, part := range test.code[:test.site] {
				offset += uint64(len(part))
			}
			code := slices.Concat(test.code...)
			site := xdppath.Site{Function: "f", Offset: offset, Check: test.check, CheckLen: test.checkLen}
			site.Addr, site.Register = at+offset, "r10"
			got, err := probeAt(kernel.New(ktext.Bytes{Addr: at, Code: code}, symbols(len(code)), nil), site)
			if (err != nil) != test.refused {
				t.Fatalf("%v, %v", got, err)
			}
			if err == nil && (got.Offset != test.want || got.Register != test.register) {
				t.Errorf("%v with %q, want offset %#x with %q", got, got.Register, test.want, test.register)
			}
		})
	}
}

// Entries are counted behind what ftrace and IBT have there, where each entry comes by once.
func TestEntryOf(t *testing.T) {
	const at = 0xffffffff81000000
	for _, test := range []struct {
		name, code string
		want       uint64
	}{
		{"ftrace's nop", "\x0f\x1f\x44\x00\x00\x55\xc3", 5}, // push %rbp; ret
		{"IBT too", "\xf3\x0f\x1e\xfa\x0f\x1f\x44\x00\x00\x55\xc3", 9},
		{"neither", "\x55\xc3", 0},
		{"a loop to it", "\x0f\x1f\x44\x00\x00\x55\xeb\xfd", 0}, // push %rbp; jmp to it
		{"a branch", "\x0f\x1f\x44\x00\x00\xc3", 0},
		{"no code of the kernel's", "\x0f\x1f\x44\x00\x00\x55\x06", 0},
	} {
		f := ksym.Symbol{Addr: at, Size: uint64(len(test.code)), Type: 't', Name: "f"}
		k := kernel.New(ktext.Bytes{Addr: at, Code: []byte(test.code)}, noSymbols(t), nil)
		if got := entryOf(k, f); got.Offset != test.want || got.Function != "f" || got.Register != "" {
			t.Errorf("%s: %v, want +%#x", test.name, got, test.want)
		}
	}
	if got := entryOf(kernel.New(ktext.Bytes{}, noSymbols(t), nil), ksym.Symbol{Addr: at, Size: 8, Name: "f"}); got.Offset != 0 {
		t.Errorf("what cannot be read: %v", got)
	}
}

// Code with probes in it is read as it was before, and a breakpoint that is nobody's probe stays.
func TestUnprobed(t *testing.T) {
	const at = 0xffffffff81000000
	code := []byte("\xcc\x89\xf8\xcc\x0f\x1f\x44\x00\x00") // mov %rdi,%rax under a probe; int3; a nop that is ftrace's
	u := &unprobed{Source: ktext.Bytes{Addr: at, Code: code}, breakpoint: []byte{0xcc}, was: map[uint64][]byte{at: {0x48}, at + 4: {0xe8}}}
	for _, from := range []int{0, 1} {
		b := make([]byte, len(code)-from)
		if err := u.ReadAddr(b, at+uint64(from)); err != nil {
			t.Fatal(err)
		}
		if want := "\x48" + string(code[1:]); string(b) != want[from:] {
			t.Errorf("from %d: % x, want % x", from, b, want[from:])
		}
	}
	if u.ReadAddr(make([]byte, 1), at-1) == nil {
		t.Error("what is not there was read")
	}
}

// at16 is the row of most of these tests.
var at16 = []Row{{DefaultScenario, 16}}

// measured is what a guest counted at bulk 16.
func measured(thunk string, stamp int, instructions float64, sites ...record.LabSite) *Measurement {
	return &Measurement{
		Stamp: stamp,
		Host:  host.Fingerprint{IndirectThunk: thunk, Mitigations: map[string]string{}},
		Bulks: []BulkCount{{Bulk: 16, Instructions: &instructions, Window: 1024, Sent: 100, Redirected: 100, Received: 100,
			Sites: sites, Functions: []record.LabFunction{{Function: "bq_xmit_all", PerPacket: 0.125}}}},
	}
}

func TestRecord(t *testing.T) {
	sites := func(call, jump int) []record.LabSite {
		return []record.LabSite{{Function: "f", Stage: "receive", Executed: call, PerPacket: 0.25},
			{Function: "g", Stage: "receive", Jump: true, Executed: jump, PerPacket: 1}}
	}
	cells := []CellResult{
		{Cell: Cell{Kernel: "k", Append: "on"}, Measurement: measured("retpoline", 4, 1003.5+2.0/1024, sites(4, 4)...)},
		{Cell: Cell{Kernel: "k", Append: "off"}, Measurement: measured("plain jmp", 2, 1000, sites(2, 1)...)},
		{Cell: Cell{Kernel: "k", Append: "broken"}, Err: errors.New("it\npanicked")},
	}
	l := Record(cells, at16, &stat.Quantity{Median: 10, Low: 9, High: 11, Unit: "ns"})
	if len(l.Rows) != 3 || len(l.Differences) != 1 {
		t.Fatalf("%d rows, %d differences", len(l.Rows), len(l.Differences))
	}
	if l.Rows[2].Refused != "it panicked" || l.Rows[2].Instructions != nil {
		t.Errorf("%+v", l.Rows[2])
	}
	d := l.Differences[0]
	got := []float64{d.BySites, d.ByObserver, d.Remainder, d.CallsPerPacket, d.Ns.Median}
	if diff := cmp.Diff([]float64{3.5, 2.0 / 1024, 0, 1.25, 12.5}, got); diff != "" {
		t.Errorf("by sites, by observer, remainder, calls, ns (-want +got):\n%s", diff)
	}
	if cells[0].Measurement.Host.IndirectThunk = "plain call"; Record(cells, at16, &stat.Quantity{Median: 10}).Differences[0].Ns != nil {
		t.Error("a call that is no retpoline has the price of one")
	}
	// A guest with a paranoid check has the thunk and calls through registers: both prices are those of retpolines alone.
	checked := sites(5, 5)
	checked[1].Kind = "register"
	cells[0].Measurement.Host.IndirectThunk = "retpoline"
	cells[1].Measurement = measured("retpoline", 4, 1000, checked...)
	l2 := Record(cells, at16, &stat.Quantity{Median: 10})
	if got := l2.Differences[0].Ns; got == nil || got.Median != 10 || *l2.BranchNs(&l2.Rows[1]) != 2.5 {
		t.Errorf("1 retpoline at 10 ns more: %v", got)
	}
	// What CFI tests has another price, which nobody measured; and so has what this machine's kernel has in the place of a retpoline.
	if l2.Host.IndirectThunk = "plain jmp"; l2.BranchNs(&l2.Rows[1]) != nil {
		t.Error("a plain jump has the price of a retpoline")
	}
	l2.Host.IndirectThunk = "retpoline"
	if l2.Rows[1].Sites[0].Check = "kcfi"; l2.BranchNs(&l2.Rows[1]) != nil || l2.Rows[1].Retpolined() != 0 {
		t.Errorf("a tested call has the price of one that is not: %v of %v", l2.BranchNs(&l2.Rows[1]), l2.Rows[1].Retpolined())
	}
	if want := 13 - 1e3/(1e3/13.0+12.5); math.Abs(d.Lost.Median-want) > 1e-9 {
		t.Errorf("%v Mpps lost, want %v", d.Lost.Median, want)
	}
}

// Differences are those of the first row with the first guest's command line and each after it that is alike but for that line.
func TestCompared(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		rows := make([]record.LabRow, 16)
		for i := range rows {
			rows[i].Name, rows[i].Labels = fmt.Sprint(i), make(map[string]string)
			for _, label := range []string{"kernel", "class", "append"} {
				rows[i].Labels[label] = fmt.Sprint(r.IntN(2))
			}
			if r.IntN(4) > 0 {
				rows[i].Instructions = new(float64)
			}
			if r.IntN(4) == 0 {
				rows[i].Sites = []record.LabSite{{Executed: r.IntN(2)}}
			}
			if r.IntN(4) == 0 {
				rows[i].Program = new(record.LabProgram)
			}
		}
		var want, got [][2]string
		taken := make(map[[2]string]bool)
		for i := range rows {
			a := &rows[i]
			labels := [2]string{a.Labels["kernel"], a.Labels["class"]}
			if taken[labels] || a.Program != nil || a.Instructions == nil || !probed(a) || a.Labels["append"] != "1" {
				continue
			}
			taken[labels] = true
			for _, b := range rows[i+1:] {
				if labels == [2]string{b.Labels["kernel"], b.Labels["class"]} && b.Instructions != nil && probed(&b) {
					want = append(want, [2]string{a.Name, b.Name})
				}
			}
		}
		for _, group := range compared(rows, "1") {
			for _, without := range group[1:] {
				got = append(got, [2]string{group[0].Name, without.Name})
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("differences %v, want %v", got, want)
		}
	}
}

// Rows that a record says to be all alike have fewer differences than rows: not one of each two.
func TestRecordManyAlike(t *testing.T) {
	var cells []CellResult
	for i := range 1000 {
		one := 1.0
		row := record.LabRow{Name: fmt.Sprint(i), Instructions: &one, CallsPerPacket: &one}
		cells = append(cells, CellResult{earlier: &earlier{rows: []record.LabRow{row}}})
	}
	if l := Record(cells, nil, nil); len(l.Differences) != len(l.Rows)-1 {
		t.Errorf("%d differences of %d rows", len(l.Differences), len(l.Rows))
	}
}

// guestJSON is a measurement as a guest writes it.
func guestJSON(t testing.TB, m *Measurement) []byte {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What a guest says that it measured is checked before anything is made of it.
func TestReadMeasurement(t *testing.T) {
	good := measured("retpoline", 4, 1000, record.LabSite{Function: "f", Stage: "receive", Executed: 4, PerPacket: 1})
	if m, err := readMeasurement(guestJSON(t, good), Veth, at16, newImages().measured); err != nil || m.Stamp != 4 || len(m.Bulks) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	for want, change := range map[string]func(m *Measurement){
		"0 of 1 rows":                            func(m *Measurement) { m.Bulks = nil },
		`"redirect-map" at bulk 17 was measured`: func(m *Measurement) { m.Bulks[0].Bulk = 17 },
		`"tx" at bulk 16 was measured`:           func(m *Measurement) { m.Bulks[0].Scenario = "tx" },
		`impossible text "\x1b"`:                 func(m *Measurement) { m.Bulks[0].Refused = "\x1b" },
		"impossible count -2":                    func(m *Measurement) { *m.Bulks[0].Instructions = -2 },
		"impossible count 1e+07":                 func(m *Measurement) { *m.Bulks[0].Instructions = 1e7 },
		"impossible count -1":                    func(m *Measurement) { m.Bulks[0].Sites[0].PerPacket = -1 },
		"impossible count 4e+15":                 func(m *Measurement) { m.Bulks[0].Sites[0].Executed = 4e15 },
		"impossible count -0.0009":               func(m *Measurement) { m.Stamp = -1 },
		`impossible text "\x1b[2J"`:              func(m *Measurement) { m.Bulks[0].Sites[0].Target = "\x1b[2J" },
		`impossible text "\a"`:                   func(m *Measurement) { m.Host.IndirectThunk = "\a" },
		`impossible name "\x1b[2J"`:              func(m *Measurement) { m.Uncounted = []string{"\x1b[2J"} },
		"a measurement of more than 4 MiB":       func(m *Measurement) { m.Uncounted = []string{strings.Repeat("x", 4<<20)} },
		`impossible count of function "bq_xmi`:   func(m *Measurement) { m.Bulks[0].Functions[0].PerPacket = 1e13 },
	} {
		m := measured("retpoline", 4, 1000, record.LabSite{Function: "f", Stage: "receive", Executed: 4, PerPacket: 1})
		change(m)
		if _, err := readMeasurement(guestJSON(t, m), Veth, at16, newImages().measured); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A measurement of little text that would take much memory is refused before it is decoded.
func TestMeasurementMemory(t *testing.T) {
	of := func(element string) string { return strings.Repeat(element+",", 170_000) + element }
	for text, want := range map[string]string{
		`{"bulks":[` + of(`{}`) + `]}`:                 "more than 1 bulks",
		`{"Bulks":[{"sites":[` + of(`{}`) + `]}]}`:     "more than 100000 sites",
		`{"bulks":[{"functions":[` + of(`0`) + `]}]}`:  "more than 100000 functions",
		`{"codes":[` + of(`0`) + `]}`:                  "more than 100000 codes",
		`{"codes":[{"symbols":[` + of(`{}`) + `]}]}`:   "more than 100000 symbols",
		`{"uncounted":[` + of(`""`) + `]}`:             "more than 100000 uncounted",
		`{"x":[` + of(`[{},{}]`) + `]}`:                "it would take more than 64 MiB",
		`{"host":{"settings":{` + of(`"a":""`) + `}}}`: "more than 16384 names",
		`{"bulks":[{}]} {}`:                            "more follows",
	} {
		budget := newImages().measured
		job := jobOf(t, sample.Object(), "nat", "udp4,tcp4,arp")
		testutil.Allocates(t, 6<<20, func() {
			if _, err := readMeasurement([]byte(text), Veth, at16, budget); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%.40s: %v, want %q", text, err, want)
			}
			if _, err := readProgram([]byte(text), job, maxMeasurement, budget); err == nil {
				t.Errorf("%.40s: a program was counted", text)
			}
		})
		if budget.Taken() != 0 {
			t.Errorf("%.40s: %d bytes are not given back", text, budget.Taken())
		}
	}
	var err error
	budget, n := trace.NewBudget(10<<10), 0
	b := guestJSON(t, measured("retpoline", 4, 1000))
	for ; err == nil && n < 20; n++ {
		_, err = readMeasurement(b, Veth, at16, budget)
	}
	if n < 3 || n == 20 || !strings.Contains(err.Error(), "more than 256 MiB of measurements") || budget.Taken() > 10<<10 {
		t.Errorf("after %d measurements: %v, %d bytes taken", n, err, budget.Taken())
	}
}

// FuzzMeasurement reads what no guest measured: what is taken makes a record that can be
// loaded, and so do the words of a guest that failed.
func FuzzMeasurement(f *testing.F) {
	full := measured("retpoline", 4, 1000, record.LabSite{Function: "f", Stage: "receive", Executed: 4, PerPacket: 1})
	full.Mapped, full.Uncounted = Direct, []string{"f+0x1"}
	full.Bulks[0].Functions[0].Part = InPoll
	f.Add(guestJSON(f, full), false, "panicked", "Kernel panic - not syncing")
	f.Add(guestJSON(f, measured("plain jmp", 0, 7)), true, "\x1b[2J\n", "\xff\r\x1b]0;x\a")
	f.Add([]byte(`{"bulks":[{"bulk":16,"instructions":1e308,"sites":[{}],"functions":[null]}]}`), true, "", "")
	price := &stat.Quantity{Median: 10, Low: 9, High: 11, Unit: "ns"}
	f.Fuzz(func(t *testing.T, b []byte, wires bool, words, console string) {
		cells := []CellResult{
			{Cell: Cell{Kernel: "k", NIC: Veth, Append: "on"}}, {Cell: Cell{Kernel: "k", NIC: Veth, Append: "off"}},
			{Cell: Cell{Kernel: "l"}},
		}
		if wires {
			cells[0].NIC, cells[1].NIC = "igb", "igb"
		}
		var m *Measurement
		var err error
		budget := newImages().measured
		testutil.Allocates(t, uint64(1<<20+64*len(b)), func() { m, err = readMeasurement(b, cells[0].NIC, at16, budget) })
		switch {
		case err != nil:
			cells[0].Err = err
		default:
			cells[0].Measurement = m
			cells[1].Measurement = measured("plain jmp", 2, 1000)
		}
		report := guest.Report{Console: console, Results: []guest.Result{{Err: words, Stderr: []byte(console), Exit: 1}}}
		cells[2].Err = failed(report, nil)
		l := Record(cells, at16, price)
		doc := record.New[record.LabRow]("lab", host.Fingerprint{})
		doc.Rows, doc.Warnings = l.Rows, l.Warnings
		l.Document = *doc
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := record.Parse(text); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		for _, w := range l.Warnings {
			if printable(w.Text, 10*maxWhy) != w.Text {
				t.Fatalf("warning %q", w.Text)
			}
		}
	})
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	deb := filepath.Join(dir, "x.deb")
	if err := os.WriteFile(deb, []byte("no package"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"debian:", "debian:x", "debian:6.1;rm", filepath.Join(dir, "none"), dir, file, deb,
		filepath.Join(dir, "x.rpm")} {
		_, err := guest.Resolve(t.Context(), filepath.Join(dir, "cache"), name)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGuestProgram(t *testing.T) {
	t.Parallel()
	kernels := map[string]guest.Kernel{"a": {Arch: runtime.GOARCH}}
	plan := Plan{GuestProgram: "x"}
	if _, err := plan.programs("self", kernels); err == nil || !strings.Contains(err.Error(), "--guest-program x is for") {
		t.Errorf("for guests of this machine's architecture: %v", err)
	}
	kernels["b"] = guest.Kernel{Arch: "other"}
	if _, err := plan.programs("self", kernels); err == nil || strings.Contains(err.Error(), "leave it out") {
		t.Errorf("for guests of another: %v", err)
	}
}

// Of a program for guests of another architecture the sections, which may unpack to any size, are not read.
func TestForeignGuestProgram(t *testing.T) {
	t.Parallel()
	other, machine := guest.ARM64, elf.EM_AARCH64
	if runtime.GOARCH == other {
		other, machine = guest.AMD64, elf.EM_X86_64
	}
	if err := guest.Available(other); err != nil {
		testutil.SkipMissing(t, err)
	}
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Ehsize: 64, Phentsize: 56,
		Shoff: 64, Shentsize: 64, Shnum: 1000}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "unthunk")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	programs, err := Plan{GuestProgram: path}.programs("self", map[string]guest.Kernel{"a": {Arch: other}})
	if err != nil || programs[other].path != path || len(programs[other].libraries) > 0 {
		t.Errorf("%+v, %v", programs, err)
	}
}

func TestLibraries(t *testing.T) {
	self, err := Executable()
	if err != nil {
		t.Fatal(err)
	}
	if files, err := guest.Libraries(self); err != nil || len(files) == 1 { // it may be static
		t.Errorf("%v, %v", files, err)
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		testutil.Missing(t, "/bin/sh")
	}
	if files, err := guest.Libraries(shell); err != nil {
		t.Error(err)
	} else if len(files) == 1 {
		t.Errorf("a loader and nothing to load: %v", files)
	}
	if _, err := guest.Libraries(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no program: no error")
	}
}

// TestExact boots a kernel with retpolines, once more, and without: the counts are
// equal to the digit, and the branches counted at their sites, with the observer's,
// account for every instruction that the two differ in.
func TestExact(t *testing.T) {
	kernel := "debian:6.12-cloud"
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Resolve(t.Context(), cache, kernel); err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	with, without, err := AB("spectre_v2", guest.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	plan := Plan{Kernels: []string{kernel}, Appends: []string{with, with + " ", without}, Bulks: []int{1, 16}}
	l := booted(t, plan)
	for i := range plan.Bulks {
		a, b := l.Rows[i], l.Rows[len(plan.Bulks)+i]
		if *a.Instructions != *b.Instructions || *a.CallsPerPacket != *b.CallsPerPacket {
			t.Errorf("%s: %v instructions, %v calls in one boot, %v and %v in another", a.Name, *a.Instructions,
				*a.CallsPerPacket, *b.Instructions, *b.CallsPerPacket)
		}
		if a.Counts.Sent == 0 || a.Counts.Sent != a.Counts.Redirected || a.Counts.Sent != a.Counts.Received {
			t.Errorf("%s: counts %+v", a.Name, a.Counts)
		}
		// What a packet of an IOMMU's path would go through is watched on veth too.
		for _, place := range a.NotExecuted {
			if slices.ContainsFunc(a.Sites, func(s record.LabSite) bool { return s.Function == place.Function && s.Offset == place.Offset }) {
				t.Errorf("%s: %+v was executed and was not", a.Name, place)
			}
		}
		if !slices.ContainsFunc(a.NotExecuted, func(p record.LabPlace) bool { return p.Function == "__iommu_unmap" }) {
			t.Errorf("%s: __iommu_unmap is not among %d branches that no packet went through", a.Name, len(a.NotExecuted))
		}
	}
	for _, d := range l.Differences {
		t.Logf("%+v", d)
		if d.Remainder != 0 { // exact: whole multiples of 1/128
			t.Errorf("%s: %v of %v instructions are not accounted for by %v calls", d.With, d.Remainder, d.Instructions, d.CallsPerPacket)
		}
	}
}

// TestWires boots interfaces on wires, with an IOMMU in between: packets, maps and
// unmaps agree, and the indirect branches of each mapping are found by what is entered.
func TestWires(t *testing.T) {
	for _, test := range []struct {
		kernel, nic string
		dma         DMA
		always      bool
		want        map[string]float64 // indirect branches a packet, by target
	}{
		{"debian:6.12-cloud", "virtio", IOMMUStrict, true, map[string]float64{"intel_iommu_map_pages": 2,
			"intel_iommu_unmap_pages": 2, "intel_iommu_tlb_sync": 2}},
		{"debian:6.1", "igb", IOMMULazy, false, map[string]float64{"iommu_dma_map_page": 1, "iommu_dma_unmap_page": 1,
			"intel_iommu_map_pages": 1, "intel_iommu_unmap_pages": 1}},
		{"debian:6.1", "virtio", Swiotlb, false, nil},
		{"debian:6.12", "igb", IOMMUPass, false, nil},
		{"debian:6.12", "vmxnet3", Direct, false, nil},
	} {
		t.Run(test.kernel+"/"+test.nic+"/"+string(test.dma), func(t *testing.T) {
			if !test.always && os.Getenv("UNTHUNK_GUEST") == "" {
				testutil.Missing(t, "guest kernels (make test-kernels)")
			}
			cells, err := Run(t.Context(), Plan{Kernels: []string{test.kernel}, NICs: []string{test.nic},
				DMAs: []DMA{test.dma}, Bulks: []int{64}}, unthunk(t), nil)
			testutil.SkipMissing(t, err)
			if err != nil {
				t.Fatal(err)
			}
			c := cells[0]
			testutil.SkipMissing(t, c.Err)
			if c.Err != nil {
				t.Fatalf("%v; console:\n%s", c.Err, c.Console)
			}
			b := c.Bulks[0]
			if b.Sent == 0 || b.Sent != b.Redirected || b.Sent != b.Received {
				t.Errorf("%d sent, %d redirected, %d received", b.Sent, b.Redirected, b.Received)
			}
			if b.Instructions == nil || *b.Instructions < 100 {
				t.Errorf("instructions %v", b.Instructions)
			}
			maps, unmaps := b.mapped()
			if maps < 0.9 || math.Abs(maps-unmaps) > 0.1 {
				t.Errorf("%v maps and %v unmaps a packet", maps, unmaps)
			}
			got := make(map[string]float64)
			for _, s := range b.Sites {
				got[s.Target] += s.PerPacket
			}
			for target, want := range test.want {
				if math.Abs(got[target]-want) > 0.1 {
					t.Errorf("%s is entered %v times a packet, want %v", target, got[target], want)
				}
			}
			if b.calls("bq_xmit_all") != 1.0/16 {
				t.Errorf("%v calls of bq_xmit_all a packet, want 1/16", b.calls("bq_xmit_all"))
			}
		})
	}
}

// What most windows have is what is counted; a send that is elsewhere is in the spread.
func TestMostOften(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		sends         [][]float64
		often, spread float64
	}{
		{[][]float64{{698, 698, 900}, {698, 700, 698}}, 698, 1},
		{[][]float64{{698, 698, 700}, {701, 701, 698}, {}}, 698, 3},
		{[][]float64{{5, 4}}, 4, 1},
		{nil, 0, 1},
	} {
		if often, spread := mostOften(test.sends); often != test.often || spread != test.spread {
			t.Errorf("%v: %v ±%v, want %v ±%v", test.sends, often, spread, test.often, test.spread)
		}
	}
}

// TestTime takes times in guests that are emulated: they mean nothing, but each is there.
func TestTime(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	plan := Plan{Kernels: []string{"debian:6.12-cloud"}, NICs: []string{Veth, "virtio"}, Bulks: []int{16, 64}}.withDefaults()
	plan.images = newImages()
	self := unthunk(t)
	err := each(t.Context(), plan, 1, self, nil, func(ctx context.Context, _ int, m *guest.Machine, cell Cell) {
		got, console, err := measure(ctx, plan, m, cell, "--time")
		if err != nil {
			t.Errorf("%s: %v; console:\n%s", cell.Name(), err, console)
			return
		}
		for _, b := range got.Bulks {
			if want := cell.NIC == Veth || b.Bulk == 64; want != (b.Ns != nil) || b.Instructions != nil {
				t.Errorf("%s at bulk %d: %v, %v instructions", cell.Name(), b.Bulk, b.Ns, b.Instructions)
			}
		}
	})
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Error(err)
	}
}

// unthunk builds this program for a guest.
func unthunk(t *testing.T) (self string) {
	t.Helper()
	self = filepath.Join(t.TempDir(), "unthunk")
	if err := guest.Build(t.Context(), testutil.Package("cmd/unthunk"), self); err != nil {
		t.Fatal(err)
	}
	return self
}

// A guest that does not come to its end is killed at its limit; one whose kernel is
// none says so.
func TestBadGuests(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"boot", "lib/modules/0.0"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"boot/vmlinuz-0.0": string(testutil.BzImage("0.0", strings.Repeat("no kernel", 10_000))),
		"lib/modules/0.0/modules.builtin": "kernel/drivers/net/veth.ko\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := Executable()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	cells, err := Run(t.Context(), Plan{Kernels: []string{dir}, Limit: 3 * time.Second}, self, nil)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	testutil.SkipMissing(t, cells[0].Err)
	if cells[0].Err == nil || time.Since(begun) > time.Minute {
		t.Errorf("a file that is not a kernel: %v after %v", cells[0].Err, time.Since(begun))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Plan{Kernels: []string{dir}}, self, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

// Guests that end in any order are shown in their own, one at a time, and each as soon as those
// before it were: what they wrote is not kept.
func TestTurns(t *testing.T) {
	t.Parallel()
	const n = 5
	var (
		order []int
		group sync.WaitGroup
		turns = newTurns(n)
		first = make(chan struct{})
		last  = make(chan struct{})
	)
	for i := range n {
		group.Go(func() {
			switch i {
			case 0:
				<-last // the others have ended
			case n - 1:
				close(last)
				<-first // it is shown while the last still runs
			}
			turns.take(i, func() { order = append(order, i) })
			if i == 0 {
				close(first)
			}
		})
	}
	group.Wait()
	if !slices.Equal(order, []int{0, 1, 2, 3, 4}) {
		t.Error(order)
	}
}

func TestLastOf(t *testing.T) {
	t.Parallel()
	if got := lastOf("panic"); got != "panic" {
		t.Errorf("%q", got)
	}
	if got := lastOf(strings.Repeat("x", 4<<20) + "panic"); len(got) != maxLast || !strings.HasSuffix(got, "xpanic") {
		t.Errorf("%d bytes", len(got))
	}
}

// Each guest is handed on in the order of the plan, also one that fails.
func TestCommands(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"boot/vmlinuz-0.0": string(testutil.BzImage("0.0", strings.Repeat("no kernel", 10_000))),
		"lib/modules/0.0/modules.builtin": "kernel/drivers/net/veth.ko\n"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	self, err := Executable()
	if err != nil {
		t.Fatal(err)
	}
	plan := Plan{Kernels: []string{dir}, Appends: []string{"a", "b", "c"}, Limit: 3 * time.Second}
	var names []string
	var missing error
	err = Commands(t.Context(), plan, self, []string{"version"}, nil, func(r CommandResult) {
		if missing = r.Err; r.Err == nil {
			t.Errorf("%s: a file that is not a kernel runs", r.Name())
		}
		names = append(names, r.Append)
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	testutil.SkipMissing(t, missing)
	if strings.Join(names, "") != "abc" {
		t.Error(names)
	}
}

// What a packet goes through is found where a tick disturbs a quarter of the pairs, and what a timer does is none of a packet's, also where
// it does about as much as a packet's own would be. Pairs that say two numbers equally often settle nothing.
func TestVotes(t *testing.T) {
	t.Parallel()
	const of = 1.0 / 64
	softirq, timer, poll, either, wakes := hit{probe: 1}, hit{probe: 2}, hit{probe: 3}, hit{probe: 4}, hit{probe: 5}
	unsettled := make(map[hit]int)
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 0))
		v := votes{of: make(map[hit]map[float64]int)}
		for v.pairs < maxPairs && !v.settled() {
			pair := map[hit]float64{poll: 0.125, softirq: 3 * of}
			if r.IntN(4) == 0 { // a tick in either slot, or two in one
				pair[softirq] += []float64{-1, -0.5, 0.5, 1}[r.IntN(4)] * of
			}
			if r.IntN(2) == 0 {
				pair[timer] = []float64{-0.5, 0, 0.5}[r.IntN(3)] * of
			}
			pair[wakes] = (float64(seed%14) + math.Round(2*r.NormFloat64())) / 384 // six of 384 are one in 64
			v.add(pair)
		}
		for h, want := range map[hit]float64{softirq: 3 * of, timer: 0, poll: 0.125, wakes: 0} {
			per, ok := v.most(h)
			switch {
			case v.of[h] == nil:
			case !ok:
				unsettled[h]++
			case per != want:
				t.Errorf("seed %d: %v a packet after %d pairs, want %v", seed, per, v.pairs, want)
			}
		}
	}
	if unsettled[softirq] > 5 || unsettled[timer]+unsettled[poll] > 0 || unsettled[wakes] > 50 {
		t.Errorf("of 1000 were not settled: %v", unsettled)
	}
	v := votes{of: make(map[hit]map[float64]int)}
	for i := range maxPairs {
		v.add(map[hit]float64{poll: 0.125, either: float64(1+i%2) * of})
	}
	if per, ok := v.most(either); ok || v.settled() {
		t.Errorf("two numbers equally often: %v", per)
	}
	if v = (votes{of: make(map[hit]map[float64]int)}); v.settled() {
		t.Error("nothing was sent, and it is settled")
	}
	// Each of 384 packets, and something once a slot.
	if got := perPacket(map[hit]uint64{poll: 385}, map[hit]uint64{poll: 769}, 384); got[poll] != 1 {
		t.Errorf("%v a packet, want 1", got[poll])
	}
	v = votes{of: make(map[hit]map[float64]int)}
	for range minPairs {
		v.add(map[hit]float64{poll: 0.125})
	}
	if per, ok := v.most(poll); !ok || per != 0.125 || !v.settled() {
		t.Errorf("%v a packet, %v, where all agree", per, ok)
	}
	v.add(map[hit]float64{poll: 0.125, either: of}) // once, and late
	if per, ok := v.most(either); per != 0 || ok && !v.settled() {
		t.Errorf("what was seen once: %v a packet", per)
	}
}
