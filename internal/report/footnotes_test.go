package report

import (
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
)

// Warnings with one text share a number, as those of no row are said once.
func TestFootnotes(t *testing.T) {
	t.Parallel()
	f := newFootnotes([]record.Warning{
		{Row: "a", Text: "x"}, {Row: "", Text: "z"}, {Row: "b", Text: "y"}, {Row: "b", Text: "x"}, {Row: "b", Text: "y"}, {Row: "", Text: "z"},
	})
	if !slices.Equal(f.texts, []string{"x", "y"}) || !slices.Equal(f.loose, []string{"z"}) {
		t.Errorf("notes %q, of no row %q", f.texts, f.loose)
	}
	if a, b := f.mark("a"), f.mark("b"); a != superscript(1) || b != superscript(2)+","+superscript(1) {
		t.Errorf("a has %s, b %s", a, b)
	}
}
