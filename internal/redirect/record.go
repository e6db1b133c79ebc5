package redirect

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// maxDisturbed is how much longer the middle window may take than a round's
// number before that is said.
const maxDisturbed = 0.1

// Record turns what was measured into rows and warnings.
func (raw *Raw) Record() ([]record.BenchRow, []record.Warning) {
	var (
		rows  []record.BenchRow
		warns []record.Warning
	)
	if text := raw.Outcome.Warning(); text != "" {
		warns = append(warns, record.Warning{Text: text})
	}
	if raw.Outside != "" {
		warns = append(warns, record.Warning{Text: raw.Outside})
	}
	for i := range raw.Rows {
		row := raw.Rows[i].record()
		rows = append(rows, row)
		if row.Refused != "" {
			continue
		}
		warn := func(format string, args ...any) {
			warns = append(warns, record.Warning{Row: row.Name, Text: fmt.Sprintf(format, args...)})
		}
		if text := raw.Rows[i].Slots.Warning(); text != "" {
			warn("%s", text)
		}
		if r := raw.Rows[i]; r.Layout == TwoCore && r.Tries < 1.1 {
			warn("the generator never waited: its core was the limit, not the one under test")
		}
		if text := raw.Rows[i].nowhere(); text != "" {
			warn("%s", text)
		}
		if d := stat.Median(raw.Rows[i].Disturbed); d > maxDisturbed {
			warn("disturbed: the median window took %.0f %% longer than the number", 100*d)
		}
		for _, text := range stat.Warnings(row.Samples) {
			warn("%s", text)
		}
	}
	return rows, warns
}

func (r *RawRow) record() record.BenchRow {
	row := record.BenchRow{
		Name:          r.Name(),
		Labels:        r.Labels(),
		FramesPerXmit: quantity(r.FramesPerXmit, "frames"),
		CountingCost:  quantity(r.CountingCost, "ns"),
		Counts:        record.Counts(r.Counts),
		Samples:       []float64{},
		Rounds:        []int{},
	}
	if r.Scenario == Prog && r.Verdicts.Seen > 0 {
		v := recorded(r.Verdicts)
		row.Verdicts = &v
	}
	if row.Refused = r.refusal(); row.Refused != "" {
		row.CountingCost = nil
		return row
	}
	row.Samples, row.Rounds = r.NsPerFrame, r.Rounds
	row.Ns = quantity(r.NsPerFrame, "ns")
	mpps := make([]float64, len(r.NsPerFrame))
	for i, ns := range r.NsPerFrame {
		mpps[i] = 1e3 / ns
	}
	row.Mpps = quantity(mpps, "Mpps")
	row.Hop = quantity(r.Hop, "ns")
	return row
}

// noRound refuses a row that no round has a number for: the run ended in its first one, or the machine was so busy that
// the generator of a paced chain never sent the frames of three windows in a slot.
const noRound = "no round was finished"

// refusal says why a row has no number, or nothing.
func (r *RawRow) refusal() string {
	switch {
	case r.Slots.All == 0:
		return "not measured: the run ended before it"
	case r.Slots.Unusable():
		s := r.Counts.Disagree().Error()
		if n := r.Scenario.copies(); n > 1 {
			s += fmt.Sprintf(" of %d expected", r.Counts.Redirected*n)
		}
		if r.Failure != "" {
			s += "; " + r.Failure
		}
		return s
	case len(r.NsPerFrame) == 0:
		return noRound
	}
	return ""
}

// nowhere says that a target may want to redirect, and cannot.
func (r *RawRow) nowhere() string {
	if r.Target == nil || len(r.Target.ports) > 0 || len(r.Target.devmaps) == 0 || r.Verdicts.Redirected > 0 || r.Verdicts.Dropped == 0 {
		return ""
	}
	return fmt.Sprintf("no packet was redirected: entries of the program's devmaps lead nowhere unless --devmap names them (%s)",
		strings.Join(r.Target.devmaps, ", "))
}

func quantity(xs []float64, unit string) *stat.Quantity {
	if len(xs) == 0 {
		return nil
	}
	q := stat.Summarize(xs, unit)
	return &q
}
