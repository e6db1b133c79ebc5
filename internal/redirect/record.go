package redirect

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// maxBad is the share of slots whose counts may disagree before a row has no
// number: a frame can be lost to an interrupt that came at a bad moment, but
// not often.
const maxBad = 0.05

// maxDisturbed is how much longer the middle window may take than a round's
// number before that is said.
const maxDisturbed = 0.1

// Record turns what was measured into rows and warnings.
func (raw *Raw) Record() ([]record.BenchRow, []record.Warning) {
	var (
		rows  []record.BenchRow
		warns []record.Warning
	)
	if !raw.Incomplete && raw.Rounds < raw.Planned {
		warns = append(warns, record.Warning{Text: fmt.Sprintf("%d of %d rounds fitted into the duration", raw.Rounds, raw.Planned)})
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
		if bad := raw.Rows[i].BadSlots; bad > 0 {
			warn("%d of %d slots left out: their packet counts disagreed", bad, raw.Rows[i].Slots)
		}
		if r := raw.Rows[i]; r.Place == TwoCore && r.Tries < 1.1 {
			warn("the generator never waited: its core was the limit, not the one under test")
		}
		if d := stat.Median(raw.Rows[i].Disturbed); d > maxDisturbed {
			warn("disturbed: half of the windows took %.0f %% longer than the number, or more", 100*d)
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
		Observer:      quantity(r.Observer, "ns"),
		Counts:        record.Counts{Sent: r.Sent, Redirected: r.Tested, Received: r.Received},
		Samples:       []float64{},
		Rounds:        []int{},
	}
	if row.Refused = r.refusal(); row.Refused != "" {
		row.Observer = nil
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

// refusal says why a row has no number, or nothing.
func (r *RawRow) refusal() string {
	switch {
	case r.Slots == 0:
		return "not measured: the run ended before it"
	case float64(r.BadSlots) > maxBad*float64(r.Slots):
		s := fmt.Sprintf("packet counts disagree: %d sent, %d redirected, %d received", r.Sent, r.Tested, r.Received)
		if n := r.Scenario.copies(); n > 1 {
			s += fmt.Sprintf(" of %d expected", r.Tested*n)
		}
		if r.Failure != "" {
			s += "; " + r.Failure
		}
		return s
	case len(r.NsPerFrame) == 0:
		return "no round was finished"
	}
	return ""
}

func quantity(xs []float64, unit string) *stat.Quantity {
	if len(xs) == 0 {
		return nil
	}
	q := stat.Summarize(xs, unit)
	return &q
}
