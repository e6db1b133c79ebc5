package conclusion

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// Headline says where the packets per second went, as far as one record knows.
type Headline struct {
	// Title is one sentence without a full stop, Text a paragraph or two, a line
	// each.
	Title string
	Text  string
	// Tells is set when the record tells: a comparison may not.
	Tells bool
}

// Of is the headline of a record, computed from its numbers.
func Of(s *record.Saved) Headline {
	h := headline(s)
	c := s.Comparison() != nil || s.ProfileComparison() != nil
	h.Tells = !c || h.Tells
	return h
}

// headline says what a record comes to by its kind: a kind is a line here.
func headline(s *record.Saved) Headline {
	switch doc := s.Doc.(type) {
	case *record.Comparison:
		return comparisonHeadline(doc)
	case *record.ProgDiff:
		return progDiffHeadline(doc)
	case *record.ProfileComparison:
		return profileComparisonHeadline(doc)
	case *record.SiteComparison:
		return siteComparisonHeadline(doc)
	case *record.LabComparison:
		counted := many(doc.Same+len(doc.Rows), "row")
		return Headline{Title: fmt.Sprintf("Of %s counted in the guests, %d differ", counted, len(doc.Rows))}
	case *record.Agent:
		return agentHeadline(doc)
	case *record.Gate:
		return gateHeadline(doc)
	case *record.FindingComparison:
		return Headline{Title: strings.TrimSuffix(FindingComparison(doc), ".")}
	case *record.FleetWho:
		return Headline{Title: strings.TrimSuffix(FleetWho(doc), "."), Text: FleetPays(doc)}
	case *record.FleetOdd:
		return Headline{Title: strings.TrimSuffix(FleetOdd(doc), ".")}
	case *record.FleetCompare:
		return Headline{Title: strings.TrimSuffix(FleetCompare(doc), ".")}
	case *record.ProgXray:
		return programHeadline(doc)
	case *record.Check:
		return Headline{Title: fmt.Sprintf("%s about the machine", many(len(doc.Rows), "finding"))}
	case *record.ProgramList:
		return programsHeadline(doc)
	case *record.Lab:
		return labHeadline(doc)
	case *record.ProgCost:
		return costHeadline(doc)
	case *record.ProgWatch:
		return Headline{Title: strings.TrimSuffix(WatchHead(doc), ".")}
	case *record.Document[record.TaxRow]:
		return taxHeadline(doc.Rows)
	case *record.Profile:
		return profileHeadline(doc, "")
	case *record.Document[record.SiteRow]:
		return sitesHeadline(doc)
	case *record.Document[record.BenchRow]:
		return benchHeadline(doc.Rows, s.Stages())
	}
	return Headline{Title: "Nothing was measured"}
}
