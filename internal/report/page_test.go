package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// savedAs is doc as it is read from a file.
func savedAs(t testing.TB, file string, doc any) *record.Saved {
	t.Helper()
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := record.ParseSaved(b)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	s.File = file
	return s
}

// loadableProfile is a profile with all that a file must have.
func loadableProfile() *record.Profile {
	p := profileDoc()
	p.Time = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	p.Settings = map[string]string{"scenario": "redirect-map", "bulk": "16"}
	p.Host = benchDoc("x", 1, 1).Host
	return p
}

// records are one of each kind.
func everyRecord(t testing.TB) []*record.Saved {
	t.Helper()
	run := benchDoc("run", 1, 1)
	run.Kind, run.Prices = "run", callsDoc("run", 1, 1).Rows
	p := loadableProfile()
	run.Stages, run.Profile = p.Rows, &p.ProfileParts
	bench := fullDoc()
	bench.Incomplete = true
	calls := taxDoc()
	for i := range calls.Rows {
		if q := calls.Rows[i].Cycles; q != nil { // a file's lie within their interval
			q.Low, q.High = min(q.Low, q.Median), max(q.High, q.Median)
		}
	}
	sites := xrayDoc()
	sites.Host = run.Host
	sites.Code = []record.Listing{{Name: "__x86_indirect_thunk_rax", Lines: []record.ListingLine{
		{Text: "call __x86_indirect_thunk_rax <+0x6>", Note: "pushes the address of the trap"}, {Offset: 5, Text: "int3", Note: "the trap"},
	}}}
	c, err := compare.Records(record.NewRecord(benchDoc("a", 1, 1)), record.NewRecord(benchDoc("b", 2, 1.1)), compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	changed := xrayDoc()
	changed.Rows = changed.Rows[1:]
	more := 1200.0
	other := labDoc()
	other.Rows[0].Instructions = &more
	var out []*record.Saved
	for _, doc := range []struct {
		file string
		of   any
	}{
		{"run.json", run}, {"bench.json", bench}, {"tax.json", calls}, {"profile.json", p}, {"xray.json", sites}, {"lab.json", labDoc()},
		{"compare.json", c}, {"stages.json", compare.Profiles(stagesDoc("a", 1, 10), stagesDoc("b", 2, 14), compare.Options{Threshold: 2})},
		{"sites.json", compare.Sites(xrayDoc(), changed)}, {"labs.json", compare.Labs(labDoc(), other)},
	} {
		out = append(out, savedAs(t, doc.file, doc.of))
	}
	return out
}

// trends are those of made-up records, one row of which gets slower.
func trends(t testing.TB) *record.History {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 24 {
		doc := benchDoc(fmt.Sprint(i), uint64(i), 1)
		doc.Time = doc.Time.Add(time.Duration(i) * 24 * time.Hour)
		if i >= 16 {
			doc.Host.Kernel = "6.18.2"
		}
		for j := range doc.Rows {
			factor := 1 + 0.01*r.NormFloat64()
			if j == 6 && i >= 8 {
				factor *= 1.3
			}
			for _, q := range []*stat.Quantity{doc.Rows[j].Ns} {
				q.Median, q.Low, q.High = q.Median*factor, q.Low*factor, q.High*factor
			}
		}
		if err := record.Save(filepath.Join(dir, fmt.Sprintf("%02d.json", i)), doc); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := compare.LoadHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// element is what a page may consist of, with its attributes.
var elements = map[string]string{
	"html": "lang", "head": "", "meta": "charset name content http-equiv", "link": "rel href", "title": "id", "style": "", "body": "",
	"header": "", "main": "", "footer": "", "nav": "aria-label", "section": "id", "h1": "", "h2": "", "h3": "", "p": "class", "b": "", "strong": "",
	"span": "", "a": "href", "figure": "class", "figcaption": "", "div": "class tabindex role aria-label", "details": "", "summary": "",
	"table": "", "thead": "", "tbody": "", "tr": "class", "th": "scope class colspan", "td": "class", "ul": "class", "li": "", "code": "", "script": "",
	"svg":  "class viewBox width height role aria-labelledby aria-hidden focusable font-family font-size",
	"desc": "id", "defs": "", "pattern": "id width height patternUnits patternTransform", "g": "class data-n data-x data-w",
	"line": "class x1 y1 x2 y2", "rect": "class x y width height fill", "circle": "class cx cy r", "path": "class d",
	"text": "class x y text-anchor tabindex role font-size",
}

// checkHTML fails when a page is not well formed, or has an element or an attribute
// that the template does not have: a string of a record became more than text. It
// returns all text.
func checkHTML(t testing.TB, page []byte) string {
	t.Helper()
	if len(page) > MaxPage {
		t.Errorf("%d bytes", len(page))
	}
	text := string(page)
	for _, own := range []string{pageStyle, flameScript} {
		if !strings.Contains(text, own) {
			t.Fatal("the page has not its own style and script")
		}
		text = strings.ReplaceAll(text, own, "")
	}
	text = strings.Replace(text, "<!doctype html>", "", 1)
	for _, not := range []string{"http://", "https://", "NaN", "Infinity", "%!", "\x1b", "javascript:"} {
		if strings.Contains(text, not) {
			i := strings.Index(text, not)
			t.Errorf("the page has %q: %.200q", not, text[max(0, i-80):])
		}
	}
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict, d.AutoClose, d.Entity = false, []string{"meta", "link"}, xml.HTMLEntity
	scripts := 0
	ids := make(map[string]bool)
	var said strings.Builder
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well formed: %v", err)
		}
		switch x := token.(type) {
		case xml.CharData:
			said.Write(x)
		case xml.StartElement:
			allowed, ok := elements[x.Name.Local]
			if !ok {
				t.Fatalf("element %s", x.Name.Local)
			}
			if x.Name.Local == "script" {
				scripts++
			}
			for _, a := range x.Attr {
				if !strings.Contains(" "+allowed+" ", " "+a.Name.Local+" ") {
					t.Fatalf("attribute %s of %s", a.Name.Local, x.Name.Local)
				}
				if a.Name.Local == "href" && !strings.HasPrefix(a.Value, "#") && a.Value != "data:," {
					t.Fatalf("a link to %s", a.Value)
				}
				if a.Name.Local == "id" {
					if ids[a.Value] {
						t.Errorf("id %s occurs twice", a.Value)
					}
					ids[a.Value] = true
				}
			}
		}
	}
	if scripts != 1 {
		t.Errorf("%d scripts", scripts)
	}
	return said.String()
}

func pageOf(t testing.TB, d Dossier) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHTML(t *testing.T) {
	all := everyRecord(t)
	text := checkHTML(t, pageOf(t, Dossier{Records: all, History: trends(t), Version: "v1"}))
	for _, want := range []string{
		"What changed", "Where a packet’s nanoseconds go", "The bulk ladder", "Over time", "With and without, counted exactly", "What an indirect call costs",
		"Flame graphs", "The indirect branches, and what one is", "Machines", "Warnings", "Records",
		"run.json", "redirect-map/bulk=64", "slower", "ndo_xdp_xmit = veth_ndo_xdp_xmit", "pushes the address of the trap", "bench.json stopped before the end",
		"the hypervisor took 4.1", "gcc (Debian 14.2.0-19) 14.2.0", "Linux 6.18.2", "packet counts disagree", "beside the path", "Kernel panic",
		"Made by unthunk v1 from 34 records",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, s := range all {
		alone := checkHTML(t, pageOf(t, Dossier{Records: []*record.Saved{s}}))
		if title := clean(conclusion.Of(s).Title); !strings.Contains(alone, title) {
			t.Errorf("%s: no title %q", s.File, title)
		}
	}
	checkHTML(t, pageOf(t, Dossier{}))
	checkHTML(t, pageOf(t, Dossier{History: trends(t)}))
}

// Every figure has a title, a description and, beside it, the same in words.
func TestHTMLAccessible(t *testing.T) {
	text := string(pageOf(t, Dossier{Records: everyRecord(t), History: trends(t)}))
	figures := strings.Count(text, "<figure")
	if figures < 10 {
		t.Fatalf("%d figures", figures)
	}
	if n := strings.Count(text, `<svg class="fig`); n != strings.Count(text, "<desc id=") || n < 2*(figures-2) {
		t.Errorf("%d drawings, %d descriptions", n, strings.Count(text, "<desc id="))
	}
	if a, b := strings.Count(text, "aria-labelledby="), strings.Count(text, `role="img"`); a != b {
		t.Errorf("%d of %d pictures have a name", a, b)
	}
}

// evil is a string that is more than text almost anywhere.
const evil = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`${{.}}]]>--> @maintainer https://evil.example #1 [x](javascript:alert(1)) |"

// hostile puts a string wherever a record may hold one.
func hostile(t testing.TB, s string) []*record.Saved {
	t.Helper()
	records := everyRecord(t)
	bad := s + strings.Repeat("x", 40)
	for _, r := range records {
		r.File = s + r.File
		r.Run, r.Settings = s, map[string]string{s: s, "path": s, "scenario": s, "bulk": s}
		r.Host = host.Fingerprint{CPU: s, Kernel: s, Compiler: s, BootParams: s, Mitigations: map[string]string{s: s}, IndirectThunk: s, CallSites: s, ReturnThunk: s, Drivers: map[string]string{s: s}}
		r.Warnings = append(r.Warnings, record.Warning{Row: s, Text: bad})
		if r.Bench != nil {
			for i := range r.Bench.Rows {
				r.Bench.Rows[i].Name = s + "/bulk=" + s
			}
			r.Bench.Rows = append(r.Bench.Rows, record.BenchRow{Name: bad, Refused: bad})
		}
		if p := r.Stages(); p != nil {
			for i := range p.Rows {
				p.Rows[i].Name = s
			}
			for i := range p.Functions {
				p.Functions[i].Name, p.Functions[i].Stage = s, s
			}
			for i := range p.Tax.Sites {
				p.Tax.Sites[i].Function, p.Tax.Sites[i].Calls, p.Tax.Sites[i].Targets, p.Tax.Sites[i].Stage = s, &bad, []string{s}, s
			}
			for i := range p.Stacks {
				p.Stacks[i].Frames, p.Stacks[i].Stage = []string{s, bad}, s
			}
			p.Sampling.Event = s
		}
		for i := range r.Prices() {
			row := &r.Prices()[i]
			row.Name, row.Calls, row.Note, row.Premise = s, s, s, s
		}
		if r.Sites != nil {
			for i := range r.Sites.Rows {
				row := &r.Sites.Rows[i]
				row.Name, row.Function, row.Calls, row.Kind, row.Stage, row.Thunk, row.Targets = s, s, &bad, s, s, s, []string{s}
			}
			r.Sites.Code[0].Name, r.Sites.Code[0].Lines[0].Text, r.Sites.Code[0].Lines[0].Note = s, s, s
		}
		if r.Lab != nil {
			for i := range r.Lab.Rows {
				row := &r.Lab.Rows[i]
				row.Name, row.Release, row.Thunk = s, s, s
				for j := range row.Sites {
					row.Sites[j].Function, row.Sites[j].Stage, row.Sites[j].Target, row.Sites[j].Calls = s, s, s, s
				}
			}
			r.Lab.Differences[0].With, r.Lab.Differences[0].Without = s, s
		}
		if c := r.Comparison; c != nil {
			c.Old.File, c.New.File = s, s
			c.Rows[0].Name, c.Rows[0].Against, c.Rows[0].Verdict = s, s, s
			c.Causes = []record.Cause{{Name: s, Old: &bad, New: &bad, Why: s}}
		}
		if c := r.SiteComparison; c != nil {
			c.Rows[0].Name, c.Rows[0].What, c.Rows[0].Change = s, []string{s}, s
		}
		if c := r.LabComparison; c != nil {
			c.Rows[0].Name, c.Rows[0].What = s, []string{s}
		}
	}
	return records
}

func hostileTrends(t testing.TB, s string) *record.History {
	h := trends(t)
	for i := range h.Rows {
		h.Rows[i].Name = s
	}
	for i := range h.Groups {
		h.Groups[i].Host.Kernel = s
		for j := range h.Groups[i].Records {
			h.Groups[i].Records[j].File = s
		}
	}
	h.Left = []record.LeftFile{{File: s, Why: s}}
	return h
}

// Strings of records stay text, in every format.
func TestPageHostile(t *testing.T) {
	text := string(pageOf(t, Dossier{Records: hostile(t, evil), History: hostileTrends(t, evil), Version: evil}))
	text = strings.ReplaceAll(text, "https://evil", "") // as text it may stand there
	checkHTML(t, []byte(strings.ReplaceAll(text, "javascript:alert", "")))

	d := Dossier{Records: hostile(t, evil+"\x1b[31m\u202e\n# x"), History: hostileTrends(t, evil), Version: evil}
	var b bytes.Buffer
	if err := Markdown(&b, d); err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"<script", "<img", "@maintainer", "https://", "](javascript", "\x1b", "\u202e", "\n# x"} {
		if strings.Contains(strings.NewReplacer(`\<`, `\`, `\]`, `\`).Replace(b.String()), not) {
			t.Errorf("Markdown has %q", not)
		}
	}
	b.Reset()
	d.Records = hostile(t, "=cmd()\"\n,")
	if err := CSV(&b, d); err != nil {
		t.Fatal(err)
	}
	for _, line := range readCSV(t, b.Bytes()) {
		for _, cell := range line {
			if strings.HasPrefix(cell, "=") {
				t.Fatalf("a formula: %q", cell)
			}
		}
	}
}

func readCSV(t testing.TB, b []byte) [][]string {
	t.Helper()
	lines, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestMarkdownGolden(t *testing.T) {
	bench := benchDoc("one", 1, 1)
	bench.Warnings = []record.Warning{{Row: "redirect-map/bulk=64", Text: "a warning of *a* row_"}}
	var b bytes.Buffer
	if err := Markdown(&b, Dossier{Records: []*record.Saved{savedAs(t, "dir/bench.json", bench)}, Version: "v1"}); err != nil {
		t.Fatal(err)
	}
	golden(t, "page.md", b.String())
	b.Reset()
	if err := Markdown(&b, Dossier{Records: everyRecord(t), History: trends(t)}); err != nil || strings.Contains(b.String(), "NaN") {
		t.Error(err)
	}
	// Each line of a table has as many cells as its head.
	cells := 0
	for line := range strings.SplitSeq(b.String(), "\n") {
		n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		if cells != 0 && n != cells {
			t.Errorf("%d cells, not %d: %s", n, cells, line)
		}
		cells = n
	}
}

func TestCSV(t *testing.T) {
	var b bytes.Buffer
	if err := CSV(&b, Dossier{Records: everyRecord(t), History: trends(t)}); err != nil {
		t.Fatal(err)
	}
	lines := readCSV(t, b.Bytes())
	found := make(map[string]bool)
	for _, line := range lines {
		found[line[1]+" "+line[6]+" "+line[7]] = true
	}
	for _, want := range []string{
		"kind row measure", "run redirect-map/bulk=64 mpps", "run control price", "run stage/receive ns", "profile packet ns", "profile site/bq_xmit_all+0xa3 landing",
		"xray __napi_poll/napi_struct.poll offset", "lab debian:6.12-cloud/spectre_v2=off/bulk=16 instructions", "compare redirect-map/bulk=64 change",
		"history redirect-map/bulk=64 ns", "history redirect-map/bulk=64 change", "bench redirect-xsk/bulk=1 mpps",
	} {
		if !found[want] {
			t.Errorf("no line %q", want)
		}
	}
	if strings.Contains(b.String(), "NaN") {
		t.Error("an unknown number is not empty")
	}
}

// More than a page has room for is left out and said; more than a page may have is an
// error.
// The page of interfaces on wires has one picture of them, and their table.
func TestHTMLWires(t *testing.T) {
	l := wiresDoc()
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	s, err := record.ParseSaved(b)
	if err != nil {
		t.Fatal(err)
	}
	text := checkHTML(t, pageOf(t, Dossier{Records: []*record.Saved{s}}))
	for _, want := range []string{"Interfaces and their DMA", "igb iommu-lazy 6.12.117", "What a redirected packet makes"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestHTMLLarge(t *testing.T) {
	bench := benchDoc("one", 1, 1)
	row := bench.Rows[0]
	for i := range 3000 {
		row.Name = fmt.Sprintf("redirect-map/bulk=%d", i+100)
		bench.Rows = append(bench.Rows, row)
		bench.Warnings = append(bench.Warnings, record.Warning{Row: row.Name, Text: "a warning"})
	}
	p := loadableProfile()
	p.Stacks = nil
	for i := range 20000 {
		p.Stacks = append(p.Stacks, record.ProfileStack{Frames: []string{fmt.Sprintf("f%d", i%300), fmt.Sprintf("g%d", i), "h"}, Stage: "receive", Samples: 1, Ns: 0.01})
	}
	savedBench := savedAs(t, "a", bench)
	b := pageOf(t, Dossier{Records: []*record.Saved{savedBench, savedAs(t, "b", p)}})
	text := checkHTML(t, b)
	if !strings.Contains(text, "2757 more rows are in the record.") || !strings.Contains(text, "and 2750 more in the record") {
		t.Error("what is left out is not said")
	}
	var all []*record.Saved
	for range 60 {
		s := *savedBench
		all = append(all, &s)
	}
	err := HTML(io.Discard, Dossier{Records: all})
	if err == nil || !strings.Contains(err.Error(), "60 records fill more than 2 MiB: report fewer of them") {
		t.Error(err)
	}
}

func TestHistoryGolden(t *testing.T) {
	h := trends(t)
	for _, width := range []int{80, 60, 40} {
		var b bytes.Buffer
		if err := History(&b, Options{Width: width}, h); err != nil {
			t.Fatal(err)
		}
		fits(t, b.String(), width)
		if width == 80 {
			golden(t, "history.txt", b.String())
		}
	}
	var b bytes.Buffer
	if err := History(&b, Options{}, hostileTrends(t, evil+"\x1b[2J\n")); err != nil || strings.ContainsAny(b.String(), "\x1b") {
		t.Errorf("%v: %q", err, b.String())
	}
}

// fields are the settable strings, numbers, lists and pointers of a value, in order.
func fields(v reflect.Value, into *[]reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.CanSet() {
			*into = append(*into, v)
		}
		if !v.IsNil() {
			fields(v.Elem(), into)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fields(v.Field(i), into)
			}
		}
	case reflect.Slice:
		*into = append(*into, v)
		for i := range v.Len() {
			fields(v.Index(i), into)
		}
	case reflect.String, reflect.Float64, reflect.Int, reflect.Uint64, reflect.Bool:
		if v.CanSet() {
			*into = append(*into, v)
		}
	}
}

// change makes v something else, of s or x.
func change(v reflect.Value, s string, x float64) {
	switch v.Kind() {
	case reflect.Pointer:
		v.SetZero()
	case reflect.Slice:
		v.SetLen(v.Len() * int(uint(len(s))%3) / 2)
	case reflect.String:
		v.SetString(s)
	case reflect.Float64:
		v.SetFloat(x)
	case reflect.Int:
		v.SetInt(int64(len(s)) - 3)
	case reflect.Uint64:
		v.SetUint(uint64(len(s)))
	case reflect.Bool:
		v.SetBool(!v.Bool())
	}
}

// documentIn is what a record was read from.
func documentIn(s *record.Saved) any {
	for _, doc := range []any{s.Bench, s.Tax, s.Profile, s.Sites, s.Lab, s.Comparison, s.ProfileComparison, s.SiteComparison, s.LabComparison} {
		if !reflect.ValueOf(doc).IsNil() {
			return doc
		}
	}
	return nil
}

// Whatever is a record makes a page that is no more than its text: a few fields of one
// are something else each time.
func FuzzPage(f *testing.F) {
	var texts [][]byte
	for i, s := range everyRecord(f) {
		b, err := json.Marshal(documentIn(s))
		if err != nil {
			f.Fatal(err)
		}
		texts = append(texts, b)
		f.Add(uint8(i), uint8(2), uint64(i), evil, 0.0)
		f.Add(uint8(i), uint8(9), uint64(7*i), "x", 1e9)
	}
	f.Fuzz(func(t *testing.T, which, changes uint8, seed uint64, text string, x float64) {
		b := texts[int(which)%len(texts)]
		s, err := record.ParseSaved(b)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, 1))
		for range changes % 12 {
			var all []reflect.Value
			fields(reflect.ValueOf(documentIn(s)), &all)
			change(all[r.IntN(len(all))], text, x)
		}
		if b, err = json.Marshal(documentIn(s)); err != nil {
			return
		}
		if s, err = record.ParseSaved(b); err != nil {
			return
		}
		s.File = text
		d := Dossier{Records: []*record.Saved{s}, Version: text}
		var out bytes.Buffer
		if err := HTML(&out, d); err != nil {
			t.Fatal(err)
		}
		page := out.String()
		for _, may := range []string{"http://", "https://", "NaN", "Infinity", "%!", "javascript:"} { // as text
			if strings.Contains(text, may) {
				page = strings.ReplaceAll(page, may, "")
			}
		}
		checkHTML(t, []byte(page))
		out.Reset()
		if err := Markdown(&out, d); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		if err := CSV(&out, d); err != nil {
			t.Fatal(err)
		}
		readCSV(t, out.Bytes())
	})
}
