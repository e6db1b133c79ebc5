package conclusion

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// WatchHead says what a program at work was seen to do.
func WatchHead(w *record.ProgWatch) string {
	p := &w.Program
	part := p.ID != p.Attached                                       // of a dispatcher, or reached by a tail call: not by each packet
	name := strings.TrimSpace(fmt.Sprintf("%s id:%d", p.Name, p.ID)) // it may have no name
	text := fmt.Sprintf("%s on %s (%s)", name, p.Device, p.Mode)
	if p.Driver != "" {
		text = fmt.Sprintf("%s on %s (%s, %s)", name, p.Device, p.Driver, p.Mode)
	}
	text += fmt.Sprintf(", %.0f s", w.Seconds)
	value := func(row string) (float64, bool) {
		r := w.Row(row)
		if r == nil || r.Value == nil {
			return 0, false
		}
		return r.Value.Median, true
	}
	if pps, ok := value("packets"); ok {
		switch {
		case w.Sampling.Packets == 0:
			text += ": no packet came"
		case pps < 1e4:
			text += fmt.Sprintf(": %s packets a second", stat.Number(pps))
		default:
			text += fmt.Sprintf(": %s Mpps", stat.Number(pps/1e6))
		}
		if part {
			text += " on the device"
		}
	}
	if ns, ok := value("program"); ok {
		of := "packet"
		if part {
			of = fmt.Sprintf("packet of %s, whether it reaches %s or not,", p.Device, cmp.Or(p.Name, name))
		}
		text += fmt.Sprintf(", %s ns a %s in the program", stat.Number(ns), of)
		if ns, ok := value("path"); ok {
			text += fmt.Sprintf(" of %s in the device’s polls", stat.Number(ns))
		}
	}
	if core, ok := value("core"); ok && w.Sampling.Packets > 0 {
		text += fmt.Sprintf(", %.0f %% of a core", core)
	}
	text += "."
	if w.Ended != "" {
		text += " It ended early: " + w.Ended + "."
	}
	return text
}
