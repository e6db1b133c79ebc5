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

// ComparisonSummary counts the rows that a comparison found slower.
func ComparisonSummary(c *record.Comparison) string {
	compared, slower, paired, prices := 0, 0, 0, 0
	for _, row := range c.Rows {
		if row.Difference == nil {
			continue
		}
		compared++
		if row.Regression {
			slower++
		}
		if row.Paired {
			paired++
		}
		if row.Price {
			prices++
		}
	}
	if compared == 0 {
		return "Nothing could be compared."
	}
	what, how := "row", "slower"
	if prices == compared {
		what, how = "price", "higher"
	}
	said := fmt.Sprintf("No %s of %d is proven %s by more than %g %%.", what, compared, how, c.Threshold)
	if slower > 0 {
		said = fmt.Sprintf("%d of %d %ss %s by more than %g %%.", slower, compared, what, how, c.Threshold)
	}
	apart := "Two runs, drift allowed for"
	if paired == compared {
		apart = "Paired round by round"
	}
	return fmt.Sprintf("%s %s; intervals and verdicts hold at 95 %% for all %ss together.", said, apart, what)
}

// ProfileSummary counts the stages that a comparison of profiles found slower.
func ProfileSummary(c *record.ProfileComparison) string {
	compared, slower := 0, 0
	threshold := fmt.Sprintf("%g %% of the packet", c.Threshold)
	for i, row := range c.Rows {
		if i == 0 && row.Old != nil { // the packet
			threshold += fmt.Sprintf(" (%s ns)", stat.Number(c.Threshold/100*row.Old.Median))
		}
		if row.Difference != nil {
			compared++
		}
		if row.Regression {
			slower++
		}
	}
	said := fmt.Sprintf("No row of %d is proven slower by more than %s.", compared, threshold)
	if slower > 0 {
		said = fmt.Sprintf("%d of %d rows slower by more than %s.", slower, compared, threshold)
	}
	return said + " Two runs, drift allowed for; intervals and verdicts hold at 95 % for all rows together."
}

// LabSummary counts the rows that two records of lab agree in.
func LabSummary(c *record.LabComparison) string {
	return fmt.Sprintf("%d rows are equal to the digit, %d are not.", c.Same, len(c.Rows))
}
