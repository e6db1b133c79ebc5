package progcost

import (
	"fmt"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/prog"
)

// Record turns what was measured of a program into rows and warnings. The second program's costs are those of the first
// and by how much the second took longer in the same windows.
func (raw *Raw) Record(program int) ([]record.CostRow, []record.Warning) {
	warns := raw.warnings(program)
	rows := []record.CostRow{}
	for i, c := range raw.classes {
		row := raw.row(i, program, c)
		if row.Refused == "" {
			for _, text := range raw.doubts(i, program, row.Samples) {
				warns = append(warns, record.Warning{Row: row.Name, Text: text})
			}
		}
		rows = append(rows, row)
	}
	return rows, warns
}

func (raw *Raw) row(i, program int, c class) record.CostRow {
	n := len(raw.packets.Frames)
	row := record.CostRow{
		Name: c.name, Labels: map[string]string{}, Packets: len(c.packets), Share: 100 * float64(len(c.packets)) / float64(n),
		Timed: min(len(c.packets), raw.mostTimed), Verdicts: map[string]int{}, Samples: []float64{}, Rounds: []int{},
	}
	if c.value != "" {
		row.Labels[string(raw.by)] = c.value
	}
	for _, p := range c.packets {
		row.Verdicts[verdict(raw.Clean[program].Outcomes[p].Verdict)]++
	}
	if row.Refused = raw.refusal(i, program); row.Refused != "" {
		return row
	}
	var null []float64
	for _, s := range raw.samples[i] {
		row.Samples = append(row.Samples, s.Cost[0]+float64(program)*s.Between)
		null = append(null, s.Null)
	}
	if len(row.Samples) == 0 {
		row.Refused = "not measured: the run ended before it"
		return row
	}
	row.Rounds = append(row.Rounds, raw.numbers...)
	ns, around := stat.Location(row.Samples, "ns"), stat.Summarize(null, "ns")
	row.Ns, row.Null = &ns, &around
	return row
}

// refusal says why a row has no number of a program; empty when it has.
func (raw *Raw) refusal(i, program int) string {
	if m := raw.checked[i][program]; !m.Tolerable() {
		return "what comes out is not what a single run gives: " + ways(m)
	}
	if raw.found == nil {
		return ""
	}
	if m := raw.found[i][program]; !m.Tolerable() {
		return "timed runs differ from a single run: " + ways(m)
	}
	return ""
}

// ways says what differed.
func ways(m prog.Mismatch) string {
	text := ""
	for _, way := range []struct {
		n    uint64
		what string
	}{{m.Verdicts, "the verdict"}, {m.Lengths, "the length"}, {m.Bytes, "the bytes"}, {m.Lost, "restoring the packet"}} {
		if way.n > 0 {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%s of %.3g %%", way.what, 100*float64(way.n)/float64(m.Runs))
		}
	}
	if m.First != "" {
		text += "; first " + m.First
	}
	return text
}

// doubts are what makes a row's samples less worth.
func (raw *Raw) doubts(i, program int, samples []float64) []string {
	warns := stat.Warnings(samples)
	if raw.found != nil {
		if m := raw.found[i][program]; m.Wrong() > 0 {
			warns = append(warns, fmt.Sprintf("%d of %d runs came out otherwise than a single run", m.Wrong(), m.Runs))
		}
	}
	return warns
}

// warnings are those of all rows: how the program of that number took the packets.
func (raw *Raw) warnings(program int) []record.Warning {
	var warns []record.Warning
	warn := func(format string, args ...any) {
		warns = append(warns, record.Warning{Text: fmt.Sprintf(format, args...)})
	}
	if text := raw.Outcome.Warning(); text != "" {
		warn("%s", text)
	}
	if raw.slow > 0 {
		warn("the program was loaded once, as loading takes %v: the interval does not hold what its place in memory does",
			raw.slow.Round(time.Millisecond))
	}
	clean, n := raw.Clean[program], len(raw.packets.Frames)
	if clean.Learned > 0 {
		warn("%d of %d packets come out otherwise the first time, as the program's maps learn: what counts is the second time",
			clean.Learned, n)
	}
	if clean.Unsteady > 0 {
		warn("%d of %d packets come out otherwise from time to time", clean.Unsteady, n)
	}
	if clean.Varying > 0 {
		warn("%d of %d packets come out with other bytes each time: their bytes are not compared", clean.Varying, n)
	}
	if text := raw.packets.LeftOut(); text != "" {
		warn("left out of the packets: %s", text)
	}
	return warns
}
