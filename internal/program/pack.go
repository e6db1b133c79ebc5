package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/unpack"
	"github.com/unthunk/unthunk/internal/verifier"
)

// Packed is an object with all that makes its program what it is, to be loaded by another kernel.
type Packed struct {
	// Name is that of the program, Object are the bytes of the file.
	Name   string
	Object []byte
	// Options are those for the other kernel. Maps are to be set to where it has Dumps.
	Options Options
	// Dumps are what maps hold, by name, as bpftool writes them.
	Dumps map[string][]byte
	// Copies say what became of each map that was to be filled from a live program.
	Copies []Copy
}

// MaxPacked is how much a packed object may have of object and dumps, in bytes: a guest has 512 MiB for
// them, unpacked, and for the maps that are made of them.
const MaxPacked = 96 << 20

// ErrNoObject is about a target that is loaded already: another kernel cannot load it.
var ErrNoObject = errors.New("its object file is needed: of a program that is loaded the kernel shows what its verifier made of it, " +
	"and no other kernel takes that")

// Pack reads an object, and what its loader makes of it, without loading it: the values of variables, sizes of maps,
// what tail-call tables and other maps hold. It returns soon after ctx ends. It needs no rights, but for Options.MapsFrom
// those of [Target.Open]. What is wrong with an option is an [OptionError], a target that is no object file [ErrNoObject].
func Pack(ctx context.Context, t Target, o Options) (*Packed, error) {
	return awaitPacked(ctx, func() (*Packed, error) { return packTarget(ctx, t, o) })
}

func packTarget(ctx context.Context, t Target, o Options) (*Packed, error) {
	if !t.Object() {
		return nil, fmt.Errorf("%s: %w", t, ErrNoObject)
	}
	path, name, err := t.file()
	if err != nil {
		return nil, err
	}
	if onBPFFS(path) {
		return nil, fmt.Errorf("%s: %w", t, ErrNoObject)
	}
	object, err := unpack.ReadFile(path, MaxObject)
	if err != nil {
		if failed, ok := errors.AsType[*os.PathError](err); ok {
			err = failed.Err
		}
		return nil, fmt.Errorf("open BPF object %s: %w", path, err)
	}
	spec, err := ParseObject(object)
	if err != nil {
		return nil, fmt.Errorf("read BPF object %s: %w", path, err)
	}
	return pack(ctx, spec, object, path, name, o)
}

// PackObject is [Pack] of the bytes of an object file. name is that of the program when it has several.
func PackObject(ctx context.Context, object []byte, name string, o Options) (*Packed, error) {
	if len(object) > MaxObject {
		return nil, fmt.Errorf("read BPF object: more than %d MiB", MaxObject>>20)
	}
	return awaitPacked(ctx, func() (*Packed, error) {
		spec, err := ParseObject(object)
		if err != nil {
			return nil, fmt.Errorf("read BPF object: %w", err)
		}
		return pack(ctx, spec, object, "the object", name, o)
	})
}

// awaitPacked is [verifier.Await] of what a function packs.
func awaitPacked(ctx context.Context, pack func() (*Packed, error)) (*Packed, error) {
	p, err := verifier.Await(ctx, func() (packed, error) {
		p, err := pack()
		return packed{p}, err
	})
	return p.Packed, err
}

// packed is an [io.Closer].
type packed struct{ *Packed }

func (packed) Close() error { return nil }

func pack(ctx context.Context, spec *ebpf.CollectionSpec, object []byte, path, name string, o Options) (*Packed, error) {
	prepared, err := prepare(ctx, spec, path, name, o)
	if err != nil {
		return nil, err
	}
	defer prepared.Close()
	p := &Packed{Name: prepared.Name, Object: object, Dumps: map[string][]byte{}, Options: Options{
		Set: o.Set, TailCalls: o.TailCalls, Sizes: o.Sizes, WholeLog: o.WholeLog, Run: true,
	}}
	room := MaxPacked - len(object)
	if o.MapsFrom != "" {
		if err := p.take(ctx, prepared, &room); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Maps)) {
		b, err := unpack.ReadFile(o.Maps[name], int64(room))
		if err != nil {
			if failed, ok := errors.AsType[*os.PathError](err); ok {
				err = failed.Err
			}
			return nil, fmt.Errorf("fill map %s: open %s: %w", name, o.Maps[name], err)
		}
		room -= len(b)
		p.Dumps[name] = b
	}
	return p, nil
}

// take takes what the maps of a live program hold.
func (p *Packed) take(ctx context.Context, from *prepared, room *int) error {
	p.Copies = from.Copies // of variables and tail-call tables
	p.Options.TailCalls = map[string]map[uint32]string{}
	p.Options.Sizes, p.Options.Flags = map[string]uint32{}, map[string]uint32{}
	for _, name := range slices.Sorted(maps.Keys(from.Spec.Maps)) {
		spec := from.Spec.Maps[name]
		if contents(spec) != nil {
			var err error
			if p.Dumps[name], err = section(from.Spec, name, *room); err != nil {
				return err
			}
			*room -= len(p.Dumps[name])
			continue
		}
		if spec.MaxEntries > 0 {
			p.Options.Sizes[name] = spec.MaxEntries
		}
		if spec.Flags&allocation != 0 {
			p.Options.Flags[name] = spec.Flags & allocation
		}
		if spec.Type == ebpf.ProgramArray {
			p.Options.TailCalls[name] = map[uint32]string{}
			for _, kv := range spec.Contents {
				index, isIndex := kv.Key.(uint32)
				program, isName := kv.Value.(string)
				if isIndex && isName {
					p.Options.TailCalls[name][index] = program
				}
			}
			continue
		}
		c := Copy{Map: name}
		live, why := from.from.find(name, spec)
		if c.Why = why; live != nil {
			c.From = live.String()
			var err error
			if c.Entries, c.Why, err = p.dump(ctx, name, live.m, room); err != nil {
				return fmt.Errorf("copy map %s: %w", name, err)
			}
		}
		p.Copies = append(p.Copies, c)
	}
	slices.SortFunc(p.Copies, func(a, b Copy) int { return slices.Compare([]byte(a.Map), []byte(b.Map)) })
	return nil
}

// section is a dump of a section of variables, of at most room bytes.
func section(spec *ebpf.CollectionSpec, name string, room int) ([]byte, error) {
	data := slices.Clone(contents(spec.Maps[name]))
	for _, v := range spec.Variables { // the library writes these over the section
		if v.SectionName == name && uint64(v.Offset)+uint64(len(v.Value)) <= uint64(len(data)) {
			copy(data[v.Offset:], v.Value)
		}
	}
	d := dumper{room: room}
	d.entry([]byte{0, 0, 0, 0}, data, false)
	return d.bytes(), d.within()
}

// dump writes down what a live map holds. why says what is left out.
func (p *Packed) dump(ctx context.Context, name string, m *ebpf.Map, room *int) (n int, why string, err error) {
	d := dumper{room: *room}
	w, why := wayOf(m.Type())
	perCPU := layoutOf(m.Type(), m.KeySize(), m.ValueSize()).cpus > 0
	switch w {
	case wayBatch:
		size := int(m.ValueSize())
		n, err = scan(ctx, m, func(b *batch, n int) error {
			for i := range n {
				// Of one for each CPU the first is taken: a guest has one CPU.
				d.entry(b.keys[i*b.keySize:][:b.keySize], b.values[i*b.valueSize:][:size], perCPU)
			}
			return d.within()
		})
		if errors.Is(err, errNoBatches) {
			if perCPU {
				return 0, "the kernel has no batches for this type of map", nil
			}
			n = 0
			err = each(ctx, m, func(key, value []byte) error {
				n++
				d.entry(key, value, false)
				return d.within()
			})
		}
	case wayDevices:
		n, why, err = d.devices(ctx, m)
	case wayMaps:
		return 0, "maps of maps are not taken to another kernel", nil
	default:
		return 0, why, nil
	}
	if err := errors.Join(err, d.within()); err != nil {
		return 0, "", err
	}
	*room -= len(d.b)
	p.Dumps[name] = d.bytes()
	return n, why, nil
}

// devices writes down a devmap or a cpumap. Devices become loopback, which each machine has: in a replay no frame goes
// there, and the verdict is the same.
func (d *dumper) devices(ctx context.Context, m *ebpf.Map) (n int, why string, err error) {
	lost := 0
	err = each(ctx, m, func(key, value []byte) error {
		switch {
		case u32(value) == 0:
			return nil
		case m.Type() == ebpf.CPUMap && u32(key) > 0:
			lost++
			return nil
		case m.Type() != ebpf.CPUMap:
			value = append([]byte{loopback, 0, 0, 0}, value[4:]...)
		}
		n++
		d.entry(key, withoutProgram(value), false)
		return d.within()
	})
	if lost > 0 {
		why = fmt.Sprintf("%d entries are of other CPUs than the first, which is all that a guest has", lost)
	}
	return n, why, err
}

var errTooMuch = fmt.Errorf("the maps hold more than %d MiB as they are written for a guest", MaxPacked>>20)

// loopback is the index of the loopback device in each network namespace.
const loopback = 1

// dumper writes entries as bpftool does, with numbers in place of hex. It writes little more than room bytes, and within tells
// that there are more.
type dumper struct {
	b    []byte
	room int
}

func (d *dumper) entry(key, value []byte, perCPU bool) {
	if len(d.b) == 0 {
		d.b = append(d.b, '[')
	} else {
		d.b = append(d.b, ',')
	}
	d.b = append(d.b, `{"key":`...)
	d.numbers(key)
	if perCPU {
		d.b = append(d.b, `,"values":[{"cpu":0,"value":`...)
		d.numbers(value)
		d.b = append(d.b, "}]}"...)
		return
	}
	d.b = append(d.b, `,"value":`...)
	d.numbers(value)
	d.b = append(d.b, '}')
}

func (d *dumper) numbers(all []byte) {
	d.b = append(d.b, '[')
	for i, b := range all {
		if len(d.b) > d.room {
			return
		}
		if i > 0 {
			d.b = append(d.b, ',')
		}
		d.b = strconv.AppendUint(d.b, uint64(b), 10)
	}
	d.b = append(d.b, ']')
}

// within returns an error when more was to be written than there is room for.
func (d *dumper) within() error {
	if len(d.b) > d.room {
		return errTooMuch
	}
	return nil
}

func (d *dumper) bytes() []byte {
	if len(d.b) == 0 {
		return []byte("[]")
	}
	return bytes.Clone(append(d.b, ']'))
}
