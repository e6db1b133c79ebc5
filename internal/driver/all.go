package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/unpack"
	"github.com/unthunk/unthunk/ktext"
)

// InspectAll reads modules on all CPUs. Rows with most left to do come first. A module
// that cannot be read is a warning, unless the user named it; one that runs no XDP
// programs is left out likewise. When ctx ends InspectAll returns its error.
func InspectAll(ctx context.Context, files []File) ([]record.DriverRow, []record.Warning, error) {
	var (
		group sync.WaitGroup
		found = make([]*record.DriverRow, len(files))
		errs  = make([]error, len(files))
		next  = make(chan int)
	)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := range next {
				found[i], errs[i] = files[i].inspect(ctx)
			}
		})
	}
	for i := range files {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	group.Wait()
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("read modules: %w", err)
	}
	var (
		rows  []record.DriverRow
		warns []record.Warning
	)
	for i, err := range errs {
		switch {
		case err == nil:
			rows = append(rows, *found[i])
		case files[i].named:
			return nil, nil, err
		case !errors.Is(err, ErrNotXDP):
			warns = append(warns, record.Warning{Text: err.Error()})
		}
	}
	if len(rows) == 0 && len(warns) > 0 {
		return nil, nil, fmt.Errorf("none of %d modules runs XDP programs, and %d could not be read: %s",
			len(files), len(warns), warns[0].Text)
	}
	if len(rows) == 0 {
		return nil, nil, fmt.Errorf("none of %d modules runs XDP programs", len(files))
	}
	slices.SortFunc(rows, func(a, b record.DriverRow) int {
		return cmp.Or(
			cmp.Compare(len(b.Left()), len(a.Left())),
			cmp.Compare(b.Poll.Indirect+b.Transmit.Indirect, a.Poll.Indirect+a.Transmit.Indirect),
			strings.Compare(a.Name, b.Name), strings.Compare(a.Release, b.Release))
	})
	return rows, warns, nil
}

func (f File) inspect(ctx context.Context) (*record.DriverRow, error) {
	release, err := unpack.Reserve(ctx, f.path)
	if err != nil {
		return nil, fmt.Errorf("open kernel code: %w", err)
	}
	defer release()
	return f.read(ctx)
}

// read is inspect without a reservation. That it is a function of its own leaves nothing of
// the module in use when the memory is released.
func (f File) read(ctx context.Context) (*record.DriverRow, error) {
	img, err := ktext.OpenFile(ctx, f.path)
	if err != nil {
		return nil, err
	}
	row, err := Inspect(ctx, img, f.types)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return row, nil
}
