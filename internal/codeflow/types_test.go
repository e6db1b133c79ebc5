package codeflow

import (
	"bytes"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/testutil"
)

// wideTypes is BTF of a struct whose members have ten members each, deeper than anything is searched.
func wideTypes(tb testing.TB) []byte {
	var inner btf.Type = &btf.Int{Name: "int", Size: 4}
	for range maxNest + 2 {
		union := &btf.Union{Size: 4}
		for range 10 {
			union.Members = append(union.Members, btf.Member{Type: inner})
		}
		inner = union
	}
	b, err := btf.NewBuilder([]btf.Type{&btf.Struct{Name: "wide", Size: 4, Members: []btf.Member{{Type: inner}}}}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// lookUp asks everything of every struct in raw.
func lookUp(raw []byte) error {
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	types := NewTypes(spec, testHints)
	for typ := range spec.All() {
		s, ok := typ.(*btf.Struct)
		if !ok {
			continue
		}
		types.Size(s)
		types.Offset(s.Name, "a.b")
		for off := range int64(16) {
			for _, p := range []prefer{preferPointer, preferFunction, preferObject} {
				types.at(types.Struct(s.Name), off, p)
			}
		}
	}
	return nil
}

// A search ends however the types of a foreign file nest: without a bound this one looks at 10¹² of them.
func TestWideTypes(t *testing.T) {
	if err := lookUp(wideTypes(t)); err != nil {
		t.Fatal(err)
	}
}

// typesBudget is the memory that up to 64 KiB of types take, and what is asked of them.
const typesBudget = 32 << 20

func FuzzTypes(f *testing.F) {
	f.Add(wideTypes(f))
	b, err := btf.NewBuilder([]btf.Type{&btf.Struct{Name: "s", Size: 16, Members: []btf.Member{
		{Name: "a", Type: &btf.Pointer{Target: &btf.Void{}}},
		{Name: "b", Type: &btf.Array{Index: &btf.Int{Size: 4}, Type: &btf.Int{Size: 4}, Nelems: 2}, Offset: 64},
	}}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<16 {
			return
		}
		testutil.Allocates(t, typesBudget, func() { lookUp(raw) }) // most are no types: an error
	})
}
