package report

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestProgXrayGolden(t *testing.T) {
	t.Parallel()
	loaded := reporttest.ProgXray()
	loaded.Program.Loaded, loaded.Program.Attached = true, nil
	loaded.Changes, loaded.PricesFrom, loaded.Rows, loaded.Warnings = nil, "", nil, nil
	for name, doc := range map[string]*record.ProgXray{"prog-xray.txt": reporttest.ProgXray(), "prog-xray-loaded.txt": loaded} {
		var b bytes.Buffer
		if err := ProgXray(&b, Options{Width: 80}, doc); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), 80)
		reporttest.Golden(t, name, b.String())
	}
}

// A change whose price may be 0 saves nothing that was seen.
func TestProgXrayNoSaving(t *testing.T) {
	t.Parallel()
	doc := reporttest.ProgXray()
	doc.Changes[0].Saves = &stat.Quantity{Median: 0.06, Low: -0.17, High: 0.32, N: 7, Unit: "ns"}
	doc.Rows[0].Price = doc.Changes[0].Saves
	var b bytes.Buffer
	if err := ProgXray(&b, Options{Width: 80}, doc); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, "  none seen  lb.c:149: jump to table") || strings.Contains(text, "-0.06") ||
		!strings.Contains(text, " 0 to 0.32 ") {
		t.Error(text)
	}
}

func TestProgAsmGolden(t *testing.T) {
	t.Parallel()
	doc := &record.ProgCode{Program: reporttest.ProgXray().Program, Listings: []record.ProgListing{{
		Name: "lb_main", Address: 0xffffffffc0001000, Lines: []record.ProgListingLine{
			{ListingLine: record.ListingLine{Text: "push %rbp"},
				Source: &record.SourceLine{File: "src/lb.c", Line: 40, Text: "lb_main(xdp_md*ctx)"}},
			{ListingLine: record.ListingLine{Offset: 0x9, Text: "jmp __x86_indirect_thunk_rcx", Indirect: true, Note: "tail-call table: v4, v6"},
				Source: &record.SourceLine{File: "src/lb.c", Line: 41, Text: "bpf_tail_call(ctx,&table,proto);"}},
		},
	}}}
	var b bytes.Buffer
	if err := ProgAsm(t.Context(), &b, Options{Width: 80}, doc, linesOf(doc)); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "prog-asm.txt", b.String())
}

// What ProgAsm writes is out before the code is at its end: it holds a piece of it, and hears its context.
func TestProgAsmPieces(t *testing.T) {
	t.Parallel()
	doc := &record.ProgCode{Listings: []record.ProgListing{{Name: "long"}}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var b bytes.Buffer
	made, out := 0, 0
	err := ProgAsm(ctx, &b, Options{Width: 80}, doc, func(int) iter.Seq[record.ProgListingLine] {
		return func(yield func(record.ProgListingLine) bool) {
			line := record.ProgListingLine{ListingLine: record.ListingLine{Text: "nop"}}
			for made < 1<<20 && yield(line) {
				if made++; made == 1<<17 {
					out = b.Len()
					cancel()
				}
			}
		}
	})
	if !errors.Is(err, context.Canceled) || made == 1<<20 || out < 1<<20 {
		t.Errorf("%v after %d lines; %d bytes were out before it was to end", err, made, out)
	}
}

// Records come from files: what they hold does not reach the terminal raw.
func TestProgXrayHostile(t *testing.T) {
	t.Parallel()
	doc := reporttest.ProgXray()
	const evil = "\x1b[2J\x07\n"
	doc.Program.Name, doc.Program.Tag, doc.Program.Attached, doc.PricesFrom = evil, evil, []string{evil}, evil
	doc.Dispatcher.Fallback, doc.Returns = evil, map[string]int{evil: 1}
	for i := range doc.Rows {
		row := &doc.Rows[i]
		row.Function, row.Kind, row.Made, row.Calls, row.Thunk = evil, evil, evil, evil, evil
		row.Maps, row.Inner, row.Programs = []string{evil}, []string{evil}, []string{evil}
		row.Source = &record.SourceLine{File: evil, Text: evil}
	}
	for i := range doc.Changes {
		doc.Changes[i].Text = evil
	}
	var b bytes.Buffer
	if err := ProgXray(&b, Options{}, doc); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\x07") {
		t.Errorf("%q", b.String())
	}
}

// A libxdp dispatcher names its parts, and a part says what calls it.
func TestProgXrayParts(t *testing.T) {
	t.Parallel()
	doc, part := reporttest.ProgXray(), reporttest.ProgXray()
	doc.Program.Parts = []string{"one (id:7)", "two (id:8)"}
	part.Program.Type, part.Program.Entries = "extension", []string{"id:6 (prog0)"}
	for _, test := range []struct {
		doc  *record.ProgXray
		want string
	}{
		{doc, "below are its parts too: one (id:7), two (id:8). It is not among the 48"},
		{part, "Held by id:6 (prog0). It stands in place of a function of a libxdp dispatcher"},
	} {
		var b bytes.Buffer
		if err := ProgXray(&b, Options{}, test.doc); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(strings.Fields(b.String()), " "); !strings.Contains(text, test.want) {
			t.Errorf("no %q in %s", test.want, text)
		}
	}
}
