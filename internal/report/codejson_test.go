package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/record"
)

// linesOf are those that a document has.
func linesOf(doc *record.ProgCode) ListingLines {
	return func(i int) iter.Seq[record.ProgListingLine] { return slices.Values(doc.Listings[i].Lines) }
}

// What is written piece by piece is what is written at once.
func TestProgCodeJSON(t *testing.T) {
	doc := &record.ProgCode{Head: record.Head{Kind: "prog-code"}}
	doc.Program.Name = `"listings": <x>` + "\u202e"
	for n := range 4 {
		l := record.ProgListing{Name: fmt.Sprint("function ", n), Address: 1 << 40, Lines: []record.ProgListingLine{}}
		for i := range n {
			line := record.ProgListingLine{ListingLine: record.ListingLine{Offset: uint64(i), Text: "jmp <*%rax>", Indirect: i == 1}}
			if i == 2 {
				line.Source = &record.SourceLine{File: "lb\u009b.c", Line: 7, Text: "return \"listings\";"}
			}
			l.Lines = append(l.Lines, line)
		}
		var want, got bytes.Buffer
		if err := errors.Join(JSON(&want, doc), ProgCodeJSON(t.Context(), &got, doc, linesOf(doc))); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.String(), got.String()); diff != "" {
			t.Errorf("%d listings: %s", n, diff)
		}
		doc.Listings = append(doc.Listings, l)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ProgCodeJSON(ended, new(bytes.Buffer), doc, linesOf(doc)); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}
