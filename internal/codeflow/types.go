package codeflow

import (
	"maps"
	"math"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Hints are what BTF does not say of the data that code uses.
type Hints struct {
	// Globals are the types of variables by name. BTF has only those of
	// per-CPU data.
	Globals map[string]Global
	// Operations are members that point to structs of functions, for pointers
	// whose own type is lost.
	Operations []Operations
	// Containers are structs that code finds by a list entry, a timer or a
	// work in them (container_of).
	Containers []string
	// Outer are structs that code knows only by a pointer to their first
	// member, by the name of that member's struct.
	Outer map[string]string
	// First are structs whose first member the first argument of a function points to, by the function.
	First map[string]string
	// Elements are the structs that arrays of untyped pointers lead to, by the member that points to
	// the array.
	Elements map[string]string
	// Prefixes are the structs that variables are, by what their names begin with.
	Prefixes map[string]string
}

// Global is the type of a variable: a struct, a pointer to one, or an array.
type Global struct {
	Struct  string
	Pointer bool
	Array   uint32 // number of elements, 0 when it is no array
}

// Operations is a member of the struct Holder that points to a Struct of
// functions: net_device, netdev_ops, net_device_ops.
type Operations struct{ Holder, Member, Struct string }

// Bounds of a search for a member. maxNest is how deep structs are searched, maxLooked how many types one search
// looks at: in a file of foreign types each of ten members may have ten members, twelve deep. Real searches look at up
// to a few hundred.
const (
	maxNest   = 12
	maxLooked = 20_000
)

// Types looks up the types of one kernel and remembers what it found. It is not
// safe for concurrent use.
type Types struct {
	spec    *btf.Spec // nil for a kernel without BTF
	modules func(name string) *btf.Spec
	loaded  map[string]*btf.Spec // by module, nil for one without BTF
	specs   []*btf.Spec          // all that are not nil, the kernel's first
	hints   Hints
	funcs   map[function]proto
	vars    map[string]btf.Type
	structs map[string]btf.Type
	sizes   map[btf.Type]int64
	members map[field]member
	visits  int // types that the search under way has looked at
}

// function is a function by its name and the module that it is of, "" for the kernel itself.
type function struct{ name, module string }

// proto is the prototype of a function by name.
type proto struct {
	typ  *btf.FuncProto
	only bool // no other function has that name
}

// field is an offset in a type, and what is looked for there.
type field struct {
	typ    btf.Type
	off    int64
	prefer prefer
}

// prefer tells which member of a union to take.
type prefer uint8

const (
	preferPointer  prefer = iota // a pointer to a struct
	preferFunction               // a pointer to a function
	preferObject                 // what begins there, structs before their members
)

// member is what lies at a field.
type member struct {
	path string   // ".slow.init_callback", empty for the type itself
	typ  btf.Type // stripped; nil when nothing was found
	// indexed is set when the path goes through an array.
	indexed bool
}

// NewTypes looks up spec, which is nil for a kernel without BTF.
func NewTypes(spec *btf.Spec, hints Hints) *Types {
	t := &Types{
		spec:    spec,
		modules: func(string) *btf.Spec { return nil },
		loaded:  map[string]*btf.Spec{"": spec},
		hints:   hints,
		funcs:   make(map[function]proto),
		vars:    make(map[string]btf.Type),
		structs: make(map[string]btf.Type),
		sizes:   make(map[btf.Type]int64),
		members: make(map[field]member),
	}
	if spec != nil {
		t.specs = []*btf.Spec{spec}
	}
	return t
}

// of are the types of a module, read when they are first asked for, those of the kernel for "". A module's structs are
// known by their names from then on.
func (t *Types) of(module string) *btf.Spec {
	spec, ok := t.loaded[module]
	if ok || t.spec == nil {
		return spec
	}
	spec = t.modules(module)
	t.loaded[module] = spec
	if spec != nil {
		t.specs = append(t.specs, spec)
		maps.DeleteFunc(t.structs, func(_ string, s btf.Type) bool { return s == nil })
	}
	return spec
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

// proto is the prototype of a function.
func (t *Types) proto(fn function) proto {
	spec := t.of(fn.module)
	if spec == nil {
		return proto{}
	}
	if p, ok := t.funcs[fn]; ok {
		return p
	}
	var p proto
	all, _ := spec.AnyTypesByName(fn.name)
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
	p.only = n == 1
	t.funcs[fn] = p
	return p
}

// variable is the stripped type of a variable. BTF has those of per-CPU data
// only; others come from the hints.
func (t *Types) variable(name string) btf.Type {
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
	if g, ok := t.hints.Globals[name]; ok && found == nil {
		if s := t.Struct(g.Struct); s != nil {
			found = s
			if g.Pointer {
				found = &btf.Pointer{Target: s}
			} else if g.Array > 0 {
				found = &btf.Array{Type: s, Nelems: g.Array}
			}
		}
	}
	for prefix, s := range t.hints.Prefixes {
		if found == nil && strings.HasPrefix(name, prefix) {
			found = t.Struct(s)
		}
	}
	t.vars[name] = found
	return found
}

// Struct is the struct called name; nil when there is no such struct.
func (t *Types) Struct(name string) btf.Type {
	if t.spec == nil || name == "" {
		return nil
	}
	if s, ok := t.structs[name]; ok {
		return s
	}
	found := t.findStruct(name)
	t.structs[name] = found
	return found
}

// findStruct is the first struct called name.
func (t *Types) findStruct(name string) btf.Type {
	for _, spec := range t.specs {
		all, _ := spec.AnyTypesByName(name)
		for _, typ := range all {
			if s, ok := typ.(*btf.Struct); ok {
				return s
			}
		}
	}
	return nil
}

// Offset is where member lies in the struct called name, in bytes. The member
// may be nested: "ns.inum".
func (t *Types) Offset(name, path string) (int64, bool) {
	t.visits = 0
	return t.offsetIn(t.Struct(name), path, maxNest)
}

func (t *Types) offsetIn(typ btf.Type, path string, depth int) (int64, bool) {
	var members []btf.Member
	switch s := typ.(type) {
	case *btf.Struct:
		members = s.Members
	case *btf.Union:
		members = s.Members
	}
	if t.visits++; depth == 0 || t.visits > maxLooked {
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
		if in, ok := t.offsetIn(strip(m.Type), rest, depth-1); ok {
			return off + in, true
		}
	}
	return 0, false
}

// Size is that of a type in bytes; 0 when it has no size.
func (t *Types) Size(typ btf.Type) int64 {
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
func (t *Types) at(typ btf.Type, off int64, p prefer) member {
	if typ == nil || off < 0 {
		return member{}
	}
	key := field{typ, off, p}
	if m, ok := t.members[key]; ok {
		return m
	}
	t.visits = 0
	m, _ := t.search(typ, off, p, 0)
	t.members[key] = m
	return m
}

// search returns what lies at off and how well it fits what is preferred.
func (t *Types) search(typ btf.Type, off int64, p prefer, depth int) (member, int) {
	typ = strip(typ)
	if t.visits++; depth > maxNest || t.visits > maxLooked {
		return member{}, 0
	}
	if p == preferObject && off == 0 && depth > 0 {
		if a, array := typ.(*btf.Array); array {
			m, fit := t.search(a.Type, 0, p, depth+1)
			m.indexed = true
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
		size := t.Size(c.Type)
		if size == 0 {
			return member{}, 0
		}
		m, fit := t.search(c.Type, off%size, p, depth+1)
		m.path, m.indexed = "[]"+m.path, true
		return m, fit
	default:
		if off != 0 {
			return member{}, 0
		}
		return member{typ: typ}, fits(typ, p)
	}
	var best member
	fit := 0
	for i, m := range members {
		start := int64(m.Offset.Bytes())
		end := start + t.Size(strip(m.Type))
		if a, ok := strip(m.Type).(*btf.Array); ok && a.Nelems == 0 && i == len(members)-1 {
			end = math.MaxInt64 // a flexible array
		}
		if m.BitfieldSize != 0 || off < start || off >= end {
			continue
		}
		found, f := t.search(m.Type, off-start, p, depth+1)
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
// when no struct, or more than one, of those in the hints has.
func (t *Types) container(inner btf.Type, off int64) btf.Type {
	if inner == nil {
		return nil
	}
	var found btf.Type
	for _, name := range t.hints.Containers {
		s := t.Struct(name)
		if s == nil || off == 0 || t.at(s, off, preferObject).typ != inner {
			continue
		}
		if found != nil {
			return nil
		}
		found = s
	}
	return found
}

// fits tells how well a type is what is preferred.
func fits(typ btf.Type, p prefer) int {
	pointer, ok := typ.(*btf.Pointer)
	if !ok {
		return 1
	}
	switch strip(pointer.Target).(type) {
	case *btf.FuncProto:
		if p == preferFunction {
			return 4
		}
	case *btf.Struct, *btf.Union:
		if p == preferPointer {
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
