package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// eachSeries puts the names of all series in the place of debian:all, for guests of the architecture that was asked for. series are
// these names alone.
func (f *labFlags) eachSeries(ctx context.Context, kernels []string) (names, series []string, err error) {
	cache, err := guest.CacheDir()
	if err != nil {
		return nil, nil, err
	}
	for _, kernel := range f.kernels(kernels...) {
		each, err := guest.EachSeries(ctx, cache, kernel)
		if err != nil {
			return nil, nil, err
		}
		if names = append(names, each...); !slices.Contains(each, kernel) {
			series = append(series, each...)
		}
	}
	return names, series, nil
}

// leaveOut returns the kernels without those of series that resolve does not find: an archive lists packages that it has no more. A
// line says so of each. It is an error when none is left.
func leaveOut(ctx context.Context, w io.Writer, kernels, series []string, resolve func(kernel string) error) (kept []string, err error) {
	var missing error
	for _, kernel := range kernels {
		if slices.Contains(series, kernel) {
			if err := resolve(kernel); err != nil && ctx.Err() == nil {
				missing = cmp.Or(missing, err)
				fmt.Fprintf(w, "unthunk: %s is left out: %s\n", cells.Clean(kernel), oneLine(err))
				continue
			}
		}
		kept = append(kept, kernel)
	}
	if len(kept) == 0 {
		return nil, missing
	}
	return kept, nil
}

// leaveOut is [leaveOut] by what can be downloaded.
func (f *labFlags) leaveOut(ctx context.Context, w io.Writer, kernels, series []string) ([]string, error) {
	cache, err := guest.CacheDir()
	if err != nil {
		return nil, err
	}
	return leaveOut(ctx, w, kernels, series, func(kernel string) error {
		_, err := guest.Resolve(ctx, cache, kernel)
		return err
	})
}

// checkResume refuses --resume where there is no record to go on with.
func (f *labFlags) checkResume() error {
	switch {
	case !f.resume:
	case f.run != "":
		return usagef("--run saves no record: leave --resume out")
	case f.output.save == "":
		return usagef("--resume goes on with a record: name it by --save")
	case f.counted.prog != "" || f.annotate != "":
		return usagef("--resume is of redirects: leave --prog and --annotate out")
	}
	return nil
}

// earlier is the record that --resume goes on with, nil without it, and where there is none yet. A signal ends it.
func (f *labFlags) earlier(ctx context.Context) (*record.Lab, error) {
	if !f.resume {
		return nil, nil
	}
	if _, err := os.Stat(f.output.save); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	saved, err := reading(ctx, func() (*record.Saved, error) { return record.Load(f.output.save) })
	if err != nil {
		return nil, err
	}
	if saved.Lab() == nil {
		return nil, usagef("--resume: %s is a record of %s, and not of lab", f.output.save, saved.Kind)
	}
	return saved.Lab(), nil
}

// checkKept refuses a record that would have more rows than one may, with those of others that it keeps.
func (f *labFlags) checkKept(plan lab.Plan) error {
	if n := len(plan.Others()) + len(plan.Cells())*len(plan.Rows()); n > record.MaxRows {
		return fmt.Errorf("--resume: %s would have %d rows, and a record has at most %d: name another by --save", f.output.save, n,
			record.MaxRows)
	}
	return nil
}

// saveSoFar saves what came of guests while others are still to come. What fails is told, and tried again after the next.
func (f *labFlags) saveSoFar(ctx context.Context, s std, doc record.Document[record.LabRow], cells []lab.CellResult, plan lab.Plan) {
	l := lab.Record(cells, plan.Rows(), nil)
	plan.Keep(l)
	doc.Rows, doc.Warnings, doc.Incomplete = l.Rows, l.Warnings, true
	l.Document = doc
	if err := f.replaceRecord(ctx, l); err != nil && !errors.Is(err, errInterrupted) {
		fmt.Fprintln(s.err, "unthunk:", oneLine(err))
	}
}

// lastSave is how long the saving of a record may last when a signal comes: one of 60 MB takes a second.
const lastSave = 500 * time.Millisecond

// replaceRecord saves the record that --resume goes on with. When it lasts longer than [lastSave] behind the end of ctx it gives up, with
// errInterrupted: the record is as it was saved after the guest before.
func (f *labFlags) replaceRecord(ctx context.Context, l *record.Lab) error {
	saving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastSave, cancel) })()
	b, err := reading(saving, func() ([]byte, error) { return record.Encode(l) })
	if err != nil {
		return err
	}
	return outfile.Write(f.output.save, b)
}
