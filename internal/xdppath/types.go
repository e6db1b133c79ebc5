package xdppath

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/cilium/ebpf/btf"
)

// maxNest bounds how deep structs are searched for a member.
const maxNest = 12

// types looks up BTF and remembers what it found. A nil spec has no types.
type types struct {
	spec    *btf.Spec
	funcs   map[string]proto
	vars    map[string]btf.Type
	structs map[string]btf.Type
	sizes   map[btf.Type]int64
	members map[place]member
	perCPU  section
}

// section are the variables of a section of data that begins at base.
type section struct {
	base uint64
	vars []sectionVar // by offset
}

type sectionVar struct {
	off, size int64
	name      string
}

// variableOffset is a variable and an offset in it.
type variableOffset struct {
	name string
	off  int64
}

func (s *section) at(addr uint64) (variableOffset, bool) {
	if s.base == 0 || addr < s.base {
		return variableOffset{}, false
	}
	off := int64(addr - s.base)
	i := sort.Search(len(s.vars), func(i int) bool { return s.vars[i].off > off })
	if i == 0 || off >= s.vars[i-1].off+s.vars[i-1].size {
		return variableOffset{}, false
	}
	v := s.vars[i-1]
	return variableOffset{v.name, off - v.off}, true
}

// readPerCPU lists the per-CPU variables of BTF.
func (t *types) readPerCPU() {
	if t.spec == nil {
		return
	}
	var d *btf.Datasec
	if t.spec.TypeByName(".data..percpu", &d) != nil {
		return
	}
	for _, v := range d.Vars {
		t.perCPU.vars = append(t.perCPU.vars, sectionVar{int64(v.Offset), int64(v.Size), v.Type.TypeName()})
	}
	slices.SortFunc(t.perCPU.vars, func(a, b sectionVar) int { return cmp.Compare(a.off, b.off) })
}

// proto is the prototype of a function by name.
type proto struct {
	typ  *btf.FuncProto
	sure bool // no other function has that name
}

// place is an offset in a type, and what is wanted there.
type place struct {
	typ  btf.Type
	off  int64
	want want
}

// want tells which member of a union to prefer.
type want uint8

const (
	wantPointer  want = iota // a pointer to a struct
	wantFunction             // a pointer to a function
	wantObject               // what begins there, structs before their members
)

// member is what lies at a place.
type member struct {
	path string   // ".slow.init_callback", empty for the type itself
	typ  btf.Type // stripped; nil when nothing was found
	// many is set when the path goes through an array.
	many bool
}

func newTypes(spec *btf.Spec) *types {
	return &types{
		spec:    spec,
		funcs:   make(map[string]proto),
		vars:    make(map[string]btf.Type),
		structs: make(map[string]btf.Type),
		sizes:   make(map[btf.Type]int64),
		members: make(map[place]member),
	}
}

// strip drops names and qualifiers.
func strip(t btf.Type) btf.Type {
	if t == nil {
		return nil
	}
	return btf.UnderlyingType(t)
}

// pointee is what a pointer type points to, stripped; nil for other types and
// for void.
func pointee(t btf.Type) btf.Type {
	p, ok := strip(t).(*btf.Pointer)
	if !ok {
		return nil
	}
	target := strip(p.Target)
	if _, void := target.(*btf.Void); void {
		return nil
	}
	return target
}

// proto is the prototype of the function called name.
func (t *types) proto(name string) proto {
	if t.spec == nil {
		return proto{}
	}
	if p, ok := t.funcs[name]; ok {
		return p
	}
	var p proto
	all, _ := t.spec.AnyTypesByName(name)
	n := 0
	for _, typ := range all {
		f, ok := typ.(*btf.Func)
		if !ok {
			continue
		}
		if fp, ok := f.Type.(*btf.FuncProto); ok && n == 0 {
			p.typ = fp
		}
		n++
	}
	p.sure = n == 1
	t.funcs[name] = p
	return p
}

// variable is the stripped type of a variable. BTF has those of per-CPU data
// only; the path needs few others, which are listed in rules.go.
func (t *types) variable(name string) btf.Type {
	if t.spec == nil {
		return nil
	}
	if typ, ok := t.vars[name]; ok {
		return typ
	}
	var found btf.Type
	all, _ := t.spec.AnyTypesByName(name)
	for _, typ := range all {
		if v, ok := typ.(*btf.Var); ok {
			found = strip(v.Type)
			break
		}
	}
	if g, ok := globals[name]; ok && found == nil {
		if s := t.structure(g.typ); s != nil {
			found = s
			if g.pointer {
				found = &btf.Pointer{Target: s}
			} else if g.array > 0 {
				found = &btf.Array{Type: s, Nelems: g.array}
			}
		}
	}
	t.vars[name] = found
	return found
}

// structure is the struct called name; nil when there is none.
func (t *types) structure(name string) btf.Type {
	if t.spec == nil || name == "" {
		return nil
	}
	if s, ok := t.structs[name]; ok {
		return s
	}
	var found btf.Type
	var s *btf.Struct
	if t.spec.TypeByName(name, &s) == nil {
		found = s
	} else if all, _ := t.spec.AnyTypesByName(name); len(all) > 0 {
		// Several structs of one name: the first.
		for _, typ := range all {
			if s, ok := typ.(*btf.Struct); ok {
				found = s
				break
			}
		}
	}
	t.structs[name] = found
	return found
}

// offset is where member lies in the struct called name, in bytes. The member
// may be nested: "ns.inum".
func (t *types) offset(name, path string) (int64, bool) {
	return offsetIn(t.structure(name), path, maxNest)
}

func offsetIn(typ btf.Type, path string, depth int) (int64, bool) {
	var members []btf.Member
	switch s := typ.(type) {
	case *btf.Struct:
		members = s.Members
	case *btf.Union:
		members = s.Members
	}
	if depth == 0 {
		return 0, false
	}
	for _, m := range members {
		off := int64(m.Offset.Bytes())
		if m.Name == path {
			return off, true
		}
		rest := ""
		switch {
		case m.Name == "":
			rest = path
		case len(path) > len(m.Name) && path[:len(m.Name)] == m.Name && path[len(m.Name)] == '.':
			rest = path[len(m.Name)+1:]
		default:
			continue
		}
		if in, ok := offsetIn(strip(m.Type), rest, depth-1); ok {
			return off + in, true
		}
	}
	return 0, false
}

// size is that of a type in bytes; 0 when it has none.
func (t *types) size(typ btf.Type) int64 {
	if n, ok := t.sizes[typ]; ok {
		return n
	}
	n, err := btf.Sizeof(typ)
	if err != nil || n < 0 {
		n = 0
	}
	t.sizes[typ] = int64(n)
	return int64(n)
}

// at is what lies off bytes into typ.
func (t *types) at(typ btf.Type, off int64, w want) member {
	if typ == nil || off < 0 {
		return member{}
	}
	key := place{typ, off, w}
	if m, ok := t.members[key]; ok {
		return m
	}
	m, _ := t.search(typ, off, w, 0)
	t.members[key] = m
	return m
}

// search returns what lies at off and how well it fits what is wanted.
func (t *types) search(typ btf.Type, off int64, w want, depth int) (member, int) {
	typ = strip(typ)
	if depth > maxNest {
		return member{}, 0
	}
	if w == wantObject && off == 0 && depth > 0 {
		if a, array := typ.(*btf.Array); array {
			m, fit := t.search(a.Type, 0, w, depth+1)
			m.many = true
			return m, fit
		}
		return member{typ: typ}, 3
	}
	var members []btf.Member
	switch c := typ.(type) {
	case *btf.Struct:
		members = c.Members
	case *btf.Union:
		members = c.Members
	case *btf.Array:
		size := t.size(c.Type)
		if size == 0 {
			return member{}, 0
		}
		m, fit := t.search(c.Type, off%size, w, depth+1)
		m.path, m.many = "[]"+m.path, true
		return m, fit
	default:
		if off != 0 {
			return member{}, 0
		}
		return member{typ: typ}, fits(typ, w)
	}
	var best member
	fit := 0
	for i, m := range members {
		start := int64(m.Offset.Bytes())
		end := start + t.size(strip(m.Type))
		if a, ok := strip(m.Type).(*btf.Array); ok && a.Nelems == 0 && i == len(members)-1 {
			end = math.MaxInt64 // a flexible array
		}
		if m.BitfieldSize != 0 || off < start || off >= end {
			continue
		}
		found, f := t.search(m.Type, off-start, w, depth+1)
		if f <= fit {
			continue
		}
		best, fit = found, f
		if m.Name != "" {
			best.path = "." + m.Name + found.path
		}
	}
	return best, fit
}

// container is the struct that has a member of type inner at offset off; nil
// when no struct, or more than one, of those that rules.go lists has.
func (t *types) container(inner btf.Type, off int64) btf.Type {
	if inner == nil {
		return nil
	}
	var found btf.Type
	for _, name := range containers {
		s := t.structure(name)
		if s == nil || off == 0 || t.at(s, off, wantObject).typ != inner {
			continue
		}
		if found != nil {
			return nil
		}
		found = s
	}
	return found
}

// fits tells how well a type is what is wanted.
func fits(typ btf.Type, w want) int {
	p, ok := typ.(*btf.Pointer)
	if !ok {
		return 1
	}
	switch strip(p.Target).(type) {
	case *btf.FuncProto:
		if w == wantFunction {
			return 4
		}
	case *btf.Struct, *btf.Union:
		if w == wantPointer {
			return 4
		}
		return 3
	}
	return 2
}

// typeName is how a chain writes the struct that typ is.
func typeName(typ btf.Type) string {
	switch c := typ.(type) {
	case *btf.Struct:
		return c.Name
	case *btf.Union:
		return c.Name
	}
	return ""
}
