package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
)

// A guest whose rows a record has is not booted again, unless it would count by anything else.
func TestEarlier(t *testing.T) {
	if err := guest.Available(guest.AMD64); err != nil {
		testutil.SkipMissing(t, err)
	}
	image := filepath.Join(t.TempDir(), "bzImage")
	if err := os.WriteFile(image, []byte("an image"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &guest.Machine{Kernel: guest.Kernel{Arch: guest.AMD64, Image: image}, Init: self}
	qemu, err := m.QEMU.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unthunk, err := programSum(self, counting(chain.Sum(), countingVersion))
	if err != nil {
		t.Fatal(err)
	}
	imageSum, err := imageSum(t.Context(), m.Kernel)
	if err != nil || len(imageSum) != 64 {
		t.Fatal(imageSum, err)
	}
	cell := Cell{Kernel: "debian:6.12-cloud", Append: "quiet", NIC: Veth}
	ask := func(change func(l *record.Lab, p *Plan)) *earlier {
		l := &record.Lab{}
		for _, bulk := range []string{"1", "16"} {
			l.Rows = append(l.Rows, record.LabRow{Name: "debian:6.12-cloud/quiet/bulk=" + bulk, Labels: map[string]string{"append": "quiet"},
				Build: &record.LabBuild{Image: imageSum, CPU: "max", QEMU: qemu, Unthunk: unthunk}, Trace: &record.LabTrace{}})
		}
		l.Warnings = []record.Warning{{Row: "debian:6.12-cloud/quiet/bulk=1", Text: "its"}, {Row: "debian:6.12-cloud/quiet", Text: "the guest's"},
			{Row: "debian:6.12-cloud", Text: "of another"}}
		plan := Plan{Kernels: []string{cell.Kernel}, Bulks: []int{1, 16}, Trace: true, Earlier: l}
		change(l, &plan)
		return plan.earlier(t.Context(), m, cell)
	}
	got := ask(func(*record.Lab, *Plan) {})
	if got == nil || len(got.rows) != 2 || len(got.warnings) != 2 {
		t.Fatalf("the same guest: %+v", got)
	}
	timed := func(l *record.Lab, p *Plan) {
		p.Time = true
		for i := range l.Rows {
			l.Rows[i].Ns = &stat.Quantity{}
		}
	}
	if ask(timed) == nil {
		t.Error("the same guest with its time is booted")
	}
	untimed := ask(func(l *record.Lab, p *Plan) { timed(l, p); l.Rows[1].Ns = nil })
	if booted := untimed == nil; booted != (runtime.GOARCH == guest.AMD64) { // one of another architecture has no time
		t.Errorf("a guest of which one row has no time: booted %v", booted)
	}
	tried := func(l *record.Lab, p *Plan) {
		p.Time = true
		l.Warnings = append(l.Warnings, record.Warning{Row: cell.Name(), Text: "no time: KVM of this machine cannot execute it"})
	}
	if ask(tried) == nil {
		t.Error("a guest that KVM could not execute is booted again")
	}
	if runtime.GOARCH == guest.AMD64 && ask(func(l *record.Lab, p *Plan) { tried(l, p); p.TimeAgain = true }) != nil {
		t.Error("a guest that KVM could not execute is not booted, though its time is asked for")
	}
	l := Record([]CellResult{{Cell: cell, earlier: got}}, []Row{{DefaultScenario, 1}, {DefaultScenario, 16}}, nil)
	if len(l.Rows) != 2 || l.Rows[1].Name != "debian:6.12-cloud/quiet/bulk=16" || len(l.Warnings) != 2 {
		t.Errorf("rows %+v, warnings %v", l.Rows, l.Warnings)
	}
	for name, change := range map[string]func(l *record.Lab, p *Plan){
		"no record": func(_ *record.Lab, p *Plan) { p.Earlier = nil },
		"image":     func(l *record.Lab, _ *Plan) { l.Rows[1].Build.Image = "other" },
		"CPU model": func(l *record.Lab, _ *Plan) { l.Rows[0].Build.CPU = "EPYC" },
		"QEMU":      func(l *record.Lab, _ *Plan) { l.Rows[0].Build.QEMU = "0.1" },
		"unthunk":   func(l *record.Lab, _ *Plan) { l.Rows[0].Build.Unthunk = "v0" },
		"counting": func(l *record.Lab, _ *Plan) {
			l.Rows[1].Build.Unthunk = strings.Replace(unthunk, counting(chain.Sum(), countingVersion), counting(chain.Sum(), countingVersion+1), 1)
		},
		"no build":        func(l *record.Lab, _ *Plan) { l.Rows[0].Build = nil },
		"no trace":        func(l *record.Lab, _ *Plan) { l.Rows[0].Trace = nil },
		"no number":       func(l *record.Lab, _ *Plan) { l.Rows[0].Refused = "it did not boot" },
		"another bulk":    func(_ *record.Lab, p *Plan) { p.Bulks = []int{1, 64} },
		"another command": func(l *record.Lab, _ *Plan) { l.Rows[0].Labels["append"] = "quiet quiet" },
	} {
		if got := ask(change); got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// What came of guests is told after each, and what a record has of those that are still to come stays in it.
func TestDone(t *testing.T) {
	if err := guest.Available(guest.AMD64); err != nil {
		testutil.SkipMissing(t, err)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(image, testutil.BzImage("6.12.1-made", "no kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := Executable()
	if err != nil {
		t.Fatal(err)
	}
	later := "last"
	had := &record.Lab{}
	had.Rows = []record.LabRow{{Name: image + "/last/bulk=16", Labels: map[string]string{"append": later}, Release: "of before"}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var told []record.LabRow
	plan := Plan{Kernels: []string{image}, Bulks: []int{16}, Earlier: had}
	for i := range 2*runtime.NumCPU() + 1 { // so many do not run at once
		one := fmt.Sprintf("n=%d", i)
		plan.Appends = append(plan.Appends, one)
		if i > 0 {
			had.Rows = append(had.Rows, record.LabRow{Name: image + "/" + one + "/bulk=16", Labels: map[string]string{"append": one}})
		}
	}
	plan.Appends = append(plan.Appends, later)
	plan.Done = func(cells []CellResult) {
		if told == nil {
			told = Record(cells, plan.Rows(), nil).Rows
		}
		stop()
	}
	results, err := Run(ctx, plan, self, nil)
	if err == nil {
		t.Error("a run that was stopped has no error")
	}
	for _, r := range results { // what was stopped has the rows of before
		if r.Append != "n=0" && !r.Taken() && errors.Is(r.Err, context.Canceled) {
			t.Errorf("%s: %v", r.Name(), r.Err)
		}
	}
	if len(told) != len(plan.Appends) {
		t.Fatalf("%d rows were told", len(told))
	}
	if last := told[len(told)-1]; last.Release != "of before" || last.Name != had.Rows[0].Name {
		t.Errorf("the last row: %+v", last)
	}
	ended := slices.ContainsFunc(told, func(r record.LabRow) bool { return strings.HasPrefix(r.Refused, "boot guest") })
	if !ended {
		t.Errorf("rows %+v: want one that ended", told)
	}
}

// A signal that comes while the image of a kernel is summed leaves the rows of the record as they were.
func TestStoppedInSum(t *testing.T) {
	if err := guest.Available(guest.AMD64); err != nil {
		testutil.SkipMissing(t, err)
	}
	image := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(image, testutil.BzImage("6.12.1-made", "no kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := Executable()
	if err != nil {
		t.Fatal(err)
	}
	had := &record.Lab{}
	had.Rows = []record.LabRow{{Name: image + "/bulk=16", Labels: map[string]string{"append": ""}, Release: "of before"}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	plan := Plan{Kernels: []string{image}, Bulks: []int{16}, Earlier: had}
	plan.Done = func(cells []CellResult) { t.Errorf("saved: %+v", Record(cells, plan.Rows(), nil).Rows) }
	results, _ := Run(ctx, plan, self, func(int, int, string) { stop() })
	if rows := Record(results, plan.Rows(), nil).Rows; len(rows) != 1 || rows[0].Release != "of before" || rows[0].Refused != "" {
		t.Errorf("rows %+v", rows)
	}
}

// What a record has of guests that the plan does not name stays in it, where it stood.
func TestKeepOthers(t *testing.T) {
	t.Parallel()
	number := func(n float64) *float64 { return &n }
	row := func(name, kernel, line string, instructions float64) record.LabRow {
		return record.LabRow{Name: name, Labels: map[string]string{"kernel": kernel, "append": line}, Release: "of before",
			Instructions: number(instructions), CallsPerPacket: number(2)}
	}
	had := &record.Lab{Differences: []record.LabDifference{{With: "a/on/bulk=16", Without: "a/off/bulk=16"},
		{With: "b/bulk=16", Without: "a/off/bulk=16"}, {With: "b/bulk=16", Without: "gone"}}}
	had.Rows = []record.LabRow{row("a/on/bulk=16", "a", "on", 130), row("b/bulk=16", "b", "", 110), row("a/off/bulk=16", "a", "off", 100),
		row("b/bulk=1", "b", "", 200)}
	had.Warnings = []record.Warning{{Row: "a/on", Text: "of a guest"}, {Row: "b/bulk=1", Text: "of a row"}, {Row: "b", Text: "counted again"},
		{Row: "b/bulk=16", Text: "counted again"}, {Text: "of the run"}}
	had.TraceChanges = []record.LabTraceChange{{Old: "a/on/bulk=16", New: "b/bulk=16"}, {Old: "a/on/bulk=16", New: "a/off/bulk=16"}}
	plan := Plan{Kernels: []string{"b", "c"}, Bulks: []int{16}, Earlier: had}.withDefaults()
	l := Record([]CellResult{{Cell: Cell{Kernel: "b", NIC: Veth}, Release: "new"}, {Cell: Cell{Kernel: "c", NIC: Veth}, Release: "new"}},
		plan.Rows(), nil)
	plan.Keep(l)
	var got []string
	for _, r := range l.Rows {
		got = append(got, r.Name+" "+r.Release)
	}
	want := []string{"a/on/bulk=16 of before", "b/bulk=16 new", "a/off/bulk=16 of before", "b/bulk=1 of before", "c/bulk=16 new"}
	if !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	if len(l.Warnings) != 2 || l.Warnings[0].Text != "of a guest" || l.Warnings[1].Text != "of a row" {
		t.Errorf("warnings %+v", l.Warnings)
	}
	if d := l.Differences; len(d) != 1 || d[0].With != "a/on/bulk=16" || d[0].Instructions != 30 {
		t.Errorf("differences %+v", d)
	}
	if c := l.TraceChanges; len(c) != 1 || c[0].New != "a/off/bulk=16" {
		t.Errorf("differences of traces %+v", c)
	}
	if n := len(plan.Others()); n != 3 {
		t.Errorf("%d rows are of others", n)
	}
	plan.Earlier = nil
	if plan.Keep(l); len(l.Rows) != 5 {
		t.Errorf("without a record: %d rows", len(l.Rows))
	}
}

// A guest has a number when one of its rows has, or when a record had all of them.
func TestCountedOn(t *testing.T) {
	t.Parallel()
	build := &record.LabBuild{Arch: guest.ARM64}
	counted := &Measurement{Build: build, Bulks: []BulkCount{{Refused: "it cannot"}, {}}}
	for name, test := range map[string]struct {
		cell CellResult
		want string
	}{
		"never begun":      {CellResult{}, ""},
		"counted":          {CellResult{Measurement: counted}, guest.ARM64},
		"failed":           {CellResult{Measurement: counted, Err: errors.New("no time")}, ""},
		"refused":          {CellResult{Measurement: &Measurement{Build: build, Bulks: []BulkCount{{Refused: "it cannot"}}}}, ""},
		"taken":            {CellResult{earlier: &earlier{rows: []record.LabRow{{Build: build}}}}, guest.ARM64},
		"of an old record": {CellResult{earlier: &earlier{rows: []record.LabRow{{}}}}, guest.AMD64},
	} {
		if got := test.cell.CountedOn(); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// Times of a second boot are beside the counts of the first.
func TestAddTime(t *testing.T) {
	t.Parallel()
	c := CellResult{Measurement: &Measurement{Bulks: []BulkCount{{Bulk: 1}, {Bulk: 16, Refused: "it cannot"}}}}
	ns := &stat.Quantity{Median: 5}
	c.addTime(&Measurement{Bulks: []BulkCount{{Ns: ns}, {Ns: ns}}}, nil)
	if c.Bulks[0].Ns != ns || c.Bulks[1].Ns != nil || c.Err != nil || c.NoTime != nil {
		t.Errorf("%+v, errors %v, %v", c.Bulks, c.Err, c.NoTime)
	}
	c = CellResult{Cell: Cell{Kernel: "k"}, Measurement: &Measurement{Bulks: []BulkCount{{Bulk: 1}}}}
	c.addTime(nil, errors.New("it did not boot"))
	l := Record([]CellResult{c}, []Row{{Scenario: "redirect-map", Bulk: 1}}, nil)
	if c.Err != nil || l.Rows[0].Refused != "" || len(l.Warnings) == 0 ||
		l.Warnings[0].Text != "no time: it did not boot" || l.Warnings[0].Row != c.Name() {
		t.Errorf("error %v, rows %+v, warnings %+v", c.Err, l.Rows, l.Warnings)
	}
}
