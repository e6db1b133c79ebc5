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
	// What a verdict says in parentheses goes on: "cannot tell (the machine changed; would have seen 20 %)".
	said, open := strings.CutSuffix(row.Verdict, ")")
	between := " ("
	if open {
		between = "; "
	}
	return fmt.Sprintf("%s%swould have seen %s %%)", said, between, stat.FormatPercent(row.Judged().Smallest))
}

// StageVerdict is what came out of comparing a stage and what would have been seen.
func StageVerdict(change *record.ProfileChange) string {
	return change.Outcome() + " (" + change.Judged().WouldHaveSeen() + ")"
}

// Seen is a value of a fingerprint.
func Seen(s *string) string {
	if s == nil {
		return "(not seen)"
	}
	return *s
}
