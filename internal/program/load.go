package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/verifier"
)

// prepared is a program of an object file as it is right before it is loaded.
type prepared struct {
	*Opened
	// untyped is the section of a program that says no type.
	untyped string
	// from is where maps are copied from, nil for nowhere.
	from *source
	// fills are the files that maps are filled from.
	fills fills
}

// Close closes what is read from. What was loaded stays.
func (p *prepared) Close() {
	if p.from != nil {
		p.from.Close()
	}
	p.fills.Close()
}

// prepare makes of an object what is to be loaded: one program with the maps that it uses, of their sizes, with
// variables and tail-call tables as they are to be. Nothing is loaded. It must be closed.
func prepare(ctx context.Context, spec *ebpf.CollectionSpec, path, name string, o Options) (_ *prepared, err error) {
	main, err := choose(spec, path, name)
	if err != nil {
		return nil, err
	}
	p := &prepared{Opened: &Opened{Name: main, Type: ebpf.XDP}}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	p.untyped = p.giveType(spec, main)
	if err := p.setTailCalls(spec, o.TailCalls); err != nil {
		return nil, err
	}
	p.Spec = Prune(spec, main)
	for _, table := range slices.Sorted(maps.Keys(o.TailCalls)) {
		if p.Spec.Maps[table] == nil {
			return nil, noMap(p.Spec, table)
		}
	}
	if o.MapsFrom != "" {
		if p.from, err = openSource(ctx, o.MapsFrom, main); err != nil {
			return nil, err
		}
		if err := p.shape(ctx, p.from, spec, o.TailCalls); err != nil {
			return nil, err
		}
	}
	if err := resizeAll(p.Spec, o.Sizes); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Flags)) {
		m := p.Spec.Maps[name]
		if m == nil {
			return nil, noMap(p.Spec, name)
		}
		m.Flags = m.Flags&^allocation | o.Flags[name]&allocation
	}
	if err := checkTailCalls(p.Spec, o.TailCalls); err != nil {
		return nil, err
	}
	for _, n := range slices.Sorted(maps.Keys(o.Set)) {
		if err := Assign(p.Spec, n, o.Set[n]); err != nil {
			return nil, err
		}
	}
	p.fills, err = openFills(ctx, p.Spec, o.used(p.Spec))
	return p, err
}

// openObject loads a program of an object file with maps of its own.
func openObject(ctx context.Context, path, name string, o Options) (_ *Opened, err error) {
	spec, err := ReadObject(ctx, path)
	if err != nil {
		return nil, err
	}
	p, err := prepare(ctx, spec, path, name, o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	opened := p.Opened
	own := opened.Spec.Maps
	if o.Change != nil {
		if opened.Spec, err = o.Change(opened.Spec); err != nil {
			return nil, err
		}
	}
	if err := opened.load(path, o); err != nil {
		if refused, ok := errors.AsType[*LoadError](err); ok {
			refused.Untyped = p.untyped
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = opened.Close()
		}
	}()
	if p.from != nil {
		if err := opened.copyFrom(ctx, p.from, own, memoryOf(o.Beside)); err != nil {
			return nil, err
		}
	}
	if err := p.fills.fill(ctx, opened, memoryOf(o.Beside)); err != nil {
		return nil, err
	}
	opened.warnEmpty()
	opened.warnMisses(ctx, o)
	return opened, nil
}

// giveType is [giveType] with a warning. It returns the section.
func (o *Opened) giveType(spec *ebpf.CollectionSpec, name string) (section string) {
	p := spec.Programs[name]
	if !giveType(p) {
		return ""
	}
	o.warnf("section %s says no type: %s is loaded as an XDP program", p.SectionName, name)
	return p.SectionName
}

// giveType makes a program that the user names one of XDP, when its section says no type, and tells whether it did.
func giveType(p *ebpf.ProgramSpec) bool {
	if p.Type != ebpf.UnspecifiedProgram {
		return false
	}
	p.Type, p.AttachType = ebpf.XDP, ebpf.AttachXDP // as SEC("xdp"): a tail-call table takes one kind only
	return true
}

// setTailCalls puts programs of the object into its tail-call tables, as its loader would.
func (o *Opened) setTailCalls(spec *ebpf.CollectionSpec, tables map[string]map[uint32]string) error {
	for _, table := range slices.Sorted(maps.Keys(tables)) {
		m := spec.Maps[table]
		if m == nil {
			return noMap(spec, table)
		}
		if m.Type != ebpf.ProgramArray {
			return &OptionError{Err: fmt.Errorf("map %s is a %v, and no tail-call table", table, m.Type)}
		}
		unsized := m.MaxEntries == 0 // its loader gives it the entries that it needs
		for _, index := range slices.Sorted(maps.Keys(tables[table])) {
			name := tables[table][index]
			p := spec.Programs[name]
			switch {
			case p == nil:
				known := slices.Sorted(maps.Keys(spec.Programs))
				return &OptionError{Name: name, Known: known, Err: fmt.Errorf("the object has no program %s: it has %s", name, listed(known))}
			case p.Type != ebpf.XDP && p.Type != ebpf.UnspecifiedProgram:
				return &OptionError{Err: fmt.Errorf("%s is no XDP program: %s", name, described(p))}
			}
			o.giveType(spec, name)
			m.Contents = slices.DeleteFunc(m.Contents, func(kv ebpf.MapKV) bool { return kv.Key == index })
			m.Contents = append(m.Contents, ebpf.MapKV{Key: index, Value: name})
			if unsized {
				m.MaxEntries = max(m.MaxEntries, min(index, math.MaxUint32-1)+1)
			}
		}
	}
	return nil
}

// checkTailCalls refuses entries beyond the end of a table: no tail call would find them.
func checkTailCalls(spec *ebpf.CollectionSpec, tables map[string]map[uint32]string) error {
	for _, table := range slices.Sorted(maps.Keys(tables)) {
		size := spec.Maps[table].MaxEntries
		for _, index := range slices.Sorted(maps.Keys(tables[table])) {
			if index >= size {
				return &OptionError{Err: fmt.Errorf(
					"the tail-call table %s has the entries 0 to %d, and none for %s at %d (--map-size %s=N makes it larger)", table, int64(size)-1,
					tables[table][index], index, table)}
			}
		}
	}
	return nil
}

// resizeAll gives maps the numbers of entries that the user wants, and finds those that have none.
func resizeAll(spec *ebpf.CollectionSpec, sizes map[string]uint32) error {
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		m := spec.Maps[name]
		if m == nil {
			return noMap(spec, name)
		}
		if contents(m) != nil {
			return &OptionError{Err: fmt.Errorf("%s is a section of variables, which has one entry", name)}
		}
		m.MaxEntries = sizes[name]
	}
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		switch m := spec.Maps[name]; m.Type {
		case ebpf.PerfEventArray, ebpf.CPUMap, ebpf.StructOpsMap, ebpf.SkStorage, ebpf.TaskStorage, ebpf.InodeStorage,
			ebpf.CGroupStorage, ebpf.PerCPUCGroupStorage, ebpf.CgroupStorage:
			// The library counts CPUs, or the kernel wants none.
		default:
			if m.MaxEntries == 0 {
				unknown = append(unknown, "--map-size "+name+"=N")
			}
		}
	}
	if len(unknown) > 0 {
		return &OptionError{Err: fmt.Errorf(
			"the object leaves sizes of maps to its loader: add %s, or --maps-from a live program", strings.Join(unknown, " "))}
	}
	return nil
}

// noMap is about a map that a program does not use.
func noMap(spec *ebpf.CollectionSpec, name string) error {
	known := slices.Sorted(maps.Keys(spec.Maps))
	err := fmt.Errorf("the program uses no map %s: it uses %s", name, listed(known))
	if len(known) == 0 {
		err = fmt.Errorf("the program uses no map %s, and no other", name)
	}
	return &OptionError{Name: name, Known: known, Err: err}
}

// load loads the program and its maps. An error has the whole log of the verifier if that is wanted.
func (o *Opened) load(path string, options Options) error {
	beside := memoryOf(options.Beside)
	sum, err := CheckMemory(beside, o.Spec.Maps)
	if err != nil {
		return err
	}
	o.memory = sum - beside
	c, err := verifier.Load(o.Spec, ebpf.CollectionOptions{}, options.WholeLog)
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

// ForgetLines takes the source lines out of the spec: the kernel has them from now on, and who counts them asks before. An
// object may have one for each instruction, of 136 bytes, and prog diff keeps two objects, and opens a second copy of each.
func (o *Opened) ForgetLines() {
	for _, p := range o.Spec.Programs {
		for i := range p.Instructions {
			p.Instructions[i] = p.Instructions[i].WithSource(nil)
		}
	}
}

// LoadError is a program that the kernel refuses.
type LoadError struct {
	// Program is the object's file with the name of the program.
	Program string
	// Log is what the verifier said, a line each: its last words, or all with [Options] WholeLog; nil when it said nothing.
	Log []string
	// Untyped is the program's section when that says no type; it was loaded as an XDP program.
	Untyped string
	Err     error
}

// Error has the last line of the log that says something.
func (e *LoadError) Error() string {
	for _, line := range slices.Backward(e.Log) {
		line = strings.TrimSpace(line)
		if verifier.Figure(line) {
			continue
		}
		as := ""
		if e.Untyped != "" {
			as = fmt.Sprintf(" as an XDP program (its section %s says no type)", e.Untyped)
		}
		return fmt.Sprintf("load %s: the verifier refuses it%s: %.300s", e.Program, as, line)
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
	if call := kernelFunction.FindStringSubmatch(err.Error()); call != nil && errors.Is(err, ebpf.ErrNotSupported) {
		return &feature.Missing{
			Feature: fmt.Sprintf("the kernel function %s, which the program calls,", call[1]), Help: "a kernel, or a module, that has it",
		}
	}
	return load
}

// kernelFunction is how the library names a kfunc.
var kernelFunction = regexp.MustCompile(`kfunc "([a-zA-Z0-9_]+)"`)

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
