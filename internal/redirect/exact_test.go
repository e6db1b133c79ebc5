package redirect

import (
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
)

// Every scenario that guests count moves packets, all of which arrive, also in generic mode where there is one.
func TestBuildExact(t *testing.T) {
	testutil.Root(t)
	cpu, err := rounds.CPU{}.Pick()
	if err != nil {
		t.Fatal(err)
	}
	var specs []ChainSpec
	for _, s := range slices.Concat(Scenarios(), []Scenario{Egress, CPUPass, CPUGRO, SendXSK, SKBMap, SKBTX, SKBDrop, SKBPass,
		FragsMap, FragsTX, FragsDrop}) {
		specs = append(specs, ChainSpec{Scenario: s, Mode: Native, Size: DefaultSize, Layout: OneCore})
	}
	for _, s := range []Scenario{Map, TX, Drop, Pass} {
		specs = append(specs, ChainSpec{Scenario: s, Mode: Generic, Size: DefaultSize, Layout: OneCore})
	}
	for _, spec := range specs {
		t.Run(string(spec.Mode)+"/"+string(spec.Scenario), func(t *testing.T) {
			lab, err := netlab.New(cpu)
			if err != nil {
				t.Fatal(err)
			}
			defer lab.Close()
			c, err := BuildExact(t.Context(), lab, Row{ChainSpec: spec}, cpu)
			testutil.SkipMissing(t, err)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			m, err := c.Measure(t.Context(), 16)
			if err != nil {
				t.Fatal(err)
			}
			m.SetWindow(128)
			span, ok, err := m.Span(t.Context())
			if err != nil || !ok || len(span.Windows) == 0 || span.Window != 128 {
				t.Errorf("%+v, %v, %v", span, ok, err)
			}
		})
	}
}
