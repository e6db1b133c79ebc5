package cells

import (
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// OnWires tells whether a row is of interfaces on wires.
func OnWires(row *record.LabRow) bool { return row.Labels["nic"] != "" && row.Labels["nic"] != "veth" }

// OfProgram tells whether a row is of a program of the user's.
func OfProgram(row *record.LabRow) bool { return row.Labels["prog"] != "" }

// GuestOf is the guest of a row of a program: the row's name without program and class.
func GuestOf(row *record.LabRow) string {
	return strings.TrimSuffix(row.Name, "/prog="+row.Labels["prog"]+"/"+row.Labels["class"])
}

// Mean is a mean of counts: with all its digits where they are few, else with six behind the point.
func Mean(x float64) string {
	text := strconv.FormatFloat(x, 'f', -1, 64)
	if _, digits, _ := strings.Cut(text, "."); len(digits) > 6 {
		text = strconv.FormatFloat(x, 'f', 6, 64)
	}
	return text
}
