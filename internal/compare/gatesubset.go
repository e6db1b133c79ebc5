package compare

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// Subset is a base with those rows alone that have one of the values of each label that is named. Warnings that are of other
// rows are left out. A value that no row has is an error.
func Subset(base *record.Lab, named map[string][]string) (*record.Lab, error) {
	for _, label := range slices.Sorted(maps.Keys(named)) {
		known := make(map[string]bool)
		for i := range base.Rows {
			known[valueOf(&base.Rows[i], label)] = true
		}
		for _, value := range named[label] {
			if !known[value] {
				return nil, fmt.Errorf("the base has no row of %s %s: it has %s", label, value,
					strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			}
		}
	}
	out := *base
	out.Rows, out.Warnings = nil, nil
	left := make(map[string]bool)
	for _, row := range base.Rows {
		if isOf(&row, named) {
			out.Rows = append(out.Rows, row)
		} else {
			left[row.Name] = true
		}
	}
	for _, w := range base.Warnings {
		if !left[w.Row] {
			out.Warnings = append(out.Warnings, w)
		}
	}
	if len(out.Rows) == 0 {
		return nil, errors.New("the base has no row of all that is named together")
	}
	if first, options := &out.Rows[0], base.Rows[0].Build; first.Build != nil && options != nil { // of a guest one row has them
		build := *first.Build
		build.Options = options.Options
		first.Build = &build
	}
	return &out, nil
}

// isOf tells whether a row has one of the values of each label.
func isOf(row *record.LabRow, named map[string][]string) bool {
	for label, values := range named {
		if !slices.Contains(values, valueOf(row, label)) {
			return false
		}
	}
	return true
}

// valueOf is a label of a row, that of the scenario also where the row leaves it out.
func valueOf(row *record.LabRow, label string) string {
	if label == "scenario" {
		return row.Scenario()
	}
	return row.Labels[label]
}
