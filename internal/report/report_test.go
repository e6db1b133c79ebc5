package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// golden compares got with a file of testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update accepts:\n%s", name, diff)
	}
}

// fits fails when a line is wider than width, ends in a blank or holds a
// control character.
func fits(t *testing.T, text string, width int) {
	t.Helper()
	for i, line := range strings.Split(text, "\n") {
		if n := utf8.RuneCountInString(line); n > width {
			t.Errorf("line %d has %d columns, not %d: %s", i+1, n, width, line)
		}
		if strings.TrimRight(line, " ") != line || strings.ContainsAny(line, "\x1b\t\r") {
			t.Errorf("line %d: %q", i+1, line)
		}
	}
}

func benchRow(r *rand.Rand, name, bulk string, ns, hop, frames float64) record.BenchRow {
	const rounds = 15
	row := record.BenchRow{
		Name: name, Labels: map[string]string{"bulk": bulk, "scenario": "redirect-map"},
		Counts: record.Counts{Sent: 1 << 20, Redirected: 1 << 20, Received: 1 << 20},
	}
	var mpps, hops []float64
	for i := range rounds {
		x := ns * math.Exp(0.03*r.NormFloat64())
		row.Samples, row.Rounds = append(row.Samples, x), append(row.Rounds, i)
		mpps = append(mpps, 1e3/x)
		hops = append(hops, hop*math.Exp(0.1*r.NormFloat64()))
	}
	q := func(xs []float64, unit string) *stat.Quantity {
		s := stat.Summarize(xs, unit)
		return &s
	}
	row.Ns, row.Mpps, row.FramesPerXmit = q(row.Samples, "ns"), q(mpps, "Mpps"), &stat.Quantity{Median: frames, Low: frames, High: frames, N: rounds, Unit: "frames"}
	if hop > 0 {
		row.Hop = q(hops, "ns")
	}
	return row
}

func benchDoc(run string, seed uint64, factor float64) *record.Document[record.BenchRow] {
	r := rand.New(rand.NewPCG(seed, 7))
	doc := &record.Document[record.BenchRow]{
		Schema: record.Schema, Kind: "bench", Run: run,
		Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Host: host.Fingerprint{
			CPU: "Intel(R) Xeon(R) CPU E5-1650 v4 @ 3.60GHz", Kernel: "6.12.9", Compiler: "gcc (Debian 14.2.0-19) 14.2.0",
			IndirectThunk: "retpoline", CallSites: "through thunks", Governor: "performance",
			Mitigations: map[string]string{"spectre-v2": "Mitigation: Retpolines; IBPB: conditional; RSB filling"},
		},
		Warnings: []record.Warning{},
	}
	for i, bulk := range []string{"1", "2", "4", "8", "16", "32", "64"} {
		ns := 60 + 1400/float64(int(1)<<i)
		doc.Rows = append(doc.Rows, benchRow(r, "redirect-map/bulk="+bulk, bulk, ns*factor, ns/2*factor, float64(int(1)<<min(i, 4))))
	}
	return doc
}

func fullDoc() *record.Document[record.BenchRow] {
	doc := benchDoc("one", 1, 1)
	r := rand.New(rand.NewPCG(2, 2))
	doc.Rows[6].Observer = &stat.Quantity{Median: 1.24, Low: 0.41, High: 2.07, N: 15, Unit: "ns"}
	doc.Rows = append(doc.Rows,
		benchRow(r, "redirect-map/bulk=64/operation=swap-macs/size=1500", "64", 140, 51, 16),
		record.BenchRow{Name: "redirect-xsk/bulk=1", Labels: map[string]string{"bulk": "1"}, Refused: "packet counts disagree: 1048576 sent, 1048576 redirected, 0 received; xdp_redirect: EOPNOTSUPP (ta's peer has no XDP program)"},
		benchRow(r, "drop/bulk=64", "64", 41, 0, 0),
		benchRow(r, "redirect-map/in=eth0/out=eth1", "", 83, 0, 11.5),
	)
	doc.Rows[9].FramesPerXmit = nil
	few := &doc.Rows[10]
	few.Samples, few.Rounds = few.Samples[:3], few.Rounds[:3]
	few.Ns.Low, few.Ns.High, few.Mpps.Low, few.Mpps.High = math.NaN(), math.NaN(), math.NaN(), math.NaN()
	doc.Warnings = []record.Warning{
		{Row: "redirect-map/bulk=64", Text: "two modes, near 96.2 and 154: the median may lie in either"},
		{Row: "redirect-map/bulk=64", Text: "drifted by +12 % from first to last round: the interval is too narrow"},
		{Row: "drop/bulk=64", Text: "two modes, near 96.2 and 154: the median may lie in either"},
		{Row: "redirect-map/in=eth0/out=eth1", Text: "3 rounds: a 95 % interval needs 6"},
		{Text: "the hypervisor took 4.1 % of the CPUs' time during the run"},
	}
	return doc
}

func TestBenchGolden(t *testing.T) {
	for _, width := range []int{0, 80, 60} {
		var b bytes.Buffer
		if err := Bench(&b, Options{Width: width}, fullDoc()); err != nil {
			t.Fatal(err)
		}
		if width == 0 {
			golden(t, "bench.txt", b.String())
			width = 80
		}
		fits(t, b.String(), width)
	}
	doc := benchDoc("one", 1, 1)
	doc.Rows, doc.Incomplete = nil, true
	var b bytes.Buffer
	if err := Bench(&b, Options{}, doc); err != nil {
		t.Fatal(err)
	}
	golden(t, "bench-incomplete.txt", b.String())
}

// newHost is another kernel, with another compiler, on the same CPU.
func newHost(f host.Fingerprint) host.Fingerprint {
	f.Kernel, f.Compiler, f.IndirectThunk = "6.18.2", "gcc (Debian 15.2.0-4) 15.2.0", "ITS thunk, at the end of its cache line: call rax is moved to the upper half"
	f.Mitigations = map[string]string{"spectre-v2": f.Mitigations["spectre-v2"], "indirect-target-selection": "Mitigation: Aligned branch/return thunks"}
	f.Governor = ""
	return f
}

// callRow is a call priced at ns.
func callRow(r *rand.Rand, name string, ns float64) record.TaxRow {
	row := record.TaxRow{Name: name}
	var with, without []float64
	for i := range 15 {
		without = append(without, 8+0.1*r.NormFloat64())
		with = append(with, without[i]+ns+0.1*r.NormFloat64())
		row.Samples, row.Rounds = append(row.Samples, with[i]-without[i]), append(row.Rounds, i)
	}
	w, o, p := stat.Summarize(with, "ns"), stat.Summarize(without, "ns"), stat.Shift(with, without, "ns")
	row.With, row.Without, row.Price = &w, &o, &p
	return row
}

func callsDoc(run string, seed uint64, factor float64) *record.Document[record.TaxRow] {
	bench := benchDoc(run, seed, 1)
	doc := &record.Document[record.TaxRow]{
		Schema: record.Schema, Kind: "tax", Run: run, Time: bench.Time, Host: bench.Host, Warnings: []record.Warning{},
	}
	r := rand.New(rand.NewPCG(seed, 8))
	for _, call := range []struct {
		name string
		ns   float64
	}{
		{"control", 0}, {"map-lookup/array", 0.9}, {"map-lookup/hash", 3.1}, {"napi-poll", 9}, {"ndo-xdp-xmit/bulk=1", 12.4},
		{"ndo-xdp-xmit/bulk=16", 12.5}, {"dispatcher/of-one-program/without-its-trampoline", 4}, {"packet/redirect-map", 31},
	} {
		if call.ns != 9 {
			call.ns *= factor
		}
		doc.Rows = append(doc.Rows, callRow(r, call.name, call.ns))
	}
	return doc
}

// compared compares two documents that can be.
func compared[Row record.BenchRow | record.TaxRow](t *testing.T, old, new *record.Document[Row], opts compare.Options) *record.Comparison {
	t.Helper()
	c, err := compare.Records(record.NewRecord(old), record.NewRecord(new), opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestComparisonGolden(t *testing.T) {
	old := benchDoc("one", 1, 1)
	slow := benchDoc("two", 3, 2.05)
	slow.Time = slow.Time.Add(50 * time.Hour)
	slow.Host = newHost(slow.Host)
	slow.Rows[2] = record.BenchRow{Name: slow.Rows[2].Name, Refused: "packet counts disagree: 1048576 sent, 1048576 redirected, 0 received"}
	slow.Rows = append(slow.Rows, benchRow(rand.New(rand.NewPCG(5, 5)), "tx/bulk=64", "64", 70, 0, 16))
	slow.Rows[3].Samples = append([]float64{}, old.Rows[3].Samples...)
	q := stat.Summarize(slow.Rows[3].Samples, "ns")
	slow.Rows[3].Ns = &q
	slow.Warnings = fullDoc().Warnings[:1]

	same := benchDoc("two", 4, 1)
	same.Time = same.Time.Add(4 * time.Minute)

	by := benchDoc("one", 1, 1)
	for _, op := range []struct {
		name   string
		factor float64
	}{{"read", 1.002}, {"parse", 1.06}} {
		r := rand.New(rand.NewPCG(9, 9))
		for _, base := range by.Rows[4:7] {
			row := base
			row.Name += "/operation=" + op.name
			row.Labels = map[string]string{"bulk": base.Labels["bulk"], "scenario": "redirect-map", "operation": op.name}
			row.Samples = nil
			for _, x := range base.Samples {
				row.Samples = append(row.Samples, x*op.factor*math.Exp(0.005*r.NormFloat64()))
			}
			q := stat.Summarize(row.Samples, "ns")
			row.Ns = &q
			by.Rows = append(by.Rows, row)
		}
	}
	for i := range by.Rows[:7] {
		by.Rows[i].Labels["operation"] = "none"
	}
	cheap, dear := callsDoc("one", 1, 1), callsDoc("two", 2, 1.8)
	dear.Time, dear.Host = slow.Time, slow.Host
	dear.Rows[1] = record.TaxRow{Name: dear.Rows[1].Name, Refused: "both sides hold the same call"}
	cheap.Rows[2] = callRow(rand.New(rand.NewPCG(6, 6)), cheap.Rows[2].Name, 0)
	dear.Warnings = []record.Warning{{Row: "napi-poll", Text: "two modes, near 8.2 and 10: the median may lie in either"}}

	// Two of run, of one run: prices beneath the rows.
	run := benchDoc("one", 2, 1)
	old.Kind, run.Kind = "run", "run"
	old.Prices, run.Prices = callsDoc("one", 1, 1).Rows[:4], callsDoc("one", 2, 1.1).Rows[:4]

	opts := compare.Options{Threshold: 2}
	within, err := compare.By(record.NewRecord(by), "operation", opts)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*record.Comparison{
		"compare-slower.txt": compared(t, old, slow, opts),
		"compare-same.txt":   compared(t, old, same, opts),
		"compare-by.txt":     within,
		"compare-tax.txt":    compared(t, cheap, dear, opts),
		"compare-run.txt":    compared(t, old, run, opts),
	} {
		c.Old.File, c.New.File = "before.json", "after.json"
		for _, width := range []int{80, 60, 100} {
			var b bytes.Buffer
			if err := Comparison(&b, Options{Width: width}, c); err != nil {
				t.Fatal(err)
			}
			if width == 80 {
				golden(t, name, b.String())
			}
			fits(t, b.String(), width)
			var colored bytes.Buffer
			if err := Comparison(&colored, Options{Width: width, Color: true}, c); err != nil {
				t.Fatal(err)
			}
			plain := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(colored.String(), "")
			if plain != b.String() {
				t.Errorf("%s: color changes more than colors", name)
			}
			if name == "compare-slower.txt" && !strings.Contains(colored.String(), red+"slower") {
				t.Errorf("%s: no color", name)
			}
		}
	}
}

// Records come from files: what they hold does not reach the terminal raw.
func TestHostile(t *testing.T) {
	doc := fullDoc()
	doc.Rows[8].Refused = "\x1b[2J\x07 bad \xff"
	doc.Prices = callsDoc("one", 1, 1).Rows
	doc.Prices[1].Refused, doc.Prices[2].Name = "\x1b[2J", "\x1b[2J"
	doc.Warnings = append(doc.Warnings, record.Warning{Text: "a\x1b]0;title\x07"}, record.Warning{Text: strings.Repeat("x", 300)})
	old := fullDoc()
	old.Prices, old.Host.Kernel = doc.Prices, "6\x1b[2J"
	hostile := taxDoc()
	for i := range hostile.Rows {
		row := &hostile.Rows[i]
		row.Name, row.Calls, row.Premise, row.Note = row.Name+"\x1b[2J", "\x07"+row.Calls+"\xff", "\x1b[2J", "\x1b[2J"
	}
	hostile.Rows[3].Refused = "\x1b[2J\n\x07"
	var b bytes.Buffer
	for _, err := range []error{
		Tax(&b, Options{}, hostile, "", true), Prices(&b, Options{}, doc, ""),
		Bench(&b, Options{}, doc), Comparison(&b, Options{}, compared(t, old, doc, compare.Options{})), GoBench(&b, doc),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if strings.ContainsAny(b.String(), "\x1b\x07") || !utf8.ValidString(b.String()) {
		t.Errorf("%q", b.String())
	}
}

func TestGoBenchGolden(t *testing.T) {
	doc := fullDoc()
	for i := range doc.Rows {
		if row := &doc.Rows[i]; row.Refused == "" {
			row.Samples = row.Samples[:2]
		}
	}
	var b bytes.Buffer
	if err := GoBench(&b, doc); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^goarch: .*`).ReplaceAllString(b.String(), "goarch: amd64")
	golden(t, "bench.gobench", text)
}

// benchstat reads what GoBench writes, and sees what is there.
func TestGoBenchOracle(t *testing.T) {
	dir := t.TempDir()
	for name, doc := range map[string]*record.Document[record.BenchRow]{"old": benchDoc("one", 1, 1), "new": benchDoc("two", 2, 2)} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := GoBench(f, doc); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var stderr bytes.Buffer
	cmd := exec.Command("go", "tool", "benchstat", "-format", "csv", filepath.Join(dir, "old"), filepath.Join(dir, "new"))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("benchstat: %v\n%s", err, &stderr)
	}
	if strings.Contains(stderr.String(), "syntax") || strings.Contains(stderr.String(), "need >=") {
		t.Errorf("benchstat complains:\n%s", &stderr)
	}
	want := benchDoc("one", 1, 1).Rows[6].Ns.Median
	line := regexp.MustCompile(`(?m)^XDP/scenario=redirect-map/bulk=64,(\S+?),`).FindStringSubmatch(string(out))
	if line == nil {
		t.Fatalf("benchstat prints no row:\n%s", out)
	}
	var got float64
	if _, err := fmt.Sscan(line[1], &got); err != nil || math.Abs(got*1e9/want-1) > 1e-5 {
		t.Errorf("benchstat's median is %v s, ours %v ns", got, want)
	}
	if !strings.Contains(string(out), "sec/pkt") || !strings.Contains(string(out), "Mpps") || !regexp.MustCompile(`bulk=64,.*\+9\d|bulk=64,.*\+10\d`).Match(out) {
		t.Errorf("benchstat misses units or the change:\n%s", out)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := JSON(&b, fullDoc()); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	dec := json.NewDecoder(&b)
	if err := dec.Decode(&got); err != nil || dec.More() {
		t.Fatalf("%v, more %v", err, dec.More())
	}
	for _, key := range []string{"schema", "kind", "host", "rows", "warnings"} {
		if got[key] == nil {
			t.Errorf("no %s", key)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("pipe is gone") }

// taxDoc is a record of tax with a row of each sort.
func taxDoc() *record.Document[record.TaxRow] {
	doc := callsDoc("one", 1, 1)
	doc.Settings = map[string]string{"core-clock": "3.93 GHz (3.77 to 4.03)"}
	doc.Rows = doc.Rows[:4]
	label := func(row *record.TaxRow, calls string) *record.TaxRow {
		family, variant, _ := strings.Cut(row.Name, "/")
		row.Labels, row.Calls = map[string]string{"pair": family, "variant": variant}, calls
		return row
	}
	r := rand.New(rand.NewPCG(3, 3))
	add := func(name, calls string, ns float64) *record.TaxRow {
		doc.Rows = append(doc.Rows, callRow(r, name, ns))
		return label(&doc.Rows[len(doc.Rows)-1], calls)
	}
	count := func(row *record.TaxRow, n float64) {
		cycles, ns := *row.Price, *row.Price
		cycles.Median, cycles.Unit = cycles.Median*2.6, "cycles"
		ns.Median, ns.Low, ns.High = ns.Median*n, ns.Low*n, ns.High*n
		row.Cycles, row.NsPerPacket = &cycles, &ns
		row.PerPacket = &stat.Quantity{Median: n, Low: n, High: n, N: 1, Unit: "calls"}
	}
	label(&doc.Rows[0], "nothing: two loads of one program")
	doc.Rows[0].Premise = "no indirect branch on either side that the other lacks"
	for i := range doc.Rows[1:4] {
		count(label(&doc.Rows[1+i], "map->ops->map_lookup_elem: of a map the verifier cannot know, against one it knows"), 0)
		doc.Rows[1+i].Premise = "bpf_map_lookup_elem+0xd: jmp __x86_indirect_thunk_rax"
	}
	doc.Rows[2].Note = "one indirect branch, and a direct call with its return"
	refused := label(&doc.Rows[3], doc.Rows[3].Calls)
	refused.Refused, refused.Price, refused.With, refused.Without, refused.Cycles = "already direct here: the code of both sides makes the same indirect branches", nil, nil, nil, nil
	refused.PerPacket, refused.NsPerPacket = nil, nil
	count(add("ndo-xdp-xmit/bulk=64", "netdev_ops->ndo_xdp_xmit: the hop at bulk 1 against a larger bulk, a packet", 280), 0.94)
	count(add("tracepoint/2", "observers at xdp_redirect: so many against none, a hit", 131), 1)
	count(add("packet/bulk=16", "all indirect calls of a redirected packet", 1.5), 0.13)
	doc.Warnings = append(doc.Warnings, record.Warning{Row: "control", Text: "the control is not 0"}, record.Warning{Text: "9 of 15 rounds fitted into the duration"})
	return doc
}

func TestTaxGolden(t *testing.T) {
	const sum = "At bulk 16 a redirect makes 0.13 indirect calls at 11.5 ns each."
	for _, test := range []struct {
		name    string
		opts    Options
		verbose bool
		change  func(*record.Document[record.TaxRow])
	}{
		{"tax.txt", Options{Width: 80}, false, nil},
		{"tax-verbose.txt", Options{Width: 80}, true, nil},
		{"tax-60.txt", Options{Width: 60}, false, nil},
		{"tax-incomplete.txt", Options{Width: 80}, false, func(doc *record.Document[record.TaxRow]) { doc.Incomplete, doc.Rows = true, doc.Rows[:1] }},
	} {
		t.Run(test.name, func(t *testing.T) {
			doc := taxDoc()
			if test.change != nil {
				test.change(doc)
			}
			var b bytes.Buffer
			if err := Tax(&b, test.opts, doc, sum, test.verbose); err != nil {
				t.Fatal(err)
			}
			fits(t, b.String(), test.opts.Width)
			golden(t, test.name, b.String())
		})
	}
}

// The largest price of each of three families, and nothing when there is none.
func TestPricesGolden(t *testing.T) {
	var b bytes.Buffer
	doc := fullDoc()
	doc.Prices = taxDoc().Rows
	doc.Warnings = append(doc.Warnings, record.Warning{Row: "tracepoint/2", Text: "drifted"}, record.Warning{Row: "control", Text: "not shown"})
	if err := Prices(&b, Options{Width: 80}, doc, "A closing line."); err != nil {
		t.Fatal(err)
	}
	fits(t, b.String(), 80)
	golden(t, "prices.txt", b.String())
	b.Reset()
	doc.Prices = doc.Prices[:1]
	if err := Prices(&b, Options{}, doc, ""); err != nil || b.Len() > 0 {
		t.Errorf("%v: %q", err, b.String())
	}
	// Warnings of prices are not the ladder's.
	if err := Bench(&b, Options{}, doc); err != nil || strings.Contains(b.String(), "not shown") {
		t.Errorf("%v: %s", err, b.String())
	}
}

func TestWriteErrors(t *testing.T) {
	doc, priced := fullDoc(), fullDoc()
	priced.Prices = taxDoc().Rows
	for name, err := range map[string]error{
		"JSON":       JSON(broken{}, doc),
		"Bench":      Bench(broken{}, Options{}, doc),
		"GoBench":    GoBench(broken{}, doc),
		"Tax":        Tax(broken{}, Options{}, taxDoc(), "", false),
		"Prices":     Prices(broken{}, Options{}, priced, ""),
		"Comparison": Comparison(broken{}, Options{}, compared(t, doc, doc, compare.Options{})),
	} {
		if err == nil || !strings.Contains(err.Error(), "pipe is gone") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0.123: "0.12", 1.234: "1.23", 9.996: "10.0", 12.34: "12.3", 99.96: "100", 658.4: "658", -51.3: "-51.3", math.NaN(): "?"} {
		if got := number(x); got != want {
			t.Errorf("number(%v) = %q, want %q", x, got, want)
		}
	}
	for x, want := range map[float64]string{0: "0.00", -0.001: "0.00", 0.5: "+0.50", -3.14: "-3.1", 104.6: "+105"} {
		if got := signedNumber(x); got != want {
			t.Errorf("signedNumber(%v) = %q, want %q", x, got, want)
		}
	}
}

func TestVerdictGolden(t *testing.T) {
	q := func(median, low, high float64, unit string) *stat.Quantity {
		return &stat.Quantity{Median: median, Low: low, High: high, N: 7, Unit: unit}
	}
	v := &record.Conclusion{
		Share: q(1.44, 1.41, 1.48, "%"), Tax: q(1.5, 1.47, 1.55, "ns"),
		Largest: &record.ProfileRow{Name: "receive", Ns: q(57.3, 46.5, 68.1, "ns")},
		Win: []record.Gain{
			{What: "raise the bulk from 1 to 64: more frames a poll, so that one call serves them", Ns: q(278, 267, 401, "ns"), Verb: "bench"},
			{What: "count calls", Ns: q(150, 140, 160, "ns"), AtMost: true, Verb: "profile"},
		},
		Lose: []record.Gain{{What: "a second program, in the devmap", Ns: q(23.8, 16.2, 27.3, "ns"), Verb: "tax"}},
	}
	var b bytes.Buffer
	if err := Verdict(&b, Options{Width: 80}, v, "One core sends 3.92 Mpps through the chain at bulk 64."); err != nil {
		t.Fatal(err)
	}
	fits(t, b.String(), 80)
	golden(t, "verdict.txt", b.String())
}
