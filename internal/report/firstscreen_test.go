package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestVerdictGolden(t *testing.T) {
	t.Parallel()
	q := func(median, low, high float64, unit string) *stat.Quantity {
		return &stat.Quantity{Median: median, Low: low, High: high, N: 7, Unit: unit}
	}
	v := &record.Conclusion{
		Share: q(1.44, 1.41, 1.48, "%"), Tax: q(1.5, 1.47, 1.55, "ns"),
		Largest: &record.ProfileRow{Name: "receive", Ns: q(57.3, 46.5, 68.1, "ns")},
		Win: []record.Gain{
			{What: "raise the bulk from 1 to 64: more frames a poll, so that one call serves them",
				Ns: q(278, 267, 401, "ns"), Verb: "bench"},
			{What: "count calls", Ns: q(150, 140, 160, "ns"), AtMost: true, Verb: "profile"},
		},
		Lose: []record.Gain{{What: "a second program, in the devmap", Ns: q(23.8, 16.2, 27.3, "ns"), Verb: "tax"}},
	}
	var b bytes.Buffer
	p := newPrinter(Options{Width: 80})
	screen := &FirstScreen{Doc: &record.Document[record.BenchRow]{RunParts: record.RunParts{Conclusion: v}},
		Ladder: "One core sends 3.92 Mpps through the chain at bulk 64."}
	screen.verdict(p)
	screen.verbs(p)
	if err := p.flush(&b); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "verdict.txt", b.String())
}

// part is a part of a screen by itself.
func part(write func(p *printer)) string {
	p := newPrinter(Options{Width: 80})
	write(p)
	return p.buf.String()
}

// The largest price of each of three families, and nothing when there is none.
func TestLargestPricesGolden(t *testing.T) {
	t.Parallel()
	doc := reporttest.FullBench()
	doc.Prices = reporttest.Tax().Rows
	doc.Warnings = append(doc.Warnings,
		record.Warning{Row: "tracepoint/2", Text: "drifted"}, record.Warning{Row: "control", Text: "not shown"})
	screen := &FirstScreen{Doc: doc, Tax: "A closing line."}
	text := part(screen.largestPrices)
	reporttest.Fits(t, text, 80)
	reporttest.Golden(t, "prices.txt", text)
	doc.Prices = doc.Prices[:1]
	if text := part(screen.largestPrices); text != "" {
		t.Errorf("without a price: %q", text)
	}
	// Warnings of prices are not the ladder's.
	if text := part(screen.ladder); strings.Contains(text, "not shown") {
		t.Errorf("%s", text)
	}
}

func TestScreenStagesGolden(t *testing.T) {
	t.Parallel()
	p := reporttest.Profile()
	doc := &record.Document[record.BenchRow]{RunParts: record.RunParts{Stages: p.Rows, Profile: &p.ProfileParts}}
	text := part((&FirstScreen{Doc: doc, Profiled: "redirect-map/bulk=16"}).stages)
	reporttest.Fits(t, text, 80)
	reporttest.Golden(t, "stages.txt", text)
	if text := part((&FirstScreen{Doc: reporttest.FullBench()}).stages); text != "" {
		t.Errorf("without a profile: %q", text)
	}
}

// The parts stand on the screen in their order.
func TestFirstScreen(t *testing.T) {
	t.Parallel()
	doc, p := reporttest.FullBench(), reporttest.Profile()
	doc.Prices, doc.Stages, doc.Profile, doc.Conclusion = reporttest.Tax().Rows, p.Rows, &p.ProfileParts,
		new(record.Conclusion)
	var b bytes.Buffer
	screen := &FirstScreen{Doc: doc, Ladder: "One core.", Tax: "A closing line.", Profiled: "a chain"}
	if err := screen.Write(&b, Options{}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	reporttest.Fits(t, text, 80)
	for _, want := range []string{"bulk  ", "largest prices", "A closing line.", "where the 127 ns of a chain go",
		"verdict: One core.", "More of each part"} {
		_, after, ok := strings.Cut(text, want)
		if !ok {
			t.Fatalf("%q is missing, or not where it belongs:\n%s", want, b.String())
		}
		text = after
	}
}
