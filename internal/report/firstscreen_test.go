package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

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
	screen := &FirstScreen{Doc: doc}
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

// -v adds all that the answer is made of, each part under a heading, in this order; without
// it the answer stands alone.
func TestVerboseScreen(t *testing.T) {
	t.Parallel()
	doc := reporttest.Run()
	var b bytes.Buffer
	screen := &FirstScreen{Doc: doc, Profiled: "a chain", Verbose: true,
		Findings: []host.Finding{{Name: "call-sites", Found: "through thunks"}}}
	if err := screen.Write(&b, Options{}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	reporttest.Fits(t, text, 80)
	short := part(func(p *printer) { p.answer(doc, conclusion.NewAnswer(doc)) })
	if !strings.HasPrefix(text, short) {
		t.Errorf("the answer is not first:\n%s", text)
	}
	for _, want := range []string{"\nthe machine\n", "inventory", "\nall rates\n", "frames/xmit", "\nlargest prices of a call\n",
		"In 2018", "\nall stages\n", "where the 127 ns of a chain go", "\nworth trying, ns a packet\n", "this guest does not see it",
		"\navoid, ns a packet\n", "a 49th XDP program"} {
		_, after, ok := strings.Cut(text, want)
		if !ok {
			t.Fatalf("%q is missing, or not where it belongs:\n%s", want, b.String())
		}
		text = after
	}
	b.Reset()
	screen.Verbose = false
	if err := screen.Write(&b, Options{}); err != nil || b.String() != short {
		t.Errorf("error %v, text:\n%s", err, b.String())
	}
}
