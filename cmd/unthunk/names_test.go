package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/progcode"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/prog"
)

// Whatever files, kernels and programs are called, and whatever a kernel says of itself: what a verb records can be saved and loaded.
func TestHostileNamesSaved(t *testing.T) {
	t.Parallel()
	load := func(kind string) *record.Saved {
		s, err := record.Load(filepath.Join("testdata", "saved", kind+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	long := strings.Repeat("é", 3000)
	for _, name := range []string{"a\u202eb\u009b2J\x1b", "a\xff", long} {
		path := filepath.Join("/tmp", name)
		prices := recordtest.TaxDocument("prices", 1, 1)
		priced, err := conclusion.PricesOf(path, record.NewSaved(prices))
		if err != nil {
			t.Fatal(err)
		}
		list := load("prog-list").Programs()
		list.Costs = conclusion.ProgramCosts(list.Rows, &list.ProgramListParts, priced)
		code := load("prog-xray").ProgXray()
		progcode.Price(code, prices.Rows, path)
		cost := recordtest.Cost("run", 1, 1)
		replay := replayFlags{packets: path}
		cost.Packets = replay.source(&prog.Packets{})
		check := record.New[host.Finding]("check", host.Fingerprint{})
		check.Rows = record.Findings([]host.Finding{{Name: "nic-" + name, Level: host.LevelOK, Found: name, Means: name, Do: name}})
		agent := recordtest.Agent("run", 1, 12)
		agent.Findings = check.Rows
		base := recordtest.GateLab(record.Name(path))
		opts, err := gateFlags{}.options(path)
		if err != nil {
			t.Fatal(err)
		}
		opts.Price, opts.PriceOf, opts.PricedOn.IndirectThunk = recordtest.Quantity(3, 2, 4, "ns"), path, name
		gate, err := compare.Gate(base, base, opts)
		if err != nil {
			t.Fatal(err)
		}
		old, new := recordtest.TaxDocument("a", 1, 1), recordtest.TaxDocument("b", 2, 1)
		for _, r := range []*record.TaxRow{&old.Rows[0], &new.Rows[0]} {
			*r = record.TaxRow{Name: r.Name, Labels: r.Labels, Refused: name}
		}
		changes, err := compare.Records(record.NewSaved(old), record.NewSaved(new), compare.Options{Threshold: 2})
		if err != nil {
			t.Fatal(err)
		}
		for kind, doc := range map[string]record.Doc{"prog-list": list, "prog-xray": code, "prog-cost": cost, "check": check, "agent": agent,
			"gate": gate, "compare": changes} {
			b, err := record.Encode(doc)
			if err != nil {
				t.Errorf("%s of %.20q: %v", kind, name, err)
				continue
			}
			if s, err := record.Parse(b); err != nil || s.Kind != kind {
				t.Errorf("%s of %.20q: %v", kind, name, err)
			}
		}
	}
}
