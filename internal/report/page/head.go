package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// head writes what is above all sections: the title and summary of one record, when
// and on what it was measured, and banners. A new line of the answer goes here.
func (v *viewer) head(out *view) {
	if v.first == nil {
		out.Title = "Nothing was measured"
		if v.src.History != nil {
			out.Title = cells.Clean(conclusion.OfHistory(v.src.History).Title)
		}
		return
	}
	h := conclusion.Of(v.first)
	out.Title = cells.Clean(h.Title)
	for line := range strings.SplitSeq(h.Text, "\n") {
		if line != "" {
			out.Summary = append(out.Summary, cells.Clean(line))
		}
	}
	if n := len(v.src.Records); n > 1 {
		out.Summary = append(out.Summary, fmt.Sprintf("That is %s, one of %d records here.", v.labels[v.first], n))
	}
	out.About = about(v.first)
	out.Banners = v.banners()
}

// firstRecord is the record that the title is of: the kind that says most about where
// the packets per second went, and the latest of that kind. It is nil when there is no
// record.
func firstRecord(records []*record.Saved) *record.Saved {
	if len(records) == 0 {
		return nil
	}
	kinds := []string{"run", "bench", "profile", "lab", "tax"}
	rank := func(s *record.Saved) int {
		if s.Kind == "compare" && conclusion.Of(s).Tells {
			return -1
		}
		if i := slices.Index(kinds, s.Kind); i >= 0 {
			return i
		}
		return len(kinds)
	}
	return slices.MinFunc(records, func(a, b *record.Saved) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.Time.Compare(a.Time))
	})
}

// about is when and on what a record was measured.
func about(s *record.Saved) []string {
	var out []string
	if !s.Time.IsZero() {
		out = append(out, s.Time.UTC().Format("2006-01-02 15:04 UTC"))
	}
	if s.Host.Kernel != "" {
		out = append(out, "Linux "+cells.Clean(s.Host.Kernel))
	}
	if s.Host.CPU != "" {
		out = append(out, cells.Clean(s.Host.CPU))
	}
	if s.Host.IndirectThunk != "" {
		out = append(out, "indirect calls: "+cells.Clean(s.Host.IndirectThunk))
	}
	return out
}

// banners warn of what bears on the whole page.
func (v *viewer) banners() []note {
	var out []note
	var incomplete []string
	warned := 0
	for _, s := range v.src.Records {
		if s.Incomplete {
			incomplete = append(incomplete, v.labels[s])
		}
		warned += len(s.Warnings)
	}
	if len(incomplete) > 0 {
		out = append(out, note{"Incomplete:", strings.Join(incomplete, ", ") + " stopped before the end."})
	}
	if warned > 0 {
		out = append(out, note{
			"! " + cells.Plural(warned, "warning") + ":",
			"the section Warnings says which numbers are uncertain, and why.",
		})
	}
	return out
}
