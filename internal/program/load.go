package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/memory"
)

// openObject loads a program of an object file with maps of its own.
func openObject(ctx context.Context, path, name string, o Options) (_ *Opened, err error) {
	spec, err := ReadObject(path)
	if err != nil {
		return nil, err
	}
	unpin(spec)
	main, err := choose(spec, path, name)
	if err != nil {
		return nil, err
	}
	opened := &Opened{Name: main, Type: ebpf.XDP, Spec: prune(spec, main)}
	if p := opened.Spec.Programs[main]; p.Type == ebpf.UnspecifiedProgram {
		p.Type = ebpf.XDP
		opened.warnf("section %s says no type: %s is loaded as an XDP program", p.SectionName, main)
	}
	var from *source
	if o.MapsFrom != "" {
		if from, err = openSource(o.MapsFrom); err != nil {
			return nil, err
		}
		defer from.Close()
		opened.shape(from, spec)
	}
	for _, n := range slices.Sorted(maps.Keys(o.Set)) {
		if err := Assign(opened.Spec, n, o.Set[n]); err != nil {
			return nil, err
		}
	}
	fills, err := openFills(opened.Spec, o.Maps)
	if err != nil {
		return nil, err
	}
	defer fills.Close()
	if o.Change != nil {
		if opened.Spec, err = o.Change(opened.Spec); err != nil {
			return nil, err
		}
	}
	if err := opened.load(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = opened.Close()
		}
	}()
	if from != nil {
		if err := opened.copyFrom(ctx, from); err != nil {
			return nil, err
		}
	}
	if err := fills.fill(ctx, opened); err != nil {
		return nil, err
	}
	opened.warnEmpty()
	return opened, nil
}

// load loads the program and its maps.
func (o *Opened) load(path string) error {
	if err := checkMemory(o.Spec.Maps); err != nil {
		return err
	}
	c, err := ebpf.NewCollection(o.Spec)
	if err != nil {
		return explain(o.Spec, path+":"+o.Name, err)
	}
	o.Program = c.DetachProgram(o.Name)
	for _, n := range slices.Sorted(maps.Keys(c.Programs)) {
		o.others = append(o.others, c.DetachProgram(n))
	}
	o.Maps = map[string]*ebpf.Map{}
	for n := range c.Maps {
		o.Maps[n] = c.DetachMap(n)
	}
	return nil
}

// LoadError is a program that the kernel refuses.
type LoadError struct {
	// Program is the object's file with the name of the program.
	Program string
	// Log is what the verifier said, a line each; nil when it said nothing.
	Log []string
	Err error
}

// Error has the last line of the log that says something.
func (e *LoadError) Error() string {
	for _, line := range slices.Backward(e.Log) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "processed ") || strings.HasPrefix(line, "verification time") ||
			strings.HasPrefix(line, "stack depth") || strings.HasPrefix(line, "max_states") {
			continue
		}
		return fmt.Sprintf("load %s: the verifier refuses it: %.300s", e.Program, line)
	}
	return fmt.Sprintf("load %s: %v", e.Program, e.Err)
}

func (e *LoadError) Unwrap() error { return e.Err }

// explain says why the kernel did not take an object: what it lacks, or what it said.
func explain(spec *ebpf.CollectionSpec, name string, err error) error {
	load := &LoadError{Program: name, Err: err}
	if v, ok := errors.AsType[*ebpf.VerifierError](err); ok {
		load.Log = v.Log
	}
	if len(load.Log) == 0 && errors.Is(err, fs.ErrPermission) {
		return feature.Refused(err, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON)
	}
	if lacks := lacking(spec); lacks != nil {
		return lacks
	}
	return load
}

// lacking asks the kernel for what an object needs that an older one does not have: types of
// maps, and helpers. It returns nil when all is there, or the kernel cannot be asked.
func lacking(spec *ebpf.CollectionSpec) *feature.Missing {
	kinds := map[ebpf.MapType]string{}
	for name, m := range spec.Maps {
		kinds[m.Type] = name
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if err := features.HaveMapType(kind); errors.Is(err, ebpf.ErrNotSupported) {
			return &feature.Missing{Feature: fmt.Sprintf("the type of map %s, %v", kinds[kind], kind), Help: "a newer kernel"}
		}
	}
	helpers := map[asm.BuiltinFunc]string{}
	for name, p := range spec.Programs {
		for i := range p.Instructions {
			if ins := &p.Instructions[i]; ins.IsBuiltinCall() {
				helpers[asm.BuiltinFunc(ins.Constant)] = name
			}
		}
	}
	for _, helper := range slices.Sorted(maps.Keys(helpers)) {
		if err := features.HaveProgramHelper(ebpf.XDP, helper); errors.Is(err, ebpf.ErrNotSupported) {
			return &feature.Missing{
				Feature: fmt.Sprintf("the helper %v, which %s calls, for XDP programs", helper, helpers[helper]), Help: "a newer kernel",
			}
		}
	}
	return nil
}

// checkMemory refuses an object whose maps would take more than half of the memory that this
// process may have: the kernel takes that of most maps when they are made.
func checkMemory(specs map[string]*ebpf.MapSpec) error {
	limit := memory.Limit() / 2
	sum := uint64(0)
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		size := mapMemory(specs[name])
		if sum += size; sum > limit {
			return &feature.Missing{
				Feature: fmt.Sprintf("memory for the maps of the object: with %s, of %d MiB, they take %d MiB", name, size>>20, sum>>20),
				Help:    fmt.Sprintf("half of what this process may have is %d MiB", limit>>20),
			}
		}
	}
	return nil
}

// mapMemory is about what the kernel takes for a map when it makes it, in bytes.
func mapMemory(m *ebpf.MapSpec) uint64 {
	align := func(n uint32) uint64 { return (uint64(n) + 7) &^ 7 }
	const element = 64 // struct htab_elem with its bucket
	cpus, each := uint64(ebpf.MustPossibleCPU()), uint64(8)
	switch m.Type {
	case ebpf.Array, ebpf.Queue, ebpf.Stack:
		each = align(m.ValueSize)
	case ebpf.PerCPUArray:
		each += align(m.ValueSize) * cpus
	case ebpf.Hash, ebpf.LRUHash:
		each = element + align(m.KeySize) + align(m.ValueSize)
	case ebpf.PerCPUHash, ebpf.LRUCPUHash:
		each = element + align(m.KeySize) + align(m.ValueSize)*cpus
	case ebpf.RingBuf, ebpf.UserRingbuf:
		each = 1
	case ebpf.LPMTrie:
		return 0 // made as entries come
	}
	if m.Flags&unix.BPF_F_NO_PREALLOC != 0 {
		each = 16 // the buckets
	}
	high, size := bits.Mul64(uint64(m.MaxEntries), each)
	if high > 0 {
		return math.MaxInt64
	}
	return min(size, math.MaxInt64)
}
