package program

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
)

const (
	// asyncSize is more than struct bpf_hrtimer, bpf_work and bpf_task_work_ctx have (kernel/bpf/helpers.c).
	asyncSize = 256
	// kptrSize is more than what a program has the kernel make and then keeps: struct bpf_cpumask, of a bit for each CPU.
	kptrSize = 2 << 10
	// maxObjects is how deep types may be in types.
	maxObjects = 32
)

// objectsOf is what programs may have the kernel allocate for a value of a map, beside it, in bytes: for a timer, for work, for
// what a kptr points to. Lists and trees have no bound, which is an error. The kernel finds all these by the value's type; of nil it
// finds none.
func objectsOf(value btf.Type, cpus uint64) (uint64, error) {
	return (&objectSizes{cpus, map[btf.Type]uint64{}}).of(value, 0)
}

// objectSizes are the bytes of objects for types that were looked at.
type objectSizes struct {
	cpus uint64
	seen map[btf.Type]uint64
}

func (o *objectSizes) of(t btf.Type, depth int) (size uint64, err error) {
	if size, seen := o.seen[t]; seen {
		return size, nil
	}
	if depth > maxObjects {
		return 0, errors.New("its type has types in types without end")
	}
	defer func() {
		if err == nil {
			o.seen[t] = size
		}
	}()
	var parts []btf.Type
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		switch t.Name {
		case "bpf_timer", "bpf_wq", "bpf_task_work":
			return kmalloc(asyncSize), nil
		case "bpf_list_head", "bpf_rb_root":
			return 0, fmt.Errorf("it has a %s, to which a program may add without end", t.Name)
		}
		parts = membersOf(t.Members)
	case *btf.Union:
		parts = membersOf(t.Members)
	case *btf.Datasec:
		for _, v := range t.Vars {
			parts = append(parts, v.Type)
		}
	case *btf.Var:
		parts = []btf.Type{t.Type}
	case *btf.Array:
		size, err = o.of(t.Type, depth+1)
		return times(size, uint64(t.Nelems)), err
	case *btf.Pointer:
		return o.pointed(t, depth)
	}
	for _, part := range parts {
		one, err := o.of(part, depth+1)
		if err != nil {
			return 0, err
		}
		size = plus(size, one)
	}
	return size, nil
}

// pointed is of what a pointer owns, and of the objects for that: __kptr and __percpu_kptr are type tags.
func (o *objectSizes) pointed(p *btf.Pointer, depth int) (uint64, error) {
	tag, ok := p.Target.(*btf.TypeTag)
	if !ok || tag.Value != "kptr" && tag.Value != "percpu_kptr" {
		return 0, nil
	}
	size := uint64(kptrSize)
	if declared, err := btf.Sizeof(tag.Type); err == nil {
		size = max(size, kmalloc(uint64(declared)))
	}
	if tag.Value == "percpu_kptr" {
		size = times(size, o.cpus)
	}
	more, err := o.of(tag.Type, depth+1)
	return plus(size, more), err
}

func membersOf(members []btf.Member) (types []btf.Type) {
	for _, m := range members {
		types = append(types, m.Type)
	}
	return types
}
