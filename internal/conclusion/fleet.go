package conclusion

import (
	"cmp"
	"fmt"
	"slices"
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

// FleetPays says which group has the greatest median of a redirect in bulks of 16, what its indirect branches would take of that, and
// which has the least, and how much less where their intervals do not meet; empty where no group has the number. Groups are sorted by
// it. Which of many groups pays most is not judged: each interval holds for its own group only, and the two were picked by their medians.
func FleetPays(doc *record.FleetWho) string {
	var rows []*record.FleetWhoRow
	for i := range doc.Rows {
		if doc.Rows[i].Number(record.FleetRedirectAnswer) != nil {
			rows = append(rows, &doc.Rows[i])
		}
	}
	if len(rows) == 0 {
		return ""
	}
	dear, cheap := rows[0], rows[len(rows)-1]
	most, least := dear.Number(record.FleetRedirectAnswer), cheap.Number(record.FleetRedirectAnswer)
	said := fmt.Sprintf("Who pays: %s (%s), %s ns a packet in bulks of %s", dear.Name, ofMachines(dear, most), stat.Number(most.Median),
		record.AnswerBulk)
	if share := fleetBranches(dear); share != "" {
		said += ", " + share
	}
	if dear == cheap {
		return said + "."
	}
	said += fmt.Sprintf("; the least median is that of %s (%s): %s", cheap.Name, ofMachines(cheap, least), stat.Number(least.Median))
	switch {
	case most.Low > least.High:
		return said + fmt.Sprintf(", %s less.", stat.Number(most.Median-least.Median))
	case most.Low <= least.High:
		return said + ", and their intervals meet."
	}
	return said + ", and one has no interval."
}

// ofMachines is how many machines of a group have a number.
func ofMachines(row *record.FleetWhoRow, q *stat.Quantity) string {
	if q.N == row.Machines {
		return many(row.Machines, "machine")
	}
	return fmt.Sprintf("%d of %s", q.N, many(row.Machines, "machine"))
}

// fleetBranches says what the indirect branches of a redirect would take of a group; empty where it is not known.
func fleetBranches(row *record.FleetWhoRow) string {
	q, of := row.Number(record.FleetIndirect), row.Number(record.FleetRedirectAnswer)
	switch {
	case q == nil:
		return ""
	case of != nil && q.Median > of.Median:
		return fmt.Sprintf("less than its indirect branches would take if each packet? one ran at %s's price (%s)", record.FleetBranch,
			stat.Number(q.Median))
	}
	return fmt.Sprintf("some %s of it for indirect branches if each packet? one runs, at %s's price", stat.Number(q.Median),
		record.FleetBranch)
}

// FleetOdd says in a sentence how many machines are odd, and how many cannot be judged.
func FleetOdd(doc *record.FleetOdd) string {
	said := fmt.Sprintf("%d of %s are unlike their twins; %d have too few of them", len(doc.Rows)+doc.LeftOut,
		many(doc.Machines, "machine"), doc.Alone)
	if doc.Unjudged > 0 {
		said += fmt.Sprintf(", %d too few to judge their numbers", doc.Unjudged)
	}
	if n := doc.Machines - doc.Measured; n > 0 {
		said += fmt.Sprintf(", %d no number", n)
	}
	return said + "."
}

// FleetCompare says in a sentence what a rollout costs.
func FleetCompare(doc *record.FleetCompare) string {
	verdict := "cannot be told"
	switch outcomes := redirectOutcomes(doc); {
	case doc.Regressed():
		verdict = fmt.Sprintf("slower than the base by more than %s %%", stat.FormatPercent(doc.Threshold))
	case rowsUntold(doc) != "" && outcomes[stat.Slower]:
		verdict = fmt.Sprintf("slower than the base, by more than %s %% or not: cannot be told", stat.FormatPercent(doc.Threshold))
	case rowsUntold(doc) != "":
	case outcomes[stat.Slower]:
		verdict = fmt.Sprintf("slower than the base, by no more than %s %%", stat.FormatPercent(doc.Threshold))
	case outcomes[stat.Faster]:
		verdict = "faster than the base"
	default:
		verdict = "no difference seen"
	}
	how := fmt.Sprintf("%d machines of the base, %d canaries", doc.BaseMachines, doc.CanaryMachines)
	if doc.Design == "paired" {
		how = fmt.Sprintf("%d machines on both sides, each compared with itself", doc.Paired)
	}
	said := verdict
	if doc.Unmatched > 0 {
		said = uncompared(doc)
		if doc.Unmatched < doc.CanaryMachines {
			said += "; the others: " + verdict
		}
	}
	return fmt.Sprintf("Canaries %s against %s: %s (%s).", doc.Canary, doc.Base, said, how)
}

// uncompared says how many canaries are compared with nothing.
func uncompared(doc *record.FleetCompare) string {
	switch {
	case doc.CanaryMachines == 1:
		return "the only canary is compared with nothing"
	case doc.Unmatched == 1:
		return fmt.Sprintf("1 of %d canaries is compared with nothing", doc.CanaryMachines)
	}
	return fmt.Sprintf("%d of %d canaries are compared with nothing", doc.Unmatched, doc.CanaryMachines)
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

// FleetUntold says why a comparison does not answer whether a redirect of all canaries takes longer, by more than the threshold; it is
// empty when it does.
func FleetUntold(doc *record.FleetCompare) string {
	switch why := rowsUntold(doc); {
	case doc.Regressed():
		return ""
	case why == "" && doc.Unmatched > 0:
		return uncompared(doc)
	default:
		return why
	}
}

// rowsUntold says why the canaries that are compared do not answer it.
func rowsUntold(doc *record.FleetCompare) string {
	redirects := 0
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if !strings.HasPrefix(row.Name, "redirect/") {
			continue
		}
		redirects++
		if why := untold(row, doc.Threshold); why != "" {
			return row.Name + ": " + why
		}
	}
	switch {
	case redirects > 0:
		return ""
	case doc.Unmatched > 0 && doc.Unmatched == doc.CanaryMachines:
		return fmt.Sprintf("no canary has %d machines of the base of its CPU and hypervisor", stat.MinRounds)
	}
	return "no machine of both sides has measured a redirect"
}

// untold says why a row does not answer whether it takes longer by more than a threshold.
func untold(row *record.FleetCompareRow, threshold float64) string {
	outcome, _, _ := strings.Cut(row.Verdict, " (")
	switch d := row.Difference; {
	case d == nil || outcome == "":
		return cmp.Or(row.Missing, "there is no difference")
	case outcome == stat.Slower && !(d.High <= threshold):
		return fmt.Sprintf("slower by %.1f to %.1f %%: whether by more than %s %% cannot be told", d.Low, d.High, stat.FormatPercent(threshold))
	case outcome == stat.CannotTell && row.Needed != nil:
		return fmt.Sprintf("cannot tell: %d canaries would show 1 %%", *row.Needed)
	case outcome == stat.CannotTell:
		return "cannot tell: the base has too few machines to show 1 % by any number of canaries"
	}
	return ""
}

// FleetNotes are what answers leave out, or cannot know, a sentence each.
func FleetNotes(h *record.FleetHead) []string {
	var notes []string
	if n := h.WrongClock; n > 0 {
		notes = append(notes, fmt.Sprintf("%s left out: the clock of the machine was wrong", many(n, "record")))
	}
	if n := h.Machines - h.Measured; n > 0 && len(h.Unmeasured) > 0 { // older answers name none
		var names []string
		for _, m := range h.Unmeasured {
			names = append(names, m.Name+" ("+m.Reason+")")
		}
		notes = append(notes, fmt.Sprintf("%s without a number: %s", many(n, "machine"), few(names, n)))
	}
	return append(notes, FleetShared(&h.FleetShared)...)
}

// FleetFiles are the first files of a refusal.
func FleetFiles(row *record.FleetRefusal) string {
	if len(row.Files) < 2 {
		return ""
	}
	said := few(row.Files, len(row.Files))
	if len(row.Files) == record.MaxFleetNames {
		said += ", and perhaps others"
	}
	return said
}

// FleetShared says which identities more than one machine has, in a sentence or none.
func FleetShared(shared *record.FleetShared) []string {
	var notes []string
	if n := len(shared.SharedIDs); n > 0 {
		notes = append(notes, fmt.Sprintf("%s more than one machine, whose records cannot be told apart: give each its own "+
			"/etc/machine-id (%s)", map[bool]string{true: "1 identity is that of", false: fmt.Sprintf("%d identities are those of", n)}[n == 1],
			few(sharedBy(shared), n)))
	}
	return notes
}

// sharedBy are identities with the names of machines that have them, where these are known.
func sharedBy(shared *record.FleetShared) []string {
	ids := slices.Clone(shared.SharedIDs)
	for i, id := range ids {
		if names := shared.SharedNames[id]; len(names) > 0 {
			ids[i] = id + " of " + few(names, max(shared.SharedCounts[id], len(names))) // older records have no count
		}
	}
	return ids
}

// few are the first of names, of which there are so many.
func few(names []string, count int) string {
	const most = 3
	first := names[:min(len(names), most)]
	said := strings.Join(first, ", ")
	if n := count - len(first); n > 0 {
		said += fmt.Sprintf(" and %d more", n)
	}
	return said
}
