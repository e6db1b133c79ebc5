package redirect

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/rounds"
)

func op(t *testing.T, s string) Operation {
	t.Helper()
	o, err := ParseOperation(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestParseOperation(t *testing.T) {
	for _, s := range []string{"none", "read", "swap-macs", "parse", "spin:0", "spin:7", "spin:10000"} {
		if got := op(t, s).String(); got != s {
			t.Errorf("%s reads as %s", s, got)
		}
	}
	for _, s := range []string{"", "None", "spin", "spin:", "spin:-1", "spin:10001", "spin:1x", "parse "} {
		if _, err := ParseOperation(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func TestPlanRows(t *testing.T) {
	p := Plan{Scenarios: []Scenario{Map, Drop}, Bulks: []int{64, 1, 64}, Operations: []Operation{{}, op(t, "parse")}}
	var names []string
	for _, r := range p.Rows() {
		names = append(names, r.Name())
	}
	want := []string{
		"redirect-map/bulk=64", "redirect-map/bulk=1",
		"redirect-map/bulk=64/operation=parse", "redirect-map/bulk=1/operation=parse",
		"drop/bulk=64", "drop/bulk=1",
		"drop/bulk=64/operation=parse", "drop/bulk=1/operation=parse",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	// The drop chains serve as those without the hop.
	if n := len(p.chains()); n != 4 {
		t.Errorf("%d chains, want 4", n)
	}
	p = Plan{Mode: Generic, Size: 1000, Layout: TwoCore, Bulks: []int{3}}
	if got, want := p.Rows()[0].Name(), "redirect-map/bulk=3/mode=generic/size=1000/place=two-core"; got != want {
		t.Errorf("name is %s, want %s", got, want)
	}
}

func TestPlanValidate(t *testing.T) {
	var many []Operation
	for _, s := range []string{"none", "read", "swap-macs", "parse", "spin:1", "spin:2"} {
		many = append(many, op(t, s))
	}
	for _, test := range []struct {
		plan Plan
		want string // in the error; empty for none
	}{
		{Plan{}, ""},
		{Plan{Scenarios: Scenarios()}, ""},
		{Plan{Bulks: []int{256}}, ""},
		{Plan{Bulks: []int{0}}, "bulk 0"},
		{Plan{Bulks: []int{1, 1000}}, "bulk 1000"},
		{Plan{Scenarios: []Scenario{"redirct"}}, `"redirct"`},
		{Plan{Mode: "skb"}, `"skb"`},
		{Plan{Layout: "three-core"}, `"three-core"`},
		{Plan{Size: 20}, "frame size 20"},
		{Plan{Schedule: rounds.Schedule{Rounds: -1}}, "-1 rounds"},
		{Plan{Schedule: rounds.Schedule{Duration: time.Millisecond}}, "1ms"},
		{Plan{Scenarios: Scenarios(), Operations: many}, "dispatcher"},
	} {
		err := test.plan.Validate()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%+v: %v", test.plan, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%+v: error %v does not name %q", test.plan, err, test.want)
		}
	}
}

func TestDevicePairValidate(t *testing.T) {
	for _, d := range []DevicePair{{}, {In: "a"}, {Out: "a"}, {In: "a", Out: "a"}, {In: "a", Out: "b", Scenario: Drop},
		{In: "a", Scenario: CPU}, {Out: "b", Scenario: Drop},
		{In: "a", Out: "b", Schedule: rounds.Schedule{Rounds: -1}}} {
		if err := d.Validate(); err == nil {
			t.Errorf("%+v: no error", d)
		}
	}
	for _, d := range []DevicePair{{In: "a", Out: "b"}, {In: "a", Scenario: Drop}, {In: "a", Scenario: TX}} {
		if err := d.Validate(); err != nil {
			t.Error(err)
		}
	}
}
