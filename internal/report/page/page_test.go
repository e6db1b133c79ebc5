package page

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// savedAs is doc as it is read from a file.
func savedAs(t testing.TB, file string, doc any) *record.Saved {
	t.Helper()
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := record.Parse(b)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	s.File = file
	return s
}

// loadableProfile is a profile with all that a file must have.
func loadableProfile() *record.Profile {
	p := reporttest.Profile()
	p.Time = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	p.Settings = map[string]string{"scenario": "redirect-map", "bulk": "16"}
	p.Host = reporttest.Bench("x", 1, 1).Host
	return p
}

// records are one of each kind.
func everyRecord(t testing.TB) []*record.Saved {
	t.Helper()
	run := reporttest.Bench("run", 1, 1)
	run.Kind, run.Prices = "run", reporttest.Calls("run", 1, 1).Rows
	p := loadableProfile()
	run.Stages, run.Profile = p.Rows, &p.ProfileParts
	bench := reporttest.FullBench()
	bench.Incomplete = true
	calls := reporttest.Tax()
	for i := range calls.Rows {
		if q := calls.Rows[i].Cycles; q != nil { // a file's lie within their interval
			q.Low, q.High = min(q.Low, q.Median), max(q.High, q.Median)
		}
	}
	sites := reporttest.Xray()
	sites.Host = run.Host
	sites.Code = []record.Listing{{Name: "__x86_indirect_thunk_rax", Lines: []record.ListingLine{
		{Text: "call __x86_indirect_thunk_rax <+0x6>", Note: "pushes the address of the trap"},
		{Offset: 5, Text: "int3", Note: "the trap"},
	}}}
	c, err := compare.Records(record.NewSaved(reporttest.Bench("a", 1, 1)),
		record.NewSaved(reporttest.Bench("b", 2, 1.1)), compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	changed := reporttest.Xray()
	changed.Rows = changed.Rows[1:]
	more := 1200.0
	other := reporttest.Lab()
	other.Rows[0].Instructions = &more
	var out []*record.Saved
	for _, doc := range []struct {
		file string
		of   any
	}{
		{"run.json", run}, {"bench.json", bench}, {"tax.json", calls}, {"profile.json", p}, {"xray.json", sites},
		{"lab.json", reporttest.Lab()}, {"prog-xray.json", reporttest.ProgXray()}, {"prog-watch.json", recordtest.Watch("run", 1)},
		{"prog-list.json", reporttest.ProgramList()}, {"agent.json", recordtest.Agent("agent", 1, 12)},
		{"compare.json", c}, {"stages.json", compare.Profiles(reporttest.Stages("a", 1, 10),
			reporttest.Stages("b", 2, 14), compare.Options{Threshold: 2})},
		{"sites.json", compare.Sites(reporttest.Xray(), changed)}, {"labs.json", compare.Labs(reporttest.Lab(), other)},
	} {
		out = append(out, savedAs(t, doc.file, doc.of))
	}
	return out
}

// element is what a page may consist of, with its attributes.
var elements = map[string]string{
	"html": "lang", "head": "", "meta": "charset name content http-equiv", "link": "rel href", "title": "id",
	"style": "", "body": "",
	"header": "", "main": "", "footer": "", "nav": "aria-label", "section": "id", "h1": "", "h2": "", "h3": "",
	"p": "class", "b": "", "strong": "",
	"span": "", "a": "href", "figure": "class", "figcaption": "", "div": "class tabindex role aria-label",
	"details": "class", "summary": "",
	"table": "", "thead": "", "tbody": "", "tr": "class", "th": "scope class colspan", "td": "class", "ul": "class",
	"li": "", "code": "", "script": "",
	"svg":  "class viewBox width height role aria-labelledby aria-hidden focusable font-family font-size",
	"desc": "id", "defs": "", "pattern": "id width height patternUnits patternTransform",
	"g":    "class data-n data-x data-w",
	"line": "class x1 y1 x2 y2", "rect": "class x y width height fill", "circle": "class cx cy r", "path": "class d",
	"text": "class x y text-anchor tabindex role font-size", "tspan": "x dy",
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

func pageOf(t testing.TB, src Source) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(t.Context(), &b, src); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHTML(t *testing.T) {
	t.Parallel()
	all := everyRecord(t)
	text := checkHTML(t, pageOf(t, Source{Records: all, History: reporttest.Trends(t), Version: "v1"}))
	for _, want := range []string{
		"What changed", "Where a packet’s nanoseconds go", "The bulk ladder", "Over time",
		"With and without, counted exactly", "What an indirect call costs",
		"Flame graphs", "The indirect branches, and what one is", "Machines", "Records",
		"run.json", "redirect-map/bulk=64", "slower", "ndo_xdp_xmit = veth_ndo_xdp_xmit",
		"pushes the address of the trap", "bench.json stopped before the end",
		"the hypervisor took 4.1", "gcc (Debian 14.2.0-19) 14.2.0", "Linux 6.18.2", "packet counts disagree",
		"beside the path", "Kernel panic",
		"Made by unthunk v1 from 38 records",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, s := range all {
		alone := checkHTML(t, pageOf(t, Source{Records: []*record.Saved{s}}))
		title := cells.Clean(conclusion.Of(s).Title)
		if s.Bench() != nil {
			title = strings.TrimSuffix(conclusion.NewAnswer(s.Bench()).Claim[0], ".")
		}
		if !strings.Contains(alone, title) {
			t.Errorf("%s: no title %q", s.File, title)
		}
	}
	checkHTML(t, pageOf(t, Source{}))
	checkHTML(t, pageOf(t, Source{History: reporttest.Trends(t)}))
}

// Every figure has a title, a description and, beside it, the same in words.
func TestHTMLAccessible(t *testing.T) {
	t.Parallel()
	text := string(pageOf(t, Source{Records: everyRecord(t), History: reporttest.Trends(t)}))
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

// More than a page has room for is left out and said; more than a page may have is an
// error.
// The page of interfaces on wires has one picture of them, and their table.
func TestHTMLWires(t *testing.T) {
	t.Parallel()
	l := reporttest.Wires()
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	s, err := record.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	text := checkHTML(t, pageOf(t, Source{Records: []*record.Saved{s}}))
	for _, want := range []string{"Interfaces and their DMA", "igb iommu-lazy 6.12.117",
		"What a redirected packet makes"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestHTMLLarge(t *testing.T) {
	t.Parallel()
	bench := reporttest.Bench("one", 1, 1)
	row := bench.Rows[0]
	for i := range 3000 {
		row.Name = fmt.Sprintf("redirect-map/bulk=%d", i+100)
		bench.Rows = append(bench.Rows, row)
		bench.Warnings = append(bench.Warnings, record.Warning{Row: row.Name, Text: "a warning"})
	}
	p := loadableProfile()
	p.Stacks = nil
	for i := range 20000 {
		p.Stacks = append(p.Stacks, record.ProfileStack{Frames: []string{fmt.Sprintf("f%d", i%300),
			fmt.Sprintf("g%d", i), "h"}, Stage: "receive", Samples: 1, Ns: 0.01})
	}
	savedBench := savedAs(t, "a", bench)
	b := pageOf(t, Source{Records: []*record.Saved{savedBench, savedAs(t, "b", p)}})
	text := checkHTML(t, b)
	if !strings.Contains(text, "2757 more rows are in the record.") ||
		!strings.Contains(text, "and 2994 more") {
		t.Error("what is left out is not said")
	}
	var all []*record.Saved
	for range 60 {
		s := *savedBench
		all = append(all, &s)
	}
	err := HTML(t.Context(), io.Discard, Source{Records: all})
	if err == nil || !strings.Contains(err.Error(), "the records fill more than 2 MiB: report fewer of them") {
		t.Error(err)
	}
}
