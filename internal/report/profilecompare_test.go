package report

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// stagesDoc is a profile whose transmit takes ns per packet.
func stagesDoc(run string, seed uint64, ns float64) *record.Profile {
	const rounds = 25
	r := rand.New(rand.NewPCG(seed, 4))
	p := new(record.Profile)
	p.Packet = &stat.Quantity{Unit: "ns", N: rounds}
	p.Schema, p.Kind, p.Run, p.Time = record.Schema, "profile", run, time.Date(2026, 3, 4, 5, int(seed), 0, 0, time.UTC)
	p.Settings = map[string]string{"scenario": "redirect-map"}
	p.Host = host.Fingerprint{Kernel: "6.12", IndirectThunk: "plain"}
	p.Sampling = record.Sampling{Event: "cpu-clock", Rate: 10_000, Samples: 20_000}
	for _, s := range []struct {
		name string
		ns   float64
	}{{"generator", 80}, {"receive", 60}, {"program", 40}, {"transmit", ns}, {"locks", 0.2}, {"dma", 0}, {"unattributed", -1}} {
		row := record.ProfileRow{Name: s.name, Ns: &stat.Quantity{Unit: "ns", N: rounds}}
		for i := range rounds {
			x := s.ns + 0.01*s.ns*r.NormFloat64()
			row.Samples, row.Rounds = append(row.Samples, x), append(row.Rounds, i)
			row.Ns.Median += x / rounds
		}
		row.Ns.Low, row.Ns.High = row.Ns.Median-math.Abs(s.ns)/50, row.Ns.Median+math.Abs(s.ns)/50
		p.Packet.Median += row.Ns.Median
		p.Rows = append(p.Rows, row)
	}
	p.Packet.Low, p.Packet.High = p.Packet.Median-2, p.Packet.Median+2
	return p
}

func TestProfileComparisonGolden(t *testing.T) {
	old, new := stagesDoc("a", 1, 120), stagesDoc("b", 2, 150)
	old.Rows[2].Name = "sink" // only there
	old.Warnings = []record.Warning{{Row: "locks", Text: "few samples"}}
	new.Sampling.Event = "cycles:pp"
	new.Host.Kernel = "6.18"
	for name, tt := range map[string]struct {
		old, new *record.Profile
		opts     compare.Options
		width    int
	}{
		"compare-profile.txt":      {old, new, compare.Options{Threshold: 2}, 80},
		"compare-profile-60.txt":   {old, new, compare.Options{Threshold: 2}, 60},
		"compare-profile-same.txt": {stagesDoc("a", 1, 120), stagesDoc("b", 2, 120), compare.Options{Threshold: 5}, 0},
	} {
		c := compare.Profiles(tt.old, tt.new, tt.opts)
		c.Old.File, c.New.File = "old.json", "new.json"
		var b bytes.Buffer
		if err := ProfileComparison(&b, Options{Width: tt.width}, c); err != nil {
			t.Fatal(err)
		}
		width := tt.width
		if width == 0 {
			width = 80
		}
		fits(t, b.String(), width)
		golden(t, name, b.String())
	}
}

func TestProfileComparisonColor(t *testing.T) {
	for _, width := range []int{80, 40} {
		c := compare.Profiles(stagesDoc("a", 1, 120), stagesDoc("b", 2, 150), compare.Options{Threshold: 2})
		var b bytes.Buffer
		if err := ProfileComparison(&b, Options{Color: true, Width: width}, c); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(b.String(), red+"slower"); got != 2 {
			t.Errorf("%d red verdicts, want those of packet and transmit:\n%s", got, b.String())
		}
	}
}

// Names and warnings come from files.
func TestProfileComparisonHostile(t *testing.T) {
	evil := "\x1b[2J\x07\nslower"
	doc := stagesDoc("a", 1, 120)
	doc.Warnings = []record.Warning{{Text: evil}}
	doc.Sampling.Event = evil
	doc.Rows[0].Name, doc.Rows[1].Name = evil, strings.Repeat("ä", 300)
	c := compare.Profiles(doc, stagesDoc("b", 2, 150), compare.Options{Threshold: 2})
	c.Rows = append(c.Rows, record.ProfileChange{Name: evil, Missing: evil})
	var b bytes.Buffer
	if err := ProfileComparison(&b, Options{}, c); err != nil {
		t.Fatal(err)
	}
	fits(t, b.String(), 80)
	if err := ProfileComparison(broken{}, Options{}, c); err == nil || !strings.Contains(err.Error(), "write report: pipe is gone") {
		t.Error(err)
	}
}
