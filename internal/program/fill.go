package program

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/unpack"
)

// maxDump is the largest dump that is read, in bytes: a million entries of 64 bytes as bpftool
// writes them.
const maxDump = 2 << 30

// fills are the maps of an object that are to be filled from files.
type fills map[string]*os.File

// used are the files of maps, without those of maps that a spec does not have and need not have.
func (o *Options) used(spec *ebpf.CollectionSpec) map[string]string {
	if !o.SomeMaps {
		return o.Maps
	}
	files := maps.Clone(o.Maps)
	maps.DeleteFunc(files, func(name, _ string) bool { return spec.Maps[name] == nil })
	return files
}

// openFills opens the files, so that what is wrong is said before anything is loaded. Sections
// of variables are filled at once, until ctx ends: the verifier computes with them.
func openFills(ctx context.Context, spec *ebpf.CollectionSpec, files map[string]string) (_ fills, err error) {
	open := fills{}
	defer func() {
		if err != nil {
			open.Close()
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		m := spec.Maps[name]
		if m == nil {
			return nil, noMap(spec, name)
		}
		if w, why := wayOf(m.Type); w == wayMaps || w == wayTable || w == wayNone {
			if why == "" {
				why = fmt.Sprintf("a %v holds what a file cannot: --maps-from copies it", m.Type)
			}
			return nil, &OptionError{Err: fmt.Errorf("map %s cannot be filled from a file: %s", name, why)}
		}
		if err := checkValue(layoutOf(m.Type, m.KeySize, m.ValueSize).stride()); err != nil {
			return nil, &OptionError{Err: fmt.Errorf("map %s cannot be filled from a file: %w", name, err)}
		}
		f, _, err := unpack.Open(files[name], maxDump)
		if err != nil {
			if failed, ok := errors.AsType[*os.PathError](err); ok {
				err = failed.Err
			}
			return nil, fmt.Errorf("fill map %s: open %s: %w", name, files[name], err)
		}
		open[name] = f
		if contents(m) != nil {
			if err := fillVariables(ctx, spec, name, f); err != nil {
				return nil, fmt.Errorf("fill map %s from %s: %w", name, files[name], err)
			}
			delete(open, name)
			f.Close()
		}
	}
	return open, nil
}

// fillVariables fills a section of variables.
func fillVariables(ctx context.Context, spec *ebpf.CollectionSpec, name string, r io.Reader) error {
	m := spec.Maps[name]
	_, err := readDump(ctx, r, layoutOf(m.Type, m.KeySize, m.ValueSize), func(key, value []byte) error {
		if u32(key) != 0 {
			return fmt.Errorf("the key is %d: a section of variables has 0 only", u32(key))
		}
		copy(contents(m), value)
		for _, v := range spec.Variables { // the library writes these over the section
			if v.SectionName == name {
				copy(v.Value, value[v.Offset:])
			}
		}
		return nil
	})
	return err
}

func layoutOf(kind ebpf.MapType, key, value uint32) layout {
	l := layout{key: int(key), value: int(value)}
	if kind == ebpf.PerCPUHash || kind == ebpf.LRUCPUHash || kind == ebpf.PerCPUArray {
		l.cpus = ebpf.MustPossibleCPU()
	}
	return l
}

// fill fills the maps of a loaded object. beside is what maps of other objects take, in bytes.
func (f fills) fill(ctx context.Context, o *Opened, beside uint64) error {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		m := o.Maps[name]
		b := newBatch(m)
		n, entries := 0, 0
		sum := beside + o.memory
		growing := newGrowing(m, &sum)
		flush := func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := growing.add(n); err != nil {
				return err
			}
			err := b.put(m, n)
			n = 0
			return err
		}
		w, _ := wayOf(m.Type())
		d, err := readDump(ctx, f[name], layoutOf(m.Type(), m.KeySize(), m.ValueSize()), func(key, value []byte) error {
			if w == wayDevices {
				if err := growing.add(1); err != nil {
					return err
				}
				err := m.Put(key, withoutProgram(value))
				if errors.Is(err, unix.EINVAL) && (m.Type() == ebpf.DevMap || m.Type() == ebpf.DevMapHash) {
					err = fmt.Errorf("%w: is device %d here?", err, binary.NativeEndian.Uint32(value))
				}
				return err
			}
			entries++
			copy(b.keys[n*b.keySize:], key)
			copy(b.values[n*b.valueSize:], value)
			if n++; n < b.room() {
				return nil
			}
			return flush()
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return fmt.Errorf("fill map %s from %s: %w", name, f[name].Name(), err)
		}
		o.memory = sum - beside
		if m.Type() == ebpf.LRUHash || m.Type() == ebpf.LRUCPUHash {
			_, why, err := kept(ctx, m, entries)
			if err != nil {
				return fmt.Errorf("read map %s: %w", name, err)
			}
			if why != "" {
				o.warnf("map %s: %s", name, why)
			}
		}
		if d.otherCPUs > 0 {
			o.warnf("%s: %d values of CPUs that this machine does not have are left out of map %s", f[name].Name(), d.otherCPUs, name)
		}
		if d.absent > 0 {
			o.warnf("%s: %d keys without a value are left out of map %s", f[name].Name(), d.absent, name)
		}
	}
	return nil
}

// Close closes the files.
func (f fills) Close() {
	for _, file := range f {
		file.Close()
	}
}
