package kernel

import (
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/unpack"
	"github.com/unthunk/unthunk/ktext"
)

// rawType is one type: its kind, its name, its size or the type that it is of, and what
// follows.
type rawType struct {
	kind, members int
	name          string
	of            uint32
	more          []uint32
}

// section is a section of types in little endian.
func section(types ...rawType) []byte {
	var raw []byte
	names := "\x00"
	for _, t := range types {
		at := 0
		if t.name != "" {
			at = len(names)
			names += t.name + "\x00"
		}
		raw = binary.LittleEndian.AppendUint32(raw, uint32(at))
		raw = binary.LittleEndian.AppendUint32(raw, uint32(t.kind<<24|t.members))
		raw = binary.LittleEndian.AppendUint32(raw, t.of)
		for _, word := range t.more {
			raw = binary.LittleEndian.AppendUint32(raw, word)
		}
	}
	head := []byte{0x9f, 0xeb, 1, 0}
	for _, n := range []int{btfHeaderLen, 0, len(raw), len(raw), len(names)} {
		head = binary.LittleEndian.AppendUint32(head, uint32(n))
	}
	return append(append(head, raw...), names...)
}

var integer = rawType{kind: kindInt, name: "int", of: 4, more: []uint32{32}}

// chain is an int, a number of pointers, each to the one before it or, when forward, to the
// one behind it, and a struct of the outermost.
func chain(n int, forward bool) []byte {
	types := []rawType{integer}
	for i := range n {
		to := uint32(i + 1) // its own number less one
		if forward {
			to += 2
		}
		types = append(types, rawType{kind: kindPointer, of: to})
	}
	outermost := uint32(n + 1)
	if forward {
		types[n].of, outermost = 1, 2
	}
	return section(append(types, rawType{kind: kindStruct, name: "top", of: 8, members: 1, more: []uint32{0, outermost, 0}})...)
}

func TestLoadTypes(t *testing.T) {
	t.Parallel()
	all := section(integer,
		rawType{kind: kindPointer, of: 1}, rawType{kind: kindArray, more: []uint32{2, 1, 3}},
		rawType{kind: kindStruct, name: "s", of: 8, members: 2, more: []uint32{0, 4, 0, 0, 9, 0}}, // in itself
		rawType{kind: kindUnion, name: "u", of: 8, members: 1, more: []uint32{0, 2, 0}},
		rawType{kind: kindEnum, name: "e", of: 4, members: 1, more: []uint32{0, 7}},
		rawType{kind: kindForward, name: "f"}, rawType{kind: kindTypedef, name: "t", of: 4},
		rawType{kind: kindVolatile, of: 10}, rawType{kind: kindConst, of: 11}, rawType{kind: kindRestrict, of: 3},
		rawType{kind: kindFuncProto, members: 1, of: 1, more: []uint32{0, 8}}, rawType{kind: kindFunc, name: "fn", of: 12},
		rawType{kind: kindVar, name: "v", of: 5, more: []uint32{1}},
		rawType{kind: kindDatasec, name: ".data", of: 8, members: 1, more: []uint32{14, 0, 8}},
		rawType{kind: kindFloat, name: "double", of: 8}, rawType{kind: kindDeclTag, name: "tag", of: 4, more: []uint32{0}},
		rawType{kind: kindTypeTag, name: "rcu", of: 1}, rawType{kind: kindEnum64, name: "e64", of: 8, members: 1, more: []uint32{0, 7, 0}},
	)
	types, err := loadTypes(all, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"int", "s", "u", "e", "t", "fn", "v", ".data", "double", "e64"} {
		if _, err := types.AnyTypeByName(name); err != nil {
			t.Error(err)
		}
	}
	// Each pointer leads to one that was decoded before it: what is looked up by name does
	// not lead through all of them.
	if types, err = loadTypes(chain(100_000, false), 0); err != nil {
		t.Fatal(err)
	}
	var top *btf.Struct
	if err := types.TypeByName("top", &top); err != nil || len(top.Members) != 1 {
		t.Errorf("%v, %v", top, err)
	}
	for _, test := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"nothing", nil, "no types"},
		{"big endian", append([]byte{0xeb, 0x9f}, all[2:]...), "not in little endian"},
		{"cut", all[:len(all)-len("\x00double\x00e64\x00")-200], "end within one"},
		{"unknown kind", section(rawType{kind: 30}), "not known"},
		{"members behind the end", section(rawType{kind: kindStruct, members: 2, more: []uint32{0, 0, 0}}), "end within one"},
		{"deep", chain(100_000, true), "types that lead to others 100000 deep: at most 8192"},
		{"no types", section(), ""},
		{"too many", many(maxTypes + 1), "more than 524288 types"},
		{"large", make([]byte, maxBTF+1), "32 MiB of types: at most 32"},
	} {
		_, err := loadTypes(test.raw, 0)
		if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// many are pointers to an int.
func many(n int) []byte {
	types := make([]rawType, n)
	types[0] = integer
	for i := range types[1:] {
		types[i+1] = rawType{kind: kindPointer, of: 1}
	}
	return section(types...)
}

// The types of a real kernel are found one by one, as package btf finds them.
func TestTypesOfKernel(t *testing.T) {
	dir := guesttest.Kernel(t, "6.12")
	tree, err := ktext.OpenTree(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	img, err := ktext.OpenFile(t.Context(), tree.Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	g, err := readTypes(img.BTF, typeLimits{maxBTF, maxTypes, maxNames / 4})
	if err != nil {
		t.Fatal(err)
	}
	types, err := loadTypes(img.BTF, 0)
	if err != nil {
		t.Fatal(err)
	}
	last := btf.TypeID(len(g.offsets))
	if _, err := types.TypeByID(last); err != nil {
		t.Error(err)
	}
	if _, err := types.TypeByID(last + 1); err == nil {
		t.Errorf("package btf finds more than %d types", last)
	}
	if g.memory > unpack.MaxHeld/4 {
		t.Errorf("they are said to take %d MiB", g.memory>>20)
	}
	if d := g.depth(); d < 50 || d > maxTypeDepth/8 {
		t.Errorf("types lead to others %d deep, the limit is %d", d, maxTypeDepth)
	}
}

func FuzzTypes(f *testing.F) {
	f.Add(chain(3, true))
	f.Add(many(3))
	f.Add(section(integer, rawType{kind: kindStruct, name: "s", of: 8, members: 1, more: []uint32{0, 2, 0}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var g *typeGraph
		var err error
		testutil.Allocates(t, 1<<20+256*uint64(len(raw)), func() { g, err = readTypes(raw, typeLimits{maxBTF, maxTypes, maxNames}) })
		if err != nil {
			return
		}
		if d := g.depth(); d > len(g.offsets) {
			t.Errorf("%d deep, of %d types", d, len(g.offsets))
		}
		longest := 0
		testutil.Allocates(t, 1<<20+256*uint64(len(raw)), func() { longest = g.reach() })
		if d := g.depth(); longest < d || longest > len(g.offsets) {
			t.Errorf("at most %d deep, in their order %d, of %d types", longest, d, len(g.offsets))
		}
		testutil.Allocates(t, 1<<20+1024*uint64(len(raw)), func() { _, _ = loadTypes(raw, 0) })
	})
}

// What package btf makes of types takes about what is said of it, whatever kind most of them are, and what does not fit beside
// what is in use is refused.
func TestTypesMemory(t *testing.T) {
	const count = 4000
	members := func(each ...uint32) (more []uint32) {
		for range 100 {
			more = append(more, each...)
		}
		return more
	}
	for name, one := range map[string]rawType{
		"pointers": {kind: kindPointer, of: 1}, "names": {kind: kindTypedef, name: strings.Repeat("a", 100), of: 1},
		"integers": integer, "arrays": {kind: kindArray, more: []uint32{1, 1, 8}},
		"members":    {kind: kindStruct, name: "s", of: 4, members: 100, more: members(1, 1, 0)},
		"parameters": {kind: kindFuncProto, of: 1, members: 100, more: members(1, 1)},
		"values":     {kind: kindEnum, name: "e", of: 4, members: 100, more: members(1, 7)},
		"variables":  {kind: kindDatasec, name: ".d", of: 4, members: 100, more: members(2, 0, 4)},
		"functions":  {kind: kindFunc, name: "fn", of: 3}, "tags": {kind: kindDeclTag, name: "t", of: 3, more: []uint32{^uint32(0)}},
	} {
		types := []rawType{integer, {kind: kindVar, name: "v", of: 1, more: []uint32{1}}, {kind: kindFuncProto, of: 1}}
		if name == "tags" {
			types[2] = rawType{kind: kindStruct, name: "tagged", of: 4}
		}
		n := count
		if one.members > 0 {
			n /= 20
		}
		for range n {
			types = append(types, one)
		}
		raw := section(types...)
		said := typesMemory(raw)
		if _, err := loadTypes(raw, unpack.MaxHeld-said+1); err == nil || !strings.Contains(err.Error(), "at most 320 are possible together") {
			t.Errorf("%s: %v", name, err)
		}
		before := inUse()
		loaded, err := loadTypes(raw, unpack.MaxHeld-said)
		if err != nil {
			t.Fatal(name, err)
		}
		took := int(inUse() - before)
		if took > said || took < said/4 {
			t.Errorf("%s: %d bytes take %d, said are %d", name, len(raw), took, said)
		}
		runtime.KeepAlive(loaded)
	}
}

// inUse is how many bytes of the heap are in use.
func inUse() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
