package record

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/stat"
)

func TestConclusionCheck(t *testing.T) {
	ns := func(median, low, high float64) *stat.Quantity {
		return &stat.Quantity{Median: median, Low: low, High: high, N: 7, Unit: "ns"}
	}
	good := Conclusion{
		Share: &stat.Quantity{Median: 2, Low: 1, High: 3, N: 7, Unit: "%"}, Tax: ns(2, 1, 3),
		Largest: &ProfileRow{Name: "receive", Ns: ns(50, 45, 55)}, Win: []Gain{{What: "use IBRS", Verb: "check", Ns: ns(2, 1, 3)}},
	}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	// What a run found and did not price has no number.
	good.Win = append(good.Win, Gain{What: "sysctl kernel.bpf_stats_enabled=0", Now: "bpf-stats is on", Verb: "check"})
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]*Conclusion{
		"no text":  {Win: []Gain{{Verb: "tax", Ns: ns(1, 1, 1)}}},
		"now":      {Win: []Gain{{What: "x", Now: "x\x1b", Verb: "tax"}}},
		"why":      {Win: []Gain{{What: "x", Why: strings.Repeat("x", MaxText+1), Verb: "tax"}}},
		"text":     {Win: []Gain{{What: "x\x1b", Verb: "tax", Ns: ns(1, 1, 1)}}},
		"interval": {Lose: []Gain{{What: "x", Verb: "tax", Ns: ns(3, 1, 2)}}},
		"many":     {Win: make([]Gain, maxGains+1)},
	} {
		if err := bad.check(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
