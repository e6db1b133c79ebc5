package main

import (
	"bytes"
	"context"

	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/page"
)

// checkTrace refuses a flame graph of more rows than one can have.
func (f *labFlags) checkTrace(plan lab.Plan) error {
	if f.svg == "" {
		return nil
	}
	if rows := len(plan.Cells()) * len(plan.Rows()); rows > 2 {
		return usagef("--svg draws one row or how two differ, and %d are asked for: choose kernels, command lines, --scenario and --bulk", rows)
	}
	return outfile.Check(f.svg)
}

// drawTrace writes the flame graph of those of the rows that were traced.
func (f *labFlags) drawTrace(ctx context.Context, counted []record.LabRow) error {
	if f.svg == "" {
		return nil
	}
	var rows []*record.LabRow
	for i := range counted {
		if counted[i].Trace != nil {
			rows = append(rows, &counted[i])
		}
	}
	if len(rows) == 0 {
		return nil // their errors are told
	}
	var b bytes.Buffer
	if err := page.LabFlame(context.WithoutCancel(ctx), &b, rows); err != nil {
		return err
	}
	return outfile.Write(f.svg, b.Bytes())
}
