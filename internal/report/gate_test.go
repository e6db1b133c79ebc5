package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

// gates are verdicts of each kind.
func gates(t *testing.T) map[string]*record.Gate {
	t.Helper()
	verdicts := make(map[string]*record.Gate)
	for name, change := range map[string]func(*record.Lab){
		"gate within": func(l *record.Lab) { *l.Rows[0].Instructions -= 4 },
		"gate beyond": func(l *record.Lab) {
			*l.Rows[0].Instructions += 10
			*l.Rows[0].CallsPerPacket++
			l.Rows[0].Sites = append(l.Rows[0].Sites, record.LabSite{Function: "dev_map_enqueue", Target: "dev_map_check", PerPacket: 1})
			l.Rows[0].Functions[0].PerPacket = 3
			l.Rows[1].Refused, l.Rows[1].Instructions, l.Rows[1].CallsPerPacket = "packet counts disagree", nil, nil
		},
		"gate cannot tell": func(l *record.Lab) { l.Rows[0].Build.Compiler, l.Rows[1].Build.Config = "clang 19", "" },
		"gate no boot": func(l *record.Lab) {
			for i := range l.Rows {
				l.Rows[i].Refused, l.Rows[i].Instructions, l.Rows[i].CallsPerPacket = "boot guest 6.12.118: it took more than 5m0s", nil, nil
			}
		},
	} {
		base, now := recordtest.GateLab("a"), recordtest.GateLab("b")
		for i := range now.Rows {
			now.Rows[i].Release = "6.12.118-dirty"
		}
		change(now)
		g, err := compare.Gate(base, now, compare.GateOptions{
			Kernel: ".", Price: &stat.Quantity{Median: 11.5, Low: 10.7, High: 12.4, N: 7, Unit: "ns"}, PriceOf: "AMD EPYC",
			PricedOn: host.Fingerprint{IndirectThunk: "retpoline"},
			Max:      []compare.Allowance{{Count: "instructions", More: 0.25, Percent: true}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if name == "gate no boot" {
			g.Console = []string{"[ 0.000000] the kernel found no program", "\x1b[2J it ends"}
		}
		verdicts[name] = g
	}
	return verdicts
}

// What became of a branch is at the end of its line, and never cut off.
func TestGateLongNames(t *testing.T) {
	t.Parallel()
	for _, g := range gates(t) {
		if len(g.Rows) == 0 {
			continue
		}
		g.Rows[0].Sites = []record.GateChange{{Function: strings.Repeat("f", 70), Target: strings.Repeat("g", 70), Old: 0.5}}
		var b bytes.Buffer
		if err := Gate(&b, Options{Width: 80}, g); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), 80)
		if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), "0.5 → 0, gone") {
			t.Errorf("%s", b.String())
		}
	}
}

func TestGateGolden(t *testing.T) {
	t.Parallel()
	for name, g := range gates(t) {
		g.NameFiles("base.json", "")
		var b bytes.Buffer
		if err := Gate(&b, Options{Width: 80}, g); err != nil {
			t.Fatal(err)
		}
		file := map[string]string{"gate within": "gate-within", "gate beyond": "gate-beyond", "gate cannot tell": "gate-cannot-tell",
			"gate no boot": "gate-no-boot"}[name]
		reporttest.Golden(t, file+".txt", b.String())
		for format, write := range map[string]func(*bytes.Buffer, record.Changes) error{
			"junit": func(b *bytes.Buffer, c record.Changes) error { return JUnitComparison(b, c) },
			"ktap":  func(b *bytes.Buffer, c record.Changes) error { return KTAPComparison(b, c) },
		} {
			b.Reset()
			if err := write(&b, g); err != nil {
				t.Fatal(err)
			}
			reporttest.Golden(t, file+"."+format, b.String())
		}
	}
}
