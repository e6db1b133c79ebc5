package cells

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// Site is the address of a branch: its function and the offset in it.
func Site(row record.SiteRow) string { return fmt.Sprintf("%s+%#x", Clean(row.Function), row.Offset) }

// Made is how a branch is made, in one word.
func Made(row record.SiteRow) string {
	verb := "call"
	if row.Jump {
		verb = "jmp"
	}
	return verb + " " + Clean(row.Kind)
}

// Target is what a branch calls: the last member of the chain, how sure that is
// when it is not, and what the pointer holds now.
func Target(row record.SiteRow) string {
	what := "?"
	if row.Pointer != nil {
		steps := strings.Split(*row.Pointer, " → ")
		what = Clean(steps[len(steps)-1])
		if row.Confidence == "likely" {
			what += " (likely)"
		}
	}
	if len(row.Targets) > 0 {
		what += " = " + Clean(strings.Join(row.Targets, ", "))
	}
	return what
}

// HowOften is how often a branch runs.
func HowOften(row record.SiteRow) string {
	if row.Per == "unknown" {
		return "how often is not known"
	}
	if row.Always {
		return "1 a " + row.Per
	}
	return "at most 1 a " + row.Per
}
