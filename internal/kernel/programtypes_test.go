package kernel

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/testutil"
)

// pointers is an int, a number of pointers, each to the one before it, and a function "f" that returns the last.
func pointers(n int) []byte {
	types := []rawType{integer}
	for i := range n {
		types = append(types, rawType{kind: kindPointer, of: uint32(i + 1)})
	}
	types = append(types, rawType{kind: kindFuncProto, of: uint32(n + 1)}, rawType{kind: kindFunc, name: "f", of: uint32(n + 2)})
	return section(types...)
}

// ring is a number of structs, each with a pointer to the next, and the last with one to the first.
func ring(n int) []byte {
	var types []rawType
	for i := range n {
		of := uint32(2*i + 2)
		types = append(types, rawType{kind: kindStruct, name: "s", of: 8, members: 1, more: []uint32{1, of, 0}},
			rawType{kind: kindPointer, of: of%uint32(2*n) + 1})
	}
	return section(types...)
}

// named is an int of a name and a number of structs, each with a member of that name.
func named(name string, n int) []byte {
	types := []rawType{{kind: kindInt, name: name, of: 4, more: []uint32{32}}}
	for range n {
		types = append(types, rawType{kind: kindStruct, of: 4, members: 1, more: []uint32{1, 1, 0}})
	}
	return section(types...)
}

// withoutEnd is a section whose last name does not end. Who looks for its end looks through all of it.
func withoutEnd(raw []byte) []byte { return raw[:len(raw)-1] }

func TestCheckProgramTypes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"chain", pointers(maxTypeDepth - 3), ""},
		{"long chain", pointers(maxTypeDepth), "types that lead to others 8195 deep: at most 8192"},
		{"chain forward", chain(maxTypeDepth+1, true), "8195 deep"},
		{"ring", ring(maxTypeDepth / 2), ""},
		{"large ring", ring(maxTypeDepth/2 + 1), "8194 deep"},
		{"too many", many(maxProgramTypes + 1), "more than 65536 types"},
		{"large", make([]byte, 5<<20), "5 MiB of types: at most 4"},
		{"name of many", named(strings.Repeat("n", 1<<20), 15), ""},
		{"name of too many", named(strings.Repeat("n", 1<<20), 16), "names of types of more than 16 MiB"},
		{"name without an end", withoutEnd(named(strings.Repeat("n", 1<<20), 15)), ""},
		{"name without an end of too many", withoutEnd(named(strings.Repeat("n", 1<<20), 16)), "names of types of more than 16 MiB"},
	} {
		err := CheckProgramTypes(test.raw)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// In whatever order types are decoded, no more of them are within one another than reach says; without cycles some order has as many.
func TestReach(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		cycles := random.IntN(2) == 0
		n := 1 + random.IntN(12)
		var types []rawType
		for i := range n {
			member := func() uint32 {
				if cycles {
					return uint32(random.IntN(n + 1))
				}
				return uint32(random.IntN(i + 1))
			}
			types = append(types, rawType{kind: kindStruct, members: 3, more: []uint32{0, member(), 0, 0, member(), 0, 0, member(), 0}})
		}
		g, err := readTypes(section(types...), typeLimits{1 << 20, 100, 100})
		if err != nil {
			t.Fatal(err)
		}
		longest := 0
		var walk func(id uint32, passed uint32, depth int)
		walk = func(id, passed uint32, depth int) {
			longest = max(longest, depth)
			for k := range 3 {
				if to, _ := g.next(id, k); to > 0 && passed>>to&1 == 0 {
					walk(to, passed|1<<to, depth+1)
				}
			}
		}
		for id := range n {
			walk(uint32(id+1), 1<<(id+1), 1)
		}
		if got := g.reach(); got < longest || got > n || !cycles && got != longest {
			t.Errorf("%v: %d, the longest way is %d", g.raw, got, longest)
		}
	}
}

// load loads a program whose function "f" returns a pointer, behind which there are a number of others.
func load(t *testing.T, depth int) *ebpf.ProgramInfo {
	t.Helper()
	var of btf.Type = &btf.Int{Name: "int", Size: 4}
	for range depth {
		of = &btf.Pointer{Target: of}
	}
	f := &btf.Func{Name: "f", Type: &btf.FuncProto{Return: of}, Linkage: btf.GlobalFunc}
	insns := asm.Instructions{btf.WithFuncMetadata(asm.Mov.Imm(asm.R0, 2).WithSymbol("f"), f), asm.Return()}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "f", Type: ebpf.XDP, Instructions: insns, License: "GPL"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// The types of a program in the kernel, where anybody may have loaded it, are checked before they are decoded: a chain of a million
// pointers, which the kernel takes, ended the process with an overflow of its stack.
func TestProgramTypes(t *testing.T) {
	testutil.Root(t)
	for _, test := range []struct {
		depth int
		want  string
	}{{3, ""}, {maxTypeDepth, "8195 deep"}} {
		info := load(t, test.depth)
		for what, read := range map[string]func() error{
			"FuncInfos": func() error {
				all, err := FuncInfos(info)
				if err == nil && (len(all) != 1 || all[0].Func.Name != "f") {
					t.Errorf("%v", all)
				}
				return err
			},
			"Instructions": func() error {
				all, err := Instructions(info)
				if err == nil && btf.FuncMetadata(&all[0]).Name != "f" {
					t.Errorf("%v", all)
				}
				return err
			},
			"ProgramTypes": func() error {
				id, _ := info.BTFID()
				types, err := ProgramTypes(id)
				if err == nil {
					_, err = types.AnyTypeByName("f")
				}
				return err
			},
			"Lines": func() error {
				if _, err := Lines(info); !strings.Contains(err.Error(), "insufficient permissions or unsupported kernel") {
					return err
				}
				return nil // the program has no lines
			},
		} {
			if err := read(); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s of %d pointers: %v, want %q", what, test.depth, err, test.want)
			}
		}
	}
}
