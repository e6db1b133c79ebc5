package conclusion

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// FleetIngest says in a sentence what was taken, and what was not.
func FleetIngest(doc *record.FleetIngest) string {
	refused := doc.Documents - doc.New - doc.Known
	return fmt.Sprintf("Of %s %d are new, %d were known, %d were refused.", many(doc.Documents, "document"), doc.New, doc.Known, refused)
}

// FleetWho says in a sentence who was asked.
func FleetWho(doc *record.FleetWho) string {
	return fmt.Sprintf("%s in %s by %s.", many(doc.Machines, "machine"), many(len(doc.Rows), "group"), strings.Join(doc.By, ", "))
}

// FleetOdd says in a sentence how many machines are odd.
func FleetOdd(doc *record.FleetOdd) string {
	return fmt.Sprintf("%d of %s are unlike their twins; %d have too few of them.", len(doc.Rows)+doc.LeftOut,
		many(doc.Machines, "machine"), doc.Alone)
}

// FleetCompare says in a sentence what a rollout costs.
func FleetCompare(doc *record.FleetCompare) string {
	said := "cannot be told"
	switch outcomes := redirectOutcomes(doc); {
	case doc.Regressed():
		said = fmt.Sprintf("slower than the base by more than %s %%", stat.FormatPercent(doc.Threshold))
	case FleetUntold(doc) != "":
	case outcomes[stat.Slower]:
		said = fmt.Sprintf("slower than the base, by no more than %s %% as far as can be told", stat.FormatPercent(doc.Threshold))
	case outcomes[stat.Faster]:
		said = "faster than the base"
	default:
		said = "no difference seen"
	}
	how := fmt.Sprintf("%d machines of the base, %d canaries", doc.BaseMachines, doc.CanaryMachines)
	if doc.Design == "paired" {
		how = fmt.Sprintf("%d machines on both sides, each compared with itself", doc.Paired)
	}
	return fmt.Sprintf("Canaries %s against %s: %s (%s).", doc.Canary, doc.Base, said, how)
}

// redirectOutcomes are the verdicts of rows that decide: those of a redirect.
func redirectOutcomes(doc *record.FleetCompare) map[string]bool {
	found := make(map[string]bool)
	for i := range doc.Rows {
		if row := &doc.Rows[i]; strings.HasPrefix(row.Name, "redirect/") {
			outcome, _, _ := strings.Cut(row.Verdict, " (")
			found[outcome] = true
		}
	}
	return found
}

// FleetUntold says why a comparison does not answer whether a redirect takes longer; it is empty when it does.
func FleetUntold(doc *record.FleetCompare) string {
	outcomes := redirectOutcomes(doc)
	if doc.Regressed() || len(outcomes) > 0 && !outcomes[""] && !outcomes[stat.CannotTell] {
		return ""
	}
	for i := range doc.Rows {
		row := &doc.Rows[i]
		outcome, _, _ := strings.Cut(row.Verdict, " (")
		switch {
		case !strings.HasPrefix(row.Name, "redirect/"):
		case row.Missing != "":
			return row.Name + ": " + row.Missing
		case outcome == stat.CannotTell && row.Needed != nil:
			return fmt.Sprintf("%s: cannot tell: %d canaries would show 1 %%", row.Name, *row.Needed)
		case outcome == stat.CannotTell:
			return row.Name + ": cannot tell: the base has too few machines to show 1 % by any number of canaries"
		}
	}
	return "no machine of both sides has measured a redirect"
}

// FleetNotes are what answers leave out, or cannot know, a sentence each.
func FleetNotes(h *record.FleetHead) []string {
	var notes []string
	if n := h.WrongClock; n > 0 {
		notes = append(notes, fmt.Sprintf("%s left out: the clock of the machine was wrong", many(n, "record")))
	}
	if n := len(h.SharedIDs); n > 0 {
		notes = append(notes, fmt.Sprintf("%s more than one machine, whose records cannot be told apart: give each its own "+
			"/etc/machine-id (%s)", map[bool]string{true: "1 identity is that of", false: fmt.Sprintf("%d identities are those of", n)}[n == 1],
			few(h.SharedIDs)))
	}
	return notes
}

// few are the first of many names.
func few(names []string) string {
	const most = 3
	said := strings.Join(names[:min(len(names), most)], ", ")
	if n := len(names) - most; n > 0 {
		said += fmt.Sprintf(" and %d more", n)
	}
	return said
}
