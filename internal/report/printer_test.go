package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// Records come from files: what they hold does not reach the terminal raw.
func TestHostile(t *testing.T) {
	t.Parallel()
	doc := reporttest.FullBench()
	doc.Rows[8].Refused = "\x1b[2J\x07 bad \xff"
	doc.Prices = reporttest.Calls("one", 1, 1).Rows
	doc.Prices[1].Refused, doc.Prices[2].Name = "\x1b[2J", "\x1b[2J"
	doc.Warnings = append(doc.Warnings, record.Warning{Text: "a\x1b]0;title\x07"},
		record.Warning{Text: strings.Repeat("x", 300)})
	old := reporttest.FullBench()
	doc.Conclusion = new(record.Conclusion)
	old.Prices, old.Host.Kernel = doc.Prices, "6\x1b[2J"
	hostile := reporttest.Tax()
	for i := range hostile.Rows {
		row := &hostile.Rows[i]
		row.Name, row.Target, row.Premise, row.Note = row.Name+"\x1b[2J", "\x07"+row.Target+"\xff", "\x1b[2J", "\x1b[2J"
	}
	hostile.Rows[3].Refused = "\x1b[2J\n\x07"
	var b bytes.Buffer
	for _, err := range []error{
		Tax(&b, Options{}, hostile, "", true), (&FirstScreen{Doc: doc}).Write(&b, Options{}),
		Bench(&b, Options{}, doc), Comparison(&b, Options{}, compared(t, old, doc, compare.Options{})),
		GoBench(&b, doc),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if strings.ContainsAny(b.String(), "\x1b\x07") || !utf8.ValidString(b.String()) {
		t.Errorf("%q", b.String())
	}
}

// What is printed as JSON is the same document, without characters that a terminal does not print.
func TestJSONHostile(t *testing.T) {
	t.Parallel()
	const text = "a\u202eb\u009b2J\x7f\x1b\U000e0001é<日"
	for name, write := range map[string]func(*bytes.Buffer) error{
		"JSON":     func(b *bytes.Buffer) error { return JSON(b, []string{text}) },
		"JSONLine": func(b *bytes.Buffer) error { return JSONLine(b, []string{text}) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), `a\u202eb\u009b2J\u007f\u001b\udb40\udc01é<日`) {
			t.Errorf("%s: %q", name, b.String())
		}
		var got []string
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || len(got) != 1 || got[0] != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// writes counts the calls of Write.
type writes int

func (n *writes) Write(p []byte) (int, error) { *n++; return len(p), nil }

// A document is one Write, whatever is escaped in it: documents of several goroutines share a writer.
func TestJSONOneWrite(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"a", "\u202ea\u009bb\U000e0001"} {
		var n writes
		if err := JSONLine(&n, text); err != nil || n != 1 {
			t.Errorf("%q: %d writes, %v", text, n, err)
		}
	}
}

// A long word is cut into lines without a copy of what is left of it for each: 3 GB for this one.
func TestFillLongWord(t *testing.T) {
	const length = 300_000
	word := strings.Repeat("é", length)
	p := newPrinter(Options{})
	testutil.Allocates(t, 64<<20, func() { p.wrap("a: ", word) })
	lines := strings.Split(strings.TrimSpace(p.buf.String()), "\n")
	for i, line := range lines {
		if n := utf8.RuneCountInString(line); n > 80 || n < 80 && i < len(lines)-1 {
			t.Fatalf("line %d has %d characters: %s", i, n, line)
		}
	}
	if got := strings.Count(p.buf.String(), "é"); got != length {
		t.Errorf("%d characters of %d", got, length)
	}
}

// No line of a report is a command to the CI service that shows it.
func TestFlushCommands(t *testing.T) {
	t.Parallel()
	p := newPrinter(Options{Width: 40})
	p.line("::error::a name")
	p.wrap("  ", "a text as long as a line has room for ##[error]it ends")
	p.line("## heading a::b")
	var b strings.Builder
	if err := p.flush(&b); err != nil {
		t.Fatal(err)
	}
	const want = "'::error::a name\n  a text as long as a line has room for\n  '##[error]it ends\n## heading a::b\n"
	if b.String() != want {
		t.Errorf("%q, want %q", &b, want)
	}
}

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	doc, priced := reporttest.FullBench(), reporttest.FullBench()
	priced.Conclusion = new(record.Conclusion)
	priced.Prices = reporttest.Tax().Rows
	for name, err := range map[string]error{
		"JSON":        JSON(reporttest.Broken{}, doc),
		"Bench":       Bench(reporttest.Broken{}, Options{}, doc),
		"GoBench":     GoBench(reporttest.Broken{}, doc),
		"Tax":         Tax(reporttest.Broken{}, Options{}, reporttest.Tax(), "", false),
		"FirstScreen": (&FirstScreen{Doc: priced}).Write(reporttest.Broken{}, Options{}),
		"Comparison":  Comparison(reporttest.Broken{}, Options{}, compared(t, doc, doc, compare.Options{})),
	} {
		if err == nil || !strings.Contains(err.Error(), "pipe is gone") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := JSON(&b, reporttest.FullBench()); err != nil {
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
