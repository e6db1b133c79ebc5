package cells

import "github.com/unthunk/unthunk/internal/record"

// WatchUnit is the unit of a row of prog watch in words.
func WatchUnit(doc *record.ProgWatch, row *record.WatchRow) string {
	if row.Value == nil {
		return ""
	}
	switch row.Value.Unit {
	case "pps":
		return "packets a second"
	case "percent":
		if row.Name == "core" {
			return "% of a core"
		}
		return "% of the sampled CPUs"
	case "frames":
		return "frames at once"
	case "ns":
		if row.Name == "statistics" {
			return "ns a run"
		}
		if doc.Program.ID != doc.Program.Attached { // a dispatcher or tail calls bring it some of them
			return "ns a packet of " + Clean(doc.Program.Device)
		}
		return "ns a packet"
	}
	return Clean(row.Value.Unit)
}
