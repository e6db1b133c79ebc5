package cells

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Site is the address of a branch: its function and the offset in it.
func Site(row record.SiteRow) string { return fmt.Sprintf("%s+%#x", Clean(row.Function), row.Offset) }

// Made is how a branch is made: a call or a jump, through what, behind which check of CFI.
func Made(row record.SiteRow) string {
	verb := "call"
	if row.Jump {
		verb = "jmp"
	}
	made := verb + " " + Clean(row.Kind)
	if row.Check != "" {
		made += " behind " + Clean(row.Check)
	}
	return made
}

// Checks says what CFI adds to branches; empty when it adds nothing.
func Checks(rows []record.SiteRow) string {
	checks := make(map[string]int)
	loads, preambles := 0, 0
	for _, row := range rows {
		if row.Check != "" {
			checks[row.Check]++
		}
		loads += row.Loads
		preambles = max(preambles, row.Preamble)
	}
	if len(checks) == 0 {
		return ""
	}
	var parts []string
	n := 0
	for _, check := range slices.Sorted(maps.Keys(checks)) {
		n += checks[check]
		parts = append(parts, fmt.Sprintf("%s at %d", Clean(check), checks[check]))
	}
	text := fmt.Sprintf("CFI checks the target of %d of %d branches: %s.", n, len(rows), strings.Join(parts, ", "))
	if loads > 0 {
		text += fmt.Sprintf(" %d of them load from the text of what they call.", loads)
	}
	if preambles > 0 {
		text += fmt.Sprintf(" What is called runs up to %d instructions more before its first.", preambles)
	}
	return text
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

// SiteCount is how often a guest of lab executed a branch for a packet, "-" without a
// count.
func SiteCount(row record.SiteRow) string {
	if row.PerPacket == nil {
		return "-"
	}
	return stat.Exact(*row.PerPacket)
}

// CannotRun is why branches cannot run, each reason once.
func CannotRun(rows []record.SiteRow) string {
	var out []string
	for _, row := range rows {
		if why := Clean(row.CannotRun); !slices.Contains(out, why) {
			out = append(out, why)
		}
	}
	return strings.Join(out, "; ")
}

// SiteCounts is a sentence about what a guest counted in all.
func SiteCounts(c *record.SiteCounts) string {
	text := fmt.Sprintf("Counted: %s (%s a packet) by %s of lab, Linux %s.",
		PerPackets(c.CallsPerPacket, "indirect branch", "indirect branches"), stat.Exact(c.CallsPerPacket), Clean(c.Row),
		Clean(c.Release))
	if !strings.Contains(c.Row, "/nic=") {
		text += " On veth the generator and the redirect both call ndo_xdp_xmit."
	}
	return text
}

// HowOften is how often a branch runs: as code tells, and as it was counted.
func HowOften(row record.SiteRow) string {
	text := "at most 1 a " + row.Per
	switch {
	case row.CannotRun != "":
		text = "cannot run here"
	case row.Per == "unknown":
		text = "how often is not known"
	case row.Per == "rare":
		text = "rare"
	case row.Always:
		text = "1 a " + row.Per
	}
	switch {
	case row.PerPacket == nil:
		return text
	case *row.PerPacket == 0:
		return text + "; counted: none"
	}
	return text + "; counted: " + PerPackets(*row.PerPacket, "", "")
}
