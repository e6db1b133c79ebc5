package cells

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Verdict is what came out of comparing a row; it always ends in what would have
// been seen.
func Verdict(row *record.CompareRow) string {
	if strings.HasPrefix(row.Verdict, stat.NoDifference) {
		return row.Verdict
	}
	return fmt.Sprintf("%s (would have seen %s %%)", row.Verdict, stat.FormatPercent(row.Difference.Smallest))
}

// StageVerdict is what came out of comparing a stage and what would have been seen.
func StageVerdict(change *record.ProfileChange) string {
	return VerdictWord(change.Verdict) + " (" + change.Difference.WouldHaveSeen() + ")"
}

// VerdictWord is a verdict without what a record adds to it in brackets.
func VerdictWord(verdict string) string {
	word, _, _ := strings.Cut(verdict, " (")
	return word
}

// Seen is a value of a fingerprint.
func Seen(s *string) string {
	if s == nil {
		return "(not seen)"
	}
	return *s
}

// LabSummary counts the rows that two records of lab agree in.
func LabSummary(c *record.LabComparison) string {
	return fmt.Sprintf("%d rows are equal to the digit, %d are not.", c.Same, len(c.Rows))
}
