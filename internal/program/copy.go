package program

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// How a type of map is copied.
type way int

const (
	wayBatch   way = iota // keys and values are bytes
	wayMaps               // values are maps, which are copied too
	wayDevices            // values name devices or CPUs, and programs for them
	wayTable              // values are programs: shape has copied them
	wayNone               // what is in it cannot be read, or not be put elsewhere
)

// wayOf says how a map's contents are copied, or why they cannot be.
func wayOf(kind ebpf.MapType) (way, string) {
	switch kind {
	case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.Array, ebpf.PerCPUArray, ebpf.LPMTrie:
		return wayBatch, ""
	case ebpf.ArrayOfMaps, ebpf.HashOfMaps:
		return wayMaps, ""
	case ebpf.DevMap, ebpf.DevMapHash, ebpf.CPUMap:
		return wayDevices, ""
	case ebpf.ProgramArray:
		return wayTable, ""
	case ebpf.XSKMap:
		return wayNone, "it holds AF_XDP sockets of another process: redirects to them find none"
	case ebpf.PerfEventArray:
		return wayNone, "it holds perf events of another process: output to them fails"
	case ebpf.RingBuf, ebpf.UserRingbuf:
		return wayNone, "what is in a ring buffer is its reader's"
	case ebpf.Queue, ebpf.Stack:
		return wayNone, "reading a queue or a stack takes out what is in it"
	case ebpf.BloomFilter:
		return wayNone, "a Bloom filter cannot be read"
	case ebpf.SockMap, ebpf.SockHash, ebpf.ReusePortSockArray:
		return wayNone, "it holds sockets of other processes"
	}
	return wayNone, fmt.Sprintf("maps of type %v are not copied", kind)
}

// copyFrom fills the maps of a loaded object from the live ones, which are only read. What
// cannot be copied is said in Copies. beside is what maps of other objects take, in bytes.
func (o *Opened) copyFrom(ctx context.Context, from *source, own map[string]*ebpf.MapSpec, beside uint64) error {
	inner := innerMaps{maps: map[ebpf.MapID]*ebpf.Map{}, memory: beside + o.memory}
	defer inner.Close()
	for _, name := range slices.Sorted(maps.Keys(own)) { // not those that Change added
		spec, m := o.Spec.Maps[name], o.Maps[name]
		if spec == nil || spec.Type == ebpf.ProgramArray || contents(spec) != nil || m == nil {
			continue
		}
		live, why := from.find(name, spec)
		c := Copy{Map: name, Why: why}
		if live != nil {
			c.From = live.String()
			c.Entries, c.Why = 0, ""
			n, why, err := inner.copy(ctx, spec, live.m, m)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				why = err.Error()
			}
			c.Entries, c.Why = n, why
		}
		o.Copies = append(o.Copies, c)
	}
	o.memory = inner.memory - beside
	slices.SortFunc(o.Copies, func(a, b Copy) int { return slices.Compare([]byte(a.Map), []byte(b.Map)) })
	return nil
}

// innerMaps are copies of the maps in maps of maps, by the live one's id: one that stands in
// several places is copied once.
type innerMaps struct {
	maps map[ebpf.MapID]*ebpf.Map
	// memory is about what the object's maps, those of objects beside it and these take, in bytes.
	memory uint64
}

func (inner *innerMaps) Close() {
	for _, m := range inner.maps {
		m.Close() // the maps that they are in hold them
	}
}

// copy copies what is in a map. why says what was left out.
func (inner *innerMaps) copy(ctx context.Context, spec *ebpf.MapSpec, from, to *ebpf.Map) (n int, why string, err error) {
	w, why := wayOf(from.Type())
	growing := newGrowing(to, &inner.memory)
	switch w {
	case wayBatch:
		n, err = copyEntries(ctx, from, to, growing)
		if err == nil && (to.Type() == ebpf.LRUHash || to.Type() == ebpf.LRUCPUHash) {
			n, why, err = kept(ctx, to, n)
		}
	case wayDevices:
		n, why, err = copyDevices(ctx, from, to, growing)
	case wayMaps:
		n, why, err = inner.copyMaps(ctx, spec, from, to, growing)
	case wayTable:
		why = "its entries are programs"
	}
	return n, why, err
}

// kept counts what an LRU kept: one that is nearly full drops entries while it is filled, as
// each CPU has free ones of its own.
func kept(ctx context.Context, m *ebpf.Map, put int) (n int, why string, err error) {
	n, err = scan(ctx, m, func(*batch, int) error { return nil })
	if n < put {
		why = fmt.Sprintf("the LRU dropped %d of %d entries while it was filled", put-n, put)
	}
	return n, why, err
}

// lost are entries that were not copied: how many, and why the first was not. A map may have millions.
type lost struct {
	n     int
	first string
}

func (l *lost) add(format string, args ...any) {
	if l.n++; l.n == 1 {
		l.first = fmt.Sprintf(format, args...)
	}
}

// copyDevices copies a devmap or a cpumap. The programs of its entries are left out: they run
// where a redirect ends, and not in a replay.
func copyDevices(ctx context.Context, from, to *ebpf.Map, growing *growing) (n int, why string, err error) {
	programs := 0
	var lost lost
	err = each(ctx, from, func(key, value []byte) error {
		if u32(value) == 0 {
			return nil // no device has this index, no queue of a CPU this length
		}
		if len(value) > 4 && u32(value[4:]) != 0 {
			programs++
		}
		if err := growing.add(1); err != nil {
			return err
		}
		if err := to.Put(key, withoutProgram(value)); err != nil {
			lost.add("key %d (%d): %v", u32(key), u32(value), errors.Unwrap(err))
			return nil
		}
		n++
		return nil
	})
	switch {
	case lost.n > 0:
		why = fmt.Sprintf("%d entries: %s", lost.n, lost.first)
	case programs > 0:
		why = fmt.Sprintf("the programs of %d entries, which run where a redirect ends", programs)
	}
	return n, why, err
}

// withoutProgram is a value of struct bpf_devmap_val or bpf_cpumap_val: a device's index or
// the length of a queue, then a program, which is read as an id and written as a descriptor.
func withoutProgram(value []byte) []byte {
	v := make([]byte, len(value))
	copy(v, value[:4])
	return v
}

// maxInner is how many inner maps are copied, each of which is a descriptor for a while.
const maxInner = 4096

// copyMaps copies a map of maps, and the maps in it.
func (inner *innerMaps) copyMaps(
	ctx context.Context, spec *ebpf.MapSpec, from, to *ebpf.Map, growing *growing,
) (n int, why string, err error) {
	if spec == nil || spec.InnerMap == nil {
		return 0, "the object does not say what its inner maps are", nil
	}
	var lost lost
	err = each(ctx, from, func(key, value []byte) error {
		id := ebpf.MapID(u32(value))
		m := inner.maps[id]
		if m == nil {
			if len(inner.maps) == maxInner {
				return fmt.Errorf("more than %d inner maps", maxInner)
			}
			var problem string
			var err error
			if m, problem, err = inner.clone(ctx, spec.InnerMap, id); err != nil {
				return err
			}
			if problem != "" {
				lost.add("inner map %d: %s", id, problem)
			}
			if m == nil {
				return nil
			}
			inner.maps[id] = m
		}
		if err := growing.add(1); err != nil {
			return err
		}
		if err := to.Put(key, m); err != nil {
			lost.add("inner map %d: %v", id, err)
			return nil
		}
		n++
		return nil
	})
	if why = lost.first; lost.n > 1 {
		why = fmt.Sprintf("%s, and %d more", why, lost.n-1)
	}
	return n, why, err
}

// clone makes a copy of an inner map: of the object's types, and of the live one's size.
func (inner *innerMaps) clone(ctx context.Context, template *ebpf.MapSpec, id ebpf.MapID) (_ *ebpf.Map, why string, err error) {
	live, err := mapByID(id)
	if errors.Is(err, ebpf.ErrKeyNotExist) || errors.Is(err, unix.ENOENT) {
		return nil, "it has just been taken out", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("open inner map %d: %w", id, err)
	}
	defer live.Close()
	spec := template.Copy()
	if spec.Type != live.Type() || spec.KeySize != live.KeySize() || spec.ValueSize != live.ValueSize() {
		return nil, fmt.Sprintf("it is a %v with keys of %d and values of %d bytes, the object's a %v with %d and %d",
			live.Type(), live.KeySize(), live.ValueSize(), spec.Type, spec.KeySize, spec.ValueSize), nil
	}
	spec.MaxEntries, spec.Flags, spec.Contents = live.MaxEntries(), live.Flags(), nil
	sum, err := CheckMemory(inner.memory, map[string]*ebpf.MapSpec{fmt.Sprintf("inner map %d", id): spec})
	if err != nil {
		return nil, "", err
	}
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, err.Error(), nil
	}
	inner.memory = sum
	_, why, err = inner.copy(ctx, nil, live, m)
	if err != nil {
		m.Close()
		return nil, "", err
	}
	return m, why, nil
}

// each calls f with each key and value of a map, the values of all CPUs one after the other, in no order, until ctx ends. Keys that
// go meanwhile are left out; when they go faster than they are read, the error is [ebpf.ErrIterationAborted]. It is for small maps:
// batches are faster. The library's iterator hears no context between entries, and a table may have a hundred million that are empty.
func each(ctx context.Context, m *ebpf.Map, f func(key, value []byte) error) error {
	if err := checkValue(valueBytes(m)); err != nil {
		return err
	}
	last, key := any(nil), make([]byte, m.KeySize())
	for n := uint32(0); ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := m.NextKey(last, key)
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("read the next key: %w", err)
		case n == m.MaxEntries(): // keys go while they are read, which begins anew
			return ebpf.ErrIterationAborted
		}
		last = key
		value, err := m.LookupBytes(key)
		switch {
		case err != nil:
			return fmt.Errorf("read entry: %w", err)
		case value == nil:
			continue
		}
		if err := f(slices.Clone(key), value); err != nil {
			return err
		}
	}
}

func u32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

// warnEmpty warns of maps that are empty where a loader would have filled them.
func (o *Opened) warnEmpty() {
	for _, name := range slices.Sorted(maps.Keys(o.Spec.Maps)) {
		spec := o.Spec.Maps[name]
		switch {
		case spec.Type == ebpf.ProgramArray && len(spec.Contents) == 0:
			o.warnf("tail-call table %s is empty: calls through it fail, and the program goes on behind them", name)
		case spec.Type == ebpf.PerfEventArray:
			o.warnf("nobody reads %s: output to it fails at once, which costs less than where it is read", name)
		case spec.Type == ebpf.RingBuf:
			o.warnf("nobody reads ring buffer %s: once it is full, output to it costs less than where it is read", name)
		}
	}
}
