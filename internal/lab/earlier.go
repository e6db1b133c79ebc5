package lab

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
)

// earlier is what a record has of a guest that is not booted again.
type earlier struct {
	rows     []record.LabRow
	warnings []record.Warning
}

// Taken tells whether the rows of a guest are those of [Plan.Earlier].
func (c *CellResult) Taken() bool { return c.earlier != nil }

// CountedOn is the architecture of a guest that has a number, empty for one that has none.
func (c *CellResult) CountedOn() string {
	var build *record.LabBuild
	switch {
	case c.earlier != nil:
		build = c.earlier.rows[0].Build
	case c.Err == nil && c.Measurement != nil && slices.ContainsFunc(c.Bulks, func(b BulkCount) bool { return b.Refused == "" }):
		build = c.Build
	default:
		return ""
	}
	if build == nil {
		return guest.AMD64 // of a record from before guests of another
	}
	return cmp.Or(build.Arch, guest.AMD64)
}

// earlierRows is what [Plan.Earlier] has of a cell, nil unless that is each of its rows, with numbers.
func (p Plan) earlierRows(cell Cell) *earlier {
	if p.Earlier == nil || p.Program != nil {
		return nil
	}
	names, numbers := map[string]bool{cell.Name(): true}, make(map[string]int)
	for i, w := range p.Rows() {
		name := cell.Name() + w.suffix()
		names[name], numbers[name] = true, i
	}
	e, found := &earlier{rows: make([]record.LabRow, len(numbers))}, 0
	for i := range p.Earlier.Rows {
		row := &p.Earlier.Rows[i]
		if n, wanted := numbers[row.Name]; wanted && row.Refused == "" && row.Labels["append"] == cell.Append {
			e.rows[n] = *row
			found++
		}
	}
	if found < len(numbers) {
		return nil
	}
	for _, w := range p.Earlier.Warnings {
		if names[w.Row] {
			e.warnings = append(e.warnings, w)
		}
	}
	return e
}

// Others are the rows of [Plan.Earlier] that the plan does not name.
func (p Plan) Others() (others []record.LabRow) {
	if p.Earlier == nil {
		return nil
	}
	named := make(map[string]bool)
	for _, cell := range p.Cells() {
		for _, w := range p.Rows() {
			named[cell.Name()+w.suffix()] = true
		}
	}
	for _, r := range p.Earlier.Rows {
		if !named[r.Name] {
			others = append(others, r)
		}
	}
	return others
}

// Keep adds to a record of the plan, as [Record] makes it, what [Plan.Earlier] has besides: the rows of [Plan.Others] with their
// warnings and differences, and those of traces of two of them. Rows stand where they stood, and new ones behind them.
func (p Plan) Keep(l *record.Lab) {
	others := p.Others()
	if len(others) == 0 {
		return
	}
	other, rows := make(map[string]bool), make(map[string]record.LabRow)
	var names []string
	for _, r := range others {
		other[r.Name], rows[r.Name] = true, r
		names = append(names, r.Name)
	}
	slices.Sort(names)
	for _, r := range l.Rows {
		rows[r.Name] = r
	}
	var all []record.LabRow
	stands := make(map[string]bool)
	for _, r := range slices.Concat(p.Earlier.Rows, l.Rows) {
		if !stands[r.Name] {
			all, stands[r.Name] = append(all, rows[r.Name]), true
		}
	}
	l.Rows = all
	guests := make(map[string]bool)
	for _, cell := range p.Cells() {
		guests[cell.Name()] = true
	}
	for _, w := range p.Earlier.Warnings {
		guest := w.Row + "/"
		i, _ := slices.BinarySearch(names, guest) // a record may have as many warnings as rows
		if other[w.Row] || w.Row != "" && !guests[w.Row] && i < len(names) && strings.HasPrefix(names[i], guest) {
			l.Warnings = append(l.Warnings, w)
		}
	}
	for _, d := range p.Earlier.Differences {
		with, without := rows[d.With], rows[d.Without]
		if (other[d.With] || other[d.Without]) && with.Program == nil && with.Instructions != nil && without.Instructions != nil {
			l.Differences = append(l.Differences, difference(&with, &without, l.Price))
		}
	}
	for _, c := range p.Earlier.TraceChanges {
		if other[c.Old] && other[c.New] {
			l.TraceChanges = append(l.TraceChanges, c)
		}
	}
}

// earlier is what [Plan.Earlier] has of a cell, nil unless a guest would count the same again: by the same image of the kernel,
// CPU model, QEMU and unthunk, with a trace and with a time where one is wanted and can be had, as far as a try did not fail.
func (p Plan) earlier(ctx context.Context, m *guest.Machine, cell Cell) *earlier {
	e := p.earlierRows(cell)
	if e == nil {
		return nil
	}
	unthunk, errUnthunk := programSum(m.Init, counting(chain.Sum(), countingVersion))
	image, errImage := imageSum(ctx, m.Kernel)
	qemu, errQEMU := m.QEMU.Version(ctx)
	if errors.Join(errUnthunk, errImage, errQEMU) != nil {
		return nil // the boot says what is wrong
	}
	traced, timed := p.Trace && m.Kernel.Arch == guest.AMD64, p.Time && m.Kernel.Arch == runtime.GOARCH
	tried := func(w record.Warning) bool { return w.Row == cell.Name() && strings.HasPrefix(w.Text, noTime+": ") }
	if !p.TimeAgain && slices.ContainsFunc(e.warnings, tried) {
		timed = false
	}
	for i := range e.rows {
		b := e.rows[i].Build
		if b == nil || b.Image != image || b.Unthunk != unthunk || b.QEMU != qemu || b.CPU != cmp.Or(cell.CPU, "max") ||
			traced && e.rows[i].Trace == nil || timed && e.rows[i].Ns == nil {
			return nil
		}
	}
	return e
}
