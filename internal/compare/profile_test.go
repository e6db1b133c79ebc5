package compare

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
)

func changesOf(c *record.ProfileComparison) map[string]record.ProfileChange {
	changes := make(map[string]record.ProfileChange)
	for _, row := range c.Rows {
		changes[row.Name] = row
	}
	return changes
}

func TestCompareProfiles(t *testing.T) {
	old := recordtest.ProfileOf("a", 1, 20, recordtest.Way...)
	c := Profiles(old, recordtest.ProfileOf("b", 2, 20, recordtest.ChangedWay(180)...), Options{Threshold: 5})
	var names []string
	for _, row := range c.Rows {
		names = append(names, row.Name)
		if d := row.Difference; d == nil || d.Unit != "ns" || d.N != 20 || math.Abs(d.Median-(row.New.Median-row.Old.Median)) > 1e-9 {
			t.Errorf("%s: %+v is not %v less %v", row.Name, d, row.New, row.Old)
		}
	}
	if got := strings.Join(names, " "); got != "packet receive program transmit locks dma unattributed" {
		t.Error(got)
	}
	changes := changesOf(c)
	for name, want := range map[string]string{"packet": stat.Slower, "transmit": stat.Slower, "dma": stat.NoDifference} {
		row := changes[name]
		if !strings.HasPrefix(row.Verdict, want) || row.Regression != (want == stat.Slower) {
			t.Errorf("%s: %s, regression %v, want %s", name, row.Verdict, row.Regression, want)
		}
	}
	if d := changes["transmit"].Difference; d.Low > 60 || d.High < 60 || d.High-d.Low > 100 {
		t.Errorf("transmit: %+v, want 60 ns", d)
	}
	if d := changes["dma"].Difference; d.Median != 0 || d.High <= 0 || !strings.HasSuffix(changes["dma"].Verdict, " ns)") {
		t.Errorf("a stage without samples: %+v, %s", d, changes["dma"].Verdict)
	}
	if changes["receive"].Regression || !c.Regressed() {
		t.Errorf("receive regressed %v, any %v", changes["receive"].Regression, c.Regressed())
	}
	// The threshold is in percent of the packet, not of the stage: 60 of 225 ns
	// are 27 % of it.
	if c := Profiles(old, recordtest.ProfileOf("b", 2, 20, recordtest.ChangedWay(180)...),
		Options{Threshold: 30}); c.Regressed() || changesOf(c)["transmit"].Verdict != stat.Slower {
		t.Errorf("threshold of 30 %%: %+v", changesOf(c)["transmit"])
	}
	if c := Profiles(recordtest.ProfileOf("b", 2, 20, recordtest.ChangedWay(180)...), old,
		Options{Threshold: 2}); c.Regressed() || changesOf(c)["transmit"].Verdict != stat.Faster {
		t.Errorf("the other way: %+v", changesOf(c)["transmit"])
	}
	if c := Profiles(old, old, Options{Threshold: 30}); c.Regressed() ||
		!strings.HasPrefix(c.Rows[0].Verdict, stat.NoDifference) || len(c.Causes) > 0 {
		t.Errorf("with itself: %+v", c)
	}
	// Too few rounds prove nothing.
	c = Profiles(recordtest.ProfileOf("a", 1, 5, recordtest.Way...),
		recordtest.ProfileOf("b", 2, 5, recordtest.ChangedWay(500)...), Options{Threshold: 2})
	for _, row := range c.Rows {
		if row.Verdict != stat.CannotTell || row.Regression {
			t.Errorf("five rounds: %s: %s", row.Name, row.Verdict)
		}
	}
}

func TestCompareProfilesMissing(t *testing.T) {
	old := recordtest.ProfileOf("a", 1, 10, recordtest.Stage{Name: "gone", Ns: 20}, recordtest.Stage{Name: "receive", Ns: 60})
	new := recordtest.ProfileOf("b", 2, 10, recordtest.Stage{Name: "added", Ns: 30}, recordtest.Stage{Name: "receive", Ns: 60})
	c := Profiles(old, new, Options{Threshold: 2})
	var got []string
	for _, row := range c.Rows {
		got = append(got, row.Name+": "+row.Missing)
		if missing := row.Missing != ""; missing != (row.Difference == nil) || missing != (row.Verdict == "") ||
			missing != (row.Old == nil || row.New == nil) {
			t.Errorf("%+v", row)
		}
	}
	if want := "packet: |added: only in new|receive: |unattributed: |gone: only in old"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCompareProfilesWarnings(t *testing.T) {
	old, new := recordtest.ProfileOf("a", 1, 10, recordtest.Way...), recordtest.ProfileOf("b", 2, 10, recordtest.Way...)
	old.Warnings = []record.Warning{{Row: "locks", Text: "few samples"}}
	new.Warnings = []record.Warning{{Text: "4 samples were lost"}}
	new.Incomplete = true
	new.Settings = map[string]string{"scenario": "redirect-map", "bulk": "16", "in": "eth0"}
	new.Sampling.Event = "cycles:pp"
	new.Host.Kernel = "6.18"
	c := Profiles(old, new, Options{Threshold: 2})
	var got []string
	for _, w := range c.Warnings {
		got = append(got, w.Row+"|"+w.Text)
	}
	for _, want := range []string{
		"|the runs were asked for different things: bulk (64, 16), in (default, eth0)",
		"|old was sampled by cpu-clock, new by cycles:pp: ",
		"|two runs at different times: ",
		"|the machine's speed is unknown: neither record has references",
		"locks|old: few samples",
		"|new: 4 samples were lost",
		"|new: the run was stopped before its end",
	} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if len(got) != 7 || len(c.Causes) != 1 || c.Causes[0].Name != "kernel" || !c.Incomplete {
		t.Errorf("%q, causes %+v", got, c.Causes)
	}
}

func TestProfileComparisonJSON(t *testing.T) {
	c := Profiles(recordtest.ProfileOf("a", 1, 10, recordtest.Way...),
		recordtest.ProfileOf("b", 2, 10, recordtest.ChangedWay(180)...), Options{Threshold: 2})
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Schema, Kind, Run string
		Threshold         float64
		Old               record.Origin
		Causes            []record.Cause
		Rows              []struct {
			Name       string
			Old        stat.Quantity
			Difference struct {
				Median, Low, High, P, Smallest *float64
				Unit                           string
			}
			Regression bool
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Schema != record.Schema || got.Kind != "compare" || got.Run != "b" || got.Old.Run != "a" ||
		got.Threshold != 2 || got.Causes == nil || len(got.Rows) != 7 {
		t.Errorf("%s", b)
	}
	if d := got.Rows[0].Difference; got.Rows[0].Name != "packet" || d.Unit != "ns" || d.Low == nil ||
		d.Smallest == nil || !got.Rows[0].Regression {
		t.Errorf("%s", b)
	}
}
