package ksym

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"

	"github.com/unthunk/unthunk/feature"
)

const path = "/proc/kallsyms"

func hidden() error {
	return &feature.Missing{
		Feature: "access to kernel addresses in " + path,
		Help:    "run as root (CAP_SYSLOG), with kernel.kptr_restrict below 2",
	}
}

// Live reads the symbols of the running kernel. It returns a
// [feature.Missing] when the kernel hides them from this user or was built
// without CONFIG_KALLSYMS. It takes about 0.06 s.
func Live() (*Table, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f, newBuilder(1<<17)) // 120 000 symbols are usual
}

// Select reads the symbols of the running kernel that keep returns true for,
// in the order of the file. It allocates only for those, so it takes a third
// of the time of [Live]. The bytes keep gets are valid for the call.
func Select(keep func(name, module []byte) bool) ([]Symbol, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return selectFrom(f, keep)
}

func selectFrom(r io.Reader, keep func(name, module []byte) bool) ([]Symbol, error) {
	type place struct {
		addr   uint64
		module int // by order of appearance
	}
	var (
		out     []Symbol
		places  []place
		modules = make(map[string]int)
		seen    = false
	)
	for l, err := range scan(r) {
		if err != nil {
			return nil, err
		}
		seen = seen || l.addr != 0
		module, ok := modules[string(l.module)]
		if !ok {
			module = len(modules)
			modules[string(l.module)] = module
		}
		places = append(places, place{l.addr, module})
		if keep(l.name, l.module) {
			out = append(out, Symbol{Addr: l.addr, Type: l.typ, Name: string(l.name), Module: string(l.module)})
		}
	}
	if !seen {
		return nil, hidden()
	}
	// The file is by address except for modules, so this sort is cheap.
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.addr, b.addr) })
	for i, s := range out {
		next := sort.Search(len(places), func(i int) bool { return places[i].addr > s.Addr })
		if next < len(places) && places[next].module == modules[s.Module] {
			out[i].Size = places[next].addr - s.Addr
		}
	}
	return out, nil
}

func open() (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &feature.Missing{Feature: path, Config: "CONFIG_KALLSYMS", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("open kernel symbols: %w", err)
	}
	return f, nil
}
