package program

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Copy is what became of one map of an object that was to be filled from a live program's.
type Copy struct {
	// Map is its name in the object, From the live map's: "flows (id 12)".
	Map, From string
	// Entries is how many were copied. It is 1 for a section of variables.
	Entries int
	// Why says what was not copied; empty when all was.
	Why string
}

// shape makes an object what the live program is, before it is loaded: sizes of maps, the
// programs in tail-call tables, and variables, which the verifier computes with. It returns no other error than that of ctx.
func (o *Opened) shape(ctx context.Context, from *source, whole *ebpf.CollectionSpec, tables map[string]map[uint32]string) error {
	done := map[string]bool{}
	for again := true; again; {
		again = false
		for _, name := range slices.Sorted(maps.Keys(o.Spec.Maps)) {
			if done[name] || o.Spec.Maps[name].Type != ebpf.ProgramArray {
				continue
			}
			// The programs in it bring maps of their own, which may be tables again.
			done[name], again = true, true
			o.fillTable(ctx, from, whole, name, tables[name])
			if err := ctx.Err(); err != nil {
				return err
			}
			o.Spec = Prune(whole, o.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Spec.Maps)) {
		spec := o.Spec.Maps[name]
		if spec.Type == ebpf.ProgramArray {
			continue
		}
		live, why := from.find(name, spec)
		switch {
		case live == nil && contents(spec) != nil:
			o.Copies = append(o.Copies, Copy{Map: name, Why: why})
		case live == nil: // said when the others are copied
		case contents(spec) != nil:
			o.Copies = append(o.Copies, o.copyVariables(name, spec, live))
		default:
			resize(spec, live)
		}
	}
	return nil
}

// allocation are the flags that say how a map's elements are allocated.
const allocation = unix.BPF_F_NO_PREALLOC | unix.BPF_F_NO_COMMON_LRU

// resize gives a map the size of the live one, which its loader may have chosen, and how its
// elements are allocated: both change what a lookup costs.
func resize(spec *ebpf.MapSpec, live *liveMap) {
	spec.MaxEntries = live.info.MaxEntries
	spec.Flags = spec.Flags&^allocation | live.info.Flags&allocation
}

// maxTable is how many entries of a tail-call table are taken: one takes some 60 bytes here.
const maxTable = 1 << 20

// fillTable gives a tail-call table the object's programs that stand in the live one.
func (o *Opened) fillTable(ctx context.Context, from *source, whole *ebpf.CollectionSpec, name string, chosen map[uint32]string) {
	spec := whole.Maps[name]
	live, why := from.find(name, spec)
	c := Copy{Map: name, Why: why}
	defer func() { o.Copies = append(o.Copies, c) }()
	if live == nil {
		return
	}
	c.From = live.String()
	spec.Contents = slices.DeleteFunc(spec.Contents, func(kv ebpf.MapKV) bool {
		index, ok := kv.Key.(uint32)
		return !ok || chosen[index] == ""
	})
	if table := spec.MaxEntries; table < live.info.MaxEntries || len(chosen) == 0 {
		resize(spec, live)
	}
	var lost []string // the first of them
	more := 0
	err := each(ctx, live.m, func(key, value []byte) error {
		id := ebpf.ProgramID(u32(value))
		target := from.programs[id]
		program := inObject(whole, target)
		if chosen[u32(key)] != "" {
			return nil // the user has another there
		}
		if program == "" {
			if len(lost) == mostListed {
				more++
				return nil
			}
			lost = append(lost, fmt.Sprintf("entry %d is %s (id %d)", u32(key), target.name, id))
			return nil
		}
		if len(spec.Contents) == maxTable {
			return fmt.Errorf("more than %d entries", maxTable)
		}
		spec.Contents = append(spec.Contents, ebpf.MapKV{Key: u32(key), Value: program})
		c.Entries++
		return nil
	})
	switch {
	case err != nil:
		c.Why = err.Error()
	case more > 0:
		c.Why = fmt.Sprintf("%s and %d more, which the object does not have", listed(lost), more)
	case len(lost) > 0:
		c.Why = listed(lost) + ", which the object does not have"
	}
}

// inObject finds the program of an object that a loaded one was made of: by its name, or by
// the hash of its instructions.
func inObject(spec *ebpf.CollectionSpec, target tailCall) string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		if name == target.name {
			return name
		}
		if len(target.name) == maxName && cut(name) == target.name {
			found = append(found, name)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p := spec.Programs[name]
		if len(found) > 0 && !slices.Contains(found, name) {
			continue
		}
		if same, err := p.Instructions.HasTag(target.tag, spec.ByteOrder); err == nil && same {
			return name
		}
	}
	return ""
}

// copyVariables gives an object's variables the values that they have in a live map: each by
// its name where BTF tells, as an object that was changed may have them in other places.
func (o *Opened) copyVariables(name string, spec *ebpf.MapSpec, live *liveMap) Copy {
	c := Copy{Map: name, From: live.String()}
	if err := checkValue(int(live.info.ValueSize)); err != nil {
		c.Why = err.Error()
		return c
	}
	data := make([]byte, live.info.ValueSize)
	if err := live.m.Lookup(uint32(0), data); err != nil {
		c.Why = err.Error()
		return c
	}
	ds, known := live.datasec(), spec.Value != nil
	if ds == nil || !known {
		if live.info.ValueSize != spec.ValueSize {
			c.Why = fmt.Sprintf("the live one has %d bytes, the object's %d, and no BTF tells which variable is where",
				live.info.ValueSize, spec.ValueSize)
			return c
		}
		copy(contents(spec), data)
		for _, v := range o.Spec.Variables { // the library writes these over the section
			if v.SectionName == name {
				copy(v.Value, data[v.Offset:])
			}
		}
		c.Entries = 1
		return c
	}
	was := map[string][]byte{}
	for _, info := range ds.Vars {
		if v, ok := info.Type.(*btf.Var); ok && uint64(info.Offset)+uint64(info.Size) <= uint64(len(data)) {
			was[v.Name] = data[info.Offset:][:info.Size]
		}
	}
	var lost []string
	all := variables(o.Spec)
	for _, variable := range slices.Sorted(maps.Keys(all)) {
		v := all[variable]
		if v.section != name {
			continue
		}
		if b := was[variable]; b != nil && len(b) == len(v.data) {
			copy(v.data, b)
		} else {
			lost = append(lost, variable)
		}
	}
	c.Entries = 1
	if len(lost) > 0 {
		c.Why = "the live one has no variable of this name and size: " + listed(lost)
	}
	return c
}

// String is a live map's name and id.
func (m *liveMap) String() string {
	id, _ := m.info.ID()
	return fmt.Sprintf("%s (id %d)", m.name, id)
}
