package lab

import (
	"context"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"unthunk/host"
	"unthunk/internal/guest"
	"unthunk/internal/testutil"
	"unthunk/stat"
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
	for name, p := range map[string]Plan{
		"no kernel":  {},
		"bulk":       {Kernels: []string{"a"}, Bulks: []int{0}},
		"limit":      {Kernels: []string{"a"}, Limit: time.Millisecond},
		"control":    {Kernels: []string{"a"}, Appends: []string{"x\ny"}},
		"too many":   {Kernels: []string{"a"}, Appends: strings.Split(strings.Repeat("x,", 1+maxCells), ",")},
		"big matrix": {Kernels: make([]string, 1), Appends: numbered(maxCells + 1)},
	} {
		if err := p.Validate(); name != "too many" && err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, _, err := AB("nonsense"); err == nil {
		t.Error("an experiment that is none: no error")
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

func TestParseHist(t *testing.T) {
	text := `# event histogram
#
# trigger info: hist:keys=target.hex:vals=hitcount:sort=hitcount:size=2048 [active]
#

{ target: ffffffff81a0b1c0 } hitcount:          3
{ target:               10 } hitcount:       5120
{ target: nonsense } hitcount: 1
{ target: 1 } hitcount:

Totals:
    Hits: 5123
`
	if got, want := parseHist(text), map[uint64]uint64{0xffffffff81a0b1c0: 3, 0x10: 5120}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzParseHist(f *testing.F) {
	f.Add("{ target: ffffffff81a0b1c0 } hitcount: 3\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got := parseHist(text); len(got) > strings.Count(text, "hitcount:") {
			t.Errorf("%d counts", len(got))
		}
	})
}

func TestSince(t *testing.T) {
	a, b := target{"f+1", 1}, target{"f+1", 2}
	got := since(map[target]uint64{a: 10, b: 5}, map[target]uint64{a: 10, b: 2})
	if !maps.Equal(got, map[target]uint64{b: 3}) {
		t.Errorf("%v", got)
	}
}

// measured is what a guest counted at bulk 16.
func measured(thunk string, instructions float64, sites ...SiteCount) *Measurement {
	return &Measurement{
		Host:  host.Fingerprint{IndirectThunk: thunk, Mitigations: map[string]string{}},
		Bulks: []BulkCount{{Bulk: 16, Instructions: instructions, Window: 1024, Sent: 100, Redirected: 100, Received: 100, Sites: sites, Functions: map[string]float64{"bq_xmit_all": 0.125}}},
	}
}

func TestRecord(t *testing.T) {
	sites := []SiteCount{{Function: "f", Stage: "receive", PerPacket: 0.25}, {Function: "g", Stage: "receive", Jump: true, PerPacket: 1}}
	cells := []CellResult{
		{Cell: Cell{Kernel: "k", Append: "on"}, Measurement: measured("retpoline", 1003.5+2.0/1024, sites...)},
		{Cell: Cell{Kernel: "k", Append: "off"}, Measurement: measured("plain jmp", 1000, sites...)},
		{Cell: Cell{Kernel: "k", Append: "broken"}, Err: errors.New("it\npanicked")},
	}
	l := Record(cells, []int{16}, &stat.Quantity{Median: 10, Low: 9, High: 11, Unit: "ns"})
	if len(l.Rows) != 3 || len(l.Differences) != 1 {
		t.Fatalf("%d rows, %d differences", len(l.Rows), len(l.Differences))
	}
	if l.Rows[2].Refused != "it panicked" || l.Rows[2].Instructions != nil {
		t.Errorf("%+v", l.Rows[2])
	}
	d := l.Differences[0]
	if d.BySites != 3.5 || d.ByObserver != 2.0/1024 || d.Remainder != 0 || d.Calls != 1.25 || d.Ns.Median != 12.5 {
		t.Errorf("%+v", d)
	}
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
	for _, name := range []string{"debian:", "debian:x", "debian:6.1;rm", filepath.Join(dir, "none"), dir, file, deb, filepath.Join(dir, "x.rpm")} {
		_, err := guest.Resolve(t.Context(), filepath.Join(dir, "cache"), name)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
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
// equal to the digit, and the branches counted at their sites account for all the
// instructions that the two differ in, but for what the clock rounds.
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
	self := filepath.Join(t.TempDir(), "unthunk")
	if err := guest.Build(t.Context(), "unthunk/cmd/unthunk", self); err != nil {
		t.Fatal(err)
	}
	with, without, err := AB("spectre_v2")
	if err != nil {
		t.Fatal(err)
	}
	plan := Plan{Kernels: []string{kernel}, Appends: []string{with, with + " ", without}, Bulks: []int{1, 16}}
	cells, err := Run(t.Context(), plan, self, nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cells {
		testutil.SkipMissing(t, c.Err)
		if c.Err != nil {
			t.Fatalf("%s: %v; console:\n%s", c.Name(), c.Err, c.Console)
		}
	}
	l := Record(cells, plan.Bulks, nil)
	for i := range plan.Bulks {
		a, b := l.Rows[i], l.Rows[len(plan.Bulks)+i]
		if *a.Instructions != *b.Instructions || *a.Calls != *b.Calls {
			t.Errorf("%s: %v instructions, %v calls in one boot, %v and %v in another", a.Name, *a.Instructions, *a.Calls, *b.Instructions, *b.Calls)
		}
		if a.Counts.Sent == 0 || a.Counts.Sent != a.Counts.Redirected || a.Counts.Sent != a.Counts.Received {
			t.Errorf("%s: counts %+v", a.Name, a.Counts)
		}
	}
	for _, d := range l.Differences {
		t.Logf("%+v", d)
		// The clock of the guest rounds: up to two instructions in a window.
		if math.Abs(d.Remainder) > 2.0/float64(l.Rows[0].Window) {
			t.Errorf("%s: %v of %v instructions are not accounted for by %v calls", d.With, d.Remainder, d.Instructions, d.Calls)
		}
	}
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
	for name, text := range map[string]string{"boot/vmlinuz-0.0": strings.Repeat("no kernel", 10_000), "lib/modules/0.0/modules.builtin": "kernel/drivers/net/veth.ko\n"} {
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
	if cells[0].Err == nil || time.Since(begun) > 20*time.Second {
		t.Errorf("a kernel that is none: %v after %v", cells[0].Err, time.Since(begun))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Plan{Kernels: []string{dir}}, self, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}
