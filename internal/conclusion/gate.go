package conclusion

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Gate is the verdict of a gate as a sentence or two.
func Gate(g *record.Gate) string {
	switch g.Verdict {
	case record.GateCannotTell:
		return "Cannot tell: " + g.Why + "."
	case record.GateWithin:
		text := "Within: " + many(len(g.Rows), "row") + " of the base, and none takes more than is allowed."
		if less := gateChanges(g, func(c *record.GateCount, _ *record.GateRow) bool { return c.Difference() < 0 }); less != "" {
			text += " Less: " + less + "."
		}
		if more := gateChanges(g, func(c *record.GateCount, _ *record.GateRow) bool { return c.Difference() > 0 }); more != "" {
			text += " More, and allowed: " + more + "."
		}
		return text
	}
	more := gateChanges(g, func(c *record.GateCount, r *record.GateRow) bool {
		return r.Verdict == record.GateBeyond && c.Verdict() == record.GateBeyond
	})
	for i := range g.Rows {
		if row := &g.Rows[i]; row.Behavior != "" {
			more = strings.TrimPrefix(more+"; "+row.Name+": "+row.Behavior, "; ")
			break // others are parts of it
		}
	}
	text := "Beyond: " + more + "."
	var untold []string
	for i := range g.Rows {
		if g.Rows[i].Verdict == record.GateCannotTell {
			untold = append(untold, g.Rows[i].Name)
		}
	}
	if len(untold) > 0 {
		text += " Cannot tell: " + strings.Join(untold, ", ") + "."
	}
	return text
}

// GateBase says in a sentence what was counted for a base. file is where it is saved; empty where it is not.
func GateBase(l *record.Lab, file string) string {
	counted, traced := 0, 0
	for i := range l.Rows {
		if l.Rows[i].Refused == "" {
			counted++
		}
		if l.Rows[i].Trace != nil {
			traced++
		}
	}
	text := fmt.Sprintf("%s of %s counted", many(counted, "row"), l.Rows[0].Labels["kernel"])
	if n := len(l.Rows) - counted; n > 0 {
		text += fmt.Sprintf(", %d without a number", n)
	}
	if traced > 0 {
		text += fmt.Sprintf(", %d with a trace", traced)
	}
	if file == "" {
		return text + ": --save FILE makes a base of it."
	}
	return text + fmt.Sprintf(": gate --base %s KERNEL compares with it.", file)
}

// gateHeadline is the beginning of that.
func gateHeadline(g *record.Gate) Headline {
	title, text, _ := strings.Cut(strings.TrimSuffix(Gate(g), "."), ". ")
	return Headline{Title: title, Text: text}
}

// gateChanges lists the rows whose counts changed in a way that counts.
func gateChanges(g *record.Gate, counts func(c *record.GateCount, r *record.GateRow) bool) string {
	const most = 3
	var said []string
	rows := 0
	for i := range g.Rows {
		r := &g.Rows[i]
		var what []string
		for _, c := range []struct {
			name string
			*record.GateCount
		}{{"instructions", r.Instructions}, {"indirect branches", r.Indirect}} {
			if c.GateCount != nil && counts(c.GateCount, r) {
				what = append(what, exactly(c.Difference())+" "+c.name)
			}
		}
		if len(what) == 0 {
			continue
		}
		if rows++; rows <= most {
			said = append(said, r.Name+" "+strings.Join(what, " and "))
		}
	}
	text := strings.Join(said, ", ")
	if rows > most {
		text += fmt.Sprintf(" and %d more", rows-most)
	}
	return text
}

// exactly is a difference of counts with all its digits.
func exactly(x float64) string {
	if x >= 0 {
		return "+" + stat.Exact(x)
	}
	return stat.Exact(x)
}
