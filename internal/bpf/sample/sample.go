// Package sample holds XDP programs such as users write: targets for tests of the verb
// prog and of what stands behind it.
package sample

import (
	"bytes"
	"fmt"
	"maps"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel sample sample.bpf.c -- -O2 -g -Wall -Werror -I../headers

// Turns is the constant that says how often the program loop turns, at most 8192: for more
// the verifier has no patience.
const Turns = sampleVarTurns

// Object is the ELF file of all programs, as clang and llvm-strip left it: what a user
// would name as a target.
func Object() []byte { return bytes.Clone(_SampleBytes) }

// Spec is what the object says: all programs and maps. The caller may change it.
func Spec() (*ebpf.CollectionSpec, error) { return loadSample() }

// Load loads one program with the maps that it uses, and those that table has. It needs
// BTF. Requires at least Linux 5.18.
func Load(name string) (*ebpf.Collection, *ebpf.Program, error) {
	spec, err := Spec()
	if err != nil {
		return nil, nil, err
	}
	coll, err := LoadOf(spec, name)
	if err != nil {
		return nil, nil, err
	}
	return coll, coll.Programs[name], nil
}

// LoadOf is [Load] of a specification that the caller may have changed. What the program
// does not need is left out of the specification.
func LoadOf(spec *ebpf.CollectionSpec, name string) (*ebpf.Collection, error) {
	program := spec.Programs[name]
	if program == nil {
		return nil, fmt.Errorf("load sample: no program %q", name)
	}
	used := make(map[string]bool)
	keep := map[string]bool{name: true}
	for _, ins := range program.Instructions {
		used[ins.Reference()] = true
	}
	for name := range used {
		if m := spec.Maps[name]; m != nil {
			for _, entry := range m.Contents {
				if target, ok := entry.Value.(string); ok {
					keep[target] = true
				}
			}
		}
	}
	maps.DeleteFunc(spec.Maps, func(name string, _ *ebpf.MapSpec) bool { return !used[name] })
	maps.DeleteFunc(spec.Variables, func(_ string, v *ebpf.VariableSpec) bool { return spec.Maps[v.SectionName] == nil })
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !keep[name] })
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load sample %s: %w", name, err)
	}
	return coll, nil
}
