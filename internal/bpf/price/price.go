// Package price holds pairs of programs that do the same work and differ in one
// indirect branch, and the programs that chains are priced with.
package price

import (
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel price price.bpf.c -- -O2 -g -Wall -Werror -I../headers

// Run is what a program says of one run of itself.
type Run struct {
	// Ns is how long all turns took, in ns, by bpf_ktime_get_ns.
	Ns uint64
	// Turns is how often it did its work.
	Turns uint64
	// Sum is what the work gave.
	Sum uint64
}

// Pair is two programs that share their maps, and so their data.
type Pair struct {
	// Programs are in the order of their names.
	Programs [2]*ebpf.Program

	coll  *ebpf.Collection
	state *ebpf.Variable
	frame []byte
}

// LoadPair loads two programs of the family by name, with the maps they share.
// Two equal names load one program twice. It needs BTF. Requires at least Linux
// 5.18.
func LoadPair(names [2]string) (p *Pair, err error) {
	p = &Pair{frame: make([]byte, 64)}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	spec, err := loadPrice()
	if err != nil {
		return p, err
	}
	programs := make(map[string]*ebpf.ProgramSpec)
	used := make(map[string]bool) // maps
	for i, name := range names {
		program := spec.Programs[name]
		if program == nil {
			return p, fmt.Errorf("load pair: no program %q", name)
		}
		programs[label(i)] = program.Copy()
		for _, ins := range program.Instructions {
			used[ins.Reference()] = true
		}
	}
	spec.Programs = programs
	maps.DeleteFunc(spec.Maps, func(name string, _ *ebpf.MapSpec) bool { return !used[name] })
	if p.coll, err = ebpf.NewCollection(spec); err != nil {
		return p, fmt.Errorf("load %s and %s: %w", names[0], names[1], err)
	}
	p.state = p.coll.Variables[priceVarRun]
	for i, name := range names {
		p.Programs[i] = p.coll.Programs[label(i)]
		if m := p.coll.Maps[name+"_map"]; m != nil {
			if err := m.Put(uint32(0), uint32(p.Programs[i].FD())); err != nil {
				return p, fmt.Errorf("fill %s_map: %w", name, err)
			}
		}
	}
	return p, p.fill()
}

// label is the name of the i-th program in a collection.
func label(i int) string { return strconv.Itoa(i) }

// fill puts the one element that all lookups find into their maps.
func (p *Pair) fill() error {
	const value = uint64(7) // VALUE of the C source
	key := priceKey{Prefix: 32, Data: 1}
	for name, k := range map[string]any{
		priceMapArray: key.Prefix, priceMapHash: key, priceMapLpm: key,
	} {
		m := p.coll.Maps[name]
		if m == nil {
			continue
		}
		if err := m.Put(k, value); err != nil {
			return fmt.Errorf("fill %s: %w", name, err)
		}
	}
	return nil
}

// Run runs the i-th program of the pair once on the calling thread.
func (p *Pair) Run(i int) (Run, error) {
	if err := p.state.Set(priceRun{}); err != nil {
		return Run{}, fmt.Errorf("reset program: %w", err)
	}
	if _, err := p.Programs[i].Run(&ebpf.RunOptions{Data: p.frame, Repeat: 1}); err != nil {
		return Run{}, fmt.Errorf("run program: %w", err)
	}
	var run priceRun
	if err := p.state.Get(&run); err != nil {
		return Run{}, fmt.Errorf("read program: %w", err)
	}
	return Run{Ns: run.Ns, Turns: run.Turns, Sum: run.Sum}, nil
}

// Close unloads the pair.
func (p *Pair) Close() {
	if p.coll != nil {
		p.coll.Close()
	}
}

// Load loads one program of the family that stands by itself: "nothing",
// "reference", "second" or "observer".
func Load(name string) (*ebpf.Program, error) {
	spec, err := loadPrice()
	if err != nil {
		return nil, err
	}
	program := spec.Programs[name]
	if program == nil {
		return nil, errors.New("load program: no program " + name)
	}
	p, err := ebpf.NewProgram(program)
	if err != nil {
		return nil, fmt.Errorf("load program %s: %w", name, err)
	}
	return p, nil
}
