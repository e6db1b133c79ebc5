package conclusion

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func sitesHeadline(doc *record.Document[record.SiteRow]) Headline {
	count := make(map[string]int)
	for _, row := range doc.Rows {
		if row.CannotRun == "" {
			count[row.Per]++
		}
	}
	may := fmt.Sprintf("%s on the redirect path may run for a packet, %d for a bulk, %d for a poll",
		many(count["packet"], "indirect branch"), count["bulk"], count["poll"])
	rare := fmt.Sprintf("Errors and slow paths have %d more.", count["rare"])
	if doc.Counts != nil {
		return Headline{
			Title: fmt.Sprintf("A packet executes %s indirect branches, counted in a guest", stat.Exact(doc.Counts.CallsPerPacket)),
			Text:  may + ". " + rare,
		}
	}
	return Headline{Title: may, Text: rare}
}

func siteComparisonHeadline(c *record.SiteComparison) Headline {
	count := make(map[string]int)
	for _, row := range c.Rows {
		count[row.Change]++
	}
	return Headline{Title: fmt.Sprintf("Indirect branches: %d new, %d gone, %d changed, %d as they were",
		count["new"], count["gone"], count["changed"], c.Same)}
}

// FindingComparison says in a sentence what two records of check differ in.
func FindingComparison(c *record.FindingComparison) string {
	if why := c.Nothing(); why != "" {
		return fmt.Sprintf("Nothing could be compared: %s.", why)
	}
	worse := 0
	for i := range c.Rows {
		if c.Rows[i].Worse() {
			worse++
		}
	}
	differ := many(len(c.Rows), "finding") + " differ"
	if len(c.Rows) == 1 {
		differ += "s"
	}
	return fmt.Sprintf("%s, with %s (!); %d are alike.", differ, many(worse, "new warning"), c.Same)
}
