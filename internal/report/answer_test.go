package report

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

// runs are records of run in each state that a machine or a user brings about.
func runs() map[string]*record.Document[record.BenchRow] {
	const disagree = "packet counts disagree: 1048576 sent, 1048576 redirected, 0 received; xdp_redirect: EOPNOTSUPP " +
		"(eth1's peer has no XDP program)"
	refuse := func(row *record.BenchRow) {
		*row = record.BenchRow{Name: row.Name, Labels: row.Labels, Refused: disagree}
	}
	out := make(map[string]*record.Document[record.BenchRow])
	for name, change := range map[string]func(*record.Document[record.BenchRow]){
		"quiet": func(*record.Document[record.BenchRow]) {},
		"quick": func(d *record.Document[record.BenchRow]) {
			d.Stages, d.Profile = nil, nil
			d.Warn("", "no stages: they take a run of 31s")
		},
		"refused-one": func(d *record.Document[record.BenchRow]) { refuse(&d.Rows[2]) },
		"refused-all": func(d *record.Document[record.BenchRow]) {
			for i := range d.Rows {
				refuse(&d.Rows[i])
			}
			d.Prices, d.Stages, d.Profile, d.Conclusion = nil, nil, nil, new(record.Conclusion)
		},
		"no-prices": func(d *record.Document[record.BenchRow]) { // Linux 5.18, and other machines without BTF or the dispatcher
			d.Prices, d.Conclusion = nil, new(record.Conclusion)
			d.Warn("", "no prices: x86-64 is missing: tax decodes no other code yet")
		},
		"own-programs": func(d *record.Document[record.BenchRow]) {
			d.Programs = reporttest.ProgramList().Rows[:2]
			old := record.ProgramRow{Name: "id:9", ID: 9, Type: "xdp", Dispatcher: record.OutOfDispatcher,
				Attached: []record.Attachment{{Device: "eth2", Mode: record.GenericMode}}}
			d.Programs = append(d.Programs, old)
		},
		"pmu": func(d *record.Document[record.BenchRow]) { d.Profile.Sampling.Event = "cycles:pp" },
		"incomplete": func(d *record.Document[record.BenchRow]) {
			d.Incomplete = true
			for i := range d.Rows {
				row := &d.Rows[i]
				row.Rounds, row.Samples = row.Rounds[:2], row.Samples[:2]
				for _, q := range []*stat.Quantity{row.Hop, row.Ns, row.Mpps} {
					q.Low, q.High, q.N = math.NaN(), math.NaN(), 2
				}
			}
			d.Prices, d.Stages, d.Profile, d.Conclusion = nil, nil, nil, new(record.Conclusion)
		},
		"stopped-at-once": func(d *record.Document[record.BenchRow]) {
			d.Incomplete = true
			for i := range d.Rows {
				refuse(&d.Rows[i])
				d.Rows[i].Refused = "not measured: the run ended before it"
			}
			d.Prices, d.Stages, d.Profile, d.Conclusion = nil, nil, nil, new(record.Conclusion)
		},
		"busy": func(d *record.Document[record.BenchRow]) {
			d.Rows[2].Hop = &stat.Quantity{Median: 31, Low: 12, High: 77, N: 7, Unit: "ns"}
			d.Warn("redirect-map/bulk=16", "disturbed: the median window took 64 % longer than the number")
			d.Warn("redirect-map/bulk=16", "drifted by +12 % from first to last round: the interval is too narrow")
			d.Warn("", "the hypervisor took 14.1 % of the CPUs' time during the run")
			d.Warn("", "stages: sampling took 47.5 % of the throughput: lower --rate")
		},
		"much-to-do": func(d *record.Document[record.BenchRow]) {
			v := d.Conclusion
			for i := range 4 {
				v.Win = append(v.Win, record.Gain{What: fmt.Sprintf(
					"sysctl net.core.setting_%d=1, and a second program, in the devmap, that takes two lines", i),
					Now: "two programs of others", Verb: "check"})
				v.Lose = append(v.Lose, v.Lose[i])
			}
			for i := range 6 {
				d.Stages = append(d.Stages, record.ProfileRow{Name: "dma", Ns: reporttest.Around(float64(i+1), 0.5, "ns")})
			}
		},
		"old": func(d *record.Document[record.BenchRow]) { // a record from before: what and why in one text
			d.Settings = nil
			d.Conclusion.Win = []record.Gain{{What: "raise the bulk from 1 to 64: more frames a poll", Ns: reporttest.Around(88, 4, "ns")}}
		},
		"nothing": func(d *record.Document[record.BenchRow]) { *d = record.Document[record.BenchRow]{} },
	} {
		doc := reporttest.Run()
		change(doc)
		out[name] = doc
	}
	return out
}

// The answer takes at most 24 lines in each state and at each width, and never wraps on the
// terminal.
func TestAnswerFits(t *testing.T) {
	t.Parallel()
	for name, doc := range runs() {
		for width := 40; width <= 200; width++ {
			text := answerText(Options{Width: width}, doc)
			reporttest.Fits(t, text, width)
			if n := strings.Count(text, "\n"); n > answerLines {
				t.Errorf("%s, %d columns: %d lines:\n%s", name, width, n, text)
			}
			if strings.Contains(text, "NaN") {
				t.Errorf("%s:\n%s", name, text)
			}
			if width >= 60 && !strings.Contains(text, "more ") {
				t.Errorf("%s, %d columns: where to read more is missing:\n%s", name, width, text)
			}
		}
	}
}

func answerText(opts Options, doc *record.Document[record.BenchRow]) string {
	p := newPrinter(opts)
	p.answer(doc, conclusion.NewAnswer(doc))
	return p.buf.String()
}

func TestAnswerGolden(t *testing.T) {
	t.Parallel()
	for name, doc := range runs() {
		reporttest.Golden(t, "answer-"+name+".txt", answerText(Options{Width: 80}, doc))
	}
	reporttest.Golden(t, "answer-quiet-60.txt", answerText(Options{Width: 60}, runs()["quiet"]))
	reporttest.Golden(t, "answer-quiet-40.txt", answerText(Options{Width: 40}, runs()["quiet"]))
}

// On a terminal the answer is bold, what is of second importance dim, advice colored; the
// text is the same as without.
func TestAnswerColors(t *testing.T) {
	t.Parallel()
	doc := runs()["quiet"]
	text := answerText(Options{Width: 80, Color: true}, doc)
	for _, want := range []string{bold + "A redirect costs", dim + "sure?", green + "try", yellow + "avoid"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
	plain := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(text, "")
	if want := answerText(Options{Width: 80}, doc); plain != want {
		t.Errorf("without escapes it is\n%s\nnot\n%s", plain, want)
	}
}

// What matters least is left out first.
func TestFit(t *testing.T) {
	t.Parallel()
	all := []block{{rankClaim, []string{"a", "b"}}, {rankSpace, []string{""}}, {rankTry, []string{"c"}}, {rankSpace, []string{""}}}
	for n, want := range map[int]string{6: "a|b||c|", 5: "a|b||c|", 4: "a|b||c", 3: "a|b|c", 2: "a|b", 1: "a"} {
		if got := strings.Join(fit(all, n), "|"); got != want {
			t.Errorf("%d lines: %s, want %s", n, got, want)
		}
	}
}

// The rates stand on the screen before there is an answer.
func TestRates(t *testing.T) {
	t.Parallel()
	doc := runs()["quiet"]
	doc.Prices, doc.Stages, doc.Profile, doc.Conclusion = nil, nil, nil, nil
	var b strings.Builder
	n, err := Rates(&b, Options{Width: 80}, doc)
	if err != nil || n != strings.Count(b.String(), "\n") {
		t.Errorf("%d lines, error %v:\n%s", n, err, b.String())
	}
	if text := b.String(); !strings.HasPrefix(text, "A redirect costs 24.1 ns a packet") || !strings.Contains(text, "bulk  Mpps") ||
		strings.Contains(text, "not measured") {
		t.Errorf("%s", text)
	}
}
