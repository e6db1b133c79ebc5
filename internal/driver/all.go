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

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/unpack"
	"github.com/unthunk/unthunk/ktext"
)

// InspectAll reads modules, those of one kernel after those of another, on all CPUs. Rows
// with most left to do come first. A module that cannot be read is a warning, unless the
// user named it; one that runs no XDP programs is left out likewise. When ctx ends
// InspectAll returns its error.
func InspectAll(ctx context.Context, all []Modules) ([]record.DriverRow, []record.Warning, error) {
	var (
		rows    []record.DriverRow
		warns   []record.Warning
		modules int
	)
	for _, m := range all {
		found, more, err := m.inspect(ctx)
		if err != nil {
			return nil, nil, err
		}
		rows, warns, modules = append(rows, found...), append(warns, more...), modules+len(m.paths)
	}
	if len(rows) == 0 && len(warns) > 0 {
		return nil, nil, fmt.Errorf("none of %d modules runs XDP programs, and %d could not be read: %s",
			modules, len(warns), warns[0].Text)
	}
	if len(rows) == 0 {
		return nil, nil, fmt.Errorf("none of %d modules runs XDP programs", modules)
	}
	slices.SortFunc(rows, func(a, b record.DriverRow) int {
		return cmp.Or(
			cmp.Compare(len(b.Left()), len(a.Left())),
			cmp.Compare(b.Poll.Indirect+b.Transmit.Indirect, a.Poll.Indirect+a.Transmit.Indirect),
			strings.Compare(a.Name, b.Name), strings.Compare(a.Release, b.Release))
	})
	return rows, warns, nil
}

// inspect reads the modules of one kernel.
func (m *Modules) inspect(ctx context.Context) (rows []record.DriverRow, warns []record.Warning, err error) {
	types, used, err := m.types(ctx)
	if err != nil {
		return nil, nil, err
	}
	var (
		budget = unpack.NewBudget(used)
		group  sync.WaitGroup
		found  = make([]*record.DriverRow, len(m.paths))
		errs   = make([]error, len(m.paths))
		next   = make(chan int)
	)
	for range min(runtime.GOMAXPROCS(0), len(m.paths)) {
		group.Go(func() {
			for i := range next {
				found[i], errs[i] = inspect(ctx, m.paths[i], types, used, budget)
			}
		})
	}
	for i := range m.paths {
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
	for i, err := range errs {
		switch {
		case err == nil:
			rows = append(rows, *found[i])
		case m.named:
			return nil, nil, err
		case !errors.Is(err, ErrNotXDP):
			warns = append(warns, record.Warning{Text: err.Error()})
		}
	}
	return rows, warns, nil
}

// inspect reads a module beside types, which take so many bytes of memory.
func inspect(ctx context.Context, path string, types *btf.Spec, used int, budget *unpack.Budget) (*record.DriverRow, error) {
	release, err := budget.Reserve(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open kernel code: %w", err)
	}
	defer release()
	return read(ctx, path, types, used)
}

// read is inspect without a reservation. That it is a function of its own leaves nothing of
// the module in use when the memory is released.
func read(ctx context.Context, path string, types *btf.Spec, used int) (*record.DriverRow, error) {
	img, err := ktext.OpenBeside(ctx, path, used)
	if err != nil {
		return nil, err
	}
	row, err := Inspect(ctx, img, types)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return row, nil
}
