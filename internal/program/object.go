package program

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/unpack"
)

// MaxObject is the largest BPF object that is read, in bytes: it may be four times the million
// instructions that the verifier takes, which are decoded into ten times their size.
const MaxObject = 32 << 20

// ReadObject reads a BPF object file of at most [MaxObject] bytes. Its maps are not to be pinned, whatever the file says. When ctx
// ends it returns the error of ctx at once: a large object takes seconds, and is then read on behind it.
func ReadObject(ctx context.Context, path string) (*ebpf.CollectionSpec, error) {
	type result struct {
		spec *ebpf.CollectionSpec
		err  error
	}
	done := make(chan result, 1)
	go func() {
		spec, err := readObject(path)
		done <- result{spec, err}
	}()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("read BPF object %s: %w", path, ctx.Err())
	case r := <-done:
		return r.spec, r.err
	}
}

// ReadProgram reads a program of an object file: OBJECT, or OBJECT:PROGRAM, as of [Parse]. What it returns has that program, the
// maps that it uses, and what these hold: see [Prune]. An [OptionError] says that the object has several programs, none of
// that name, or that the name is empty.
func ReadProgram(ctx context.Context, object string) (spec *ebpf.CollectionSpec, name string, err error) {
	path, name, _ := Target{text: object, path: object}.split()
	if name == "" && path != object {
		return nil, "", emptyName(object)
	}
	if spec, err = ReadObject(ctx, path); err != nil {
		return nil, "", err
	}
	if name, err = choose(spec, path, name); err != nil {
		return nil, "", err
	}
	giveType(spec.Programs[name])
	return Prune(spec, name), name, nil
}

func readObject(path string) (*ebpf.CollectionSpec, error) {
	b, err := unpack.ReadFile(path, MaxObject)
	if err != nil {
		if failed, ok := errors.AsType[*os.PathError](err); ok {
			err = failed.Err // the message has the name already
		}
		return nil, fmt.Errorf("open BPF object %s: %w", path, err)
	}
	spec, err := ParseObject(b)
	if err != nil {
		return nil, fmt.Errorf("read BPF object %s: %w", path, err)
	}
	return spec, nil
}

// ParseObject is [ReadObject] of bytes.
func ParseObject(b []byte) (*ebpf.CollectionSpec, error) {
	if !bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return nil, errors.New("it is not an ELF object, as clang -target bpf writes")
	}
	if err := checkSections(b); err != nil {
		return nil, err
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	unpin(spec)
	return spec, nil
}

// unpin makes maps be of this process only that are to be pinned by their names
// (LIBBPF_PIN_BY_NAME), which would be those of production. It leaves out what iproute2 has
// behind the definition of a map in a section "maps" (struct bpf_elf_map): where to pin it.
func unpin(spec *ebpf.CollectionSpec) {
	for _, m := range spec.Maps {
		m.Pinning, m.Extra = ebpf.PinNone, nil
		if m.InnerMap != nil {
			m.InnerMap.Pinning = ebpf.PinNone
		}
	}
}

// choose finds the program that the user means: the one with the name of its function or of
// its section, or the only XDP program when name is empty.
func choose(spec *ebpf.CollectionSpec, path, name string) (program string, err error) {
	names := slices.Sorted(maps.Keys(spec.Programs))
	if name != "" {
		return chooseNamed(spec, names, path, name)
	}
	var all, plain []string
	for _, n := range names {
		if p := spec.Programs[n]; p.Type == ebpf.XDP {
			all = append(all, n)
			if p.AttachType != ebpf.AttachXDPDevMap && p.AttachType != ebpf.AttachXDPCPUMap {
				plain = append(plain, n)
			}
		}
	}
	switch {
	case len(plain) == 1:
		return plain[0], nil // the others stand in entries of a devmap or a cpumap
	case len(all) == 1:
		return all[0], nil
	case len(all) > 1:
		return "", &OptionError{Known: all,
			Err: fmt.Errorf("%s has %d XDP programs: name one, as %s:%s: %s", path, len(all), path, all[0], listed(all))}
	case len(names) == 0:
		return "", fmt.Errorf("%s has no program", path)
	}
	var others []string
	for _, n := range names {
		others = append(others, described(spec.Programs[n]))
	}
	return "", fmt.Errorf("%s has no XDP program: it has %s", path, listed(others))
}

func chooseNamed(spec *ebpf.CollectionSpec, names []string, path, name string) (string, error) {
	found := []string{name}
	if spec.Programs[name] == nil {
		found = nil
		for _, n := range names {
			if spec.Programs[n].SectionName == name {
				found = append(found, n)
			}
		}
	}
	switch {
	case len(found) == 0:
		return "", &OptionError{Name: name, Known: names,
			Err: fmt.Errorf("%s has no program %s: it has %s", path, name, listed(names))}
	case len(found) > 1:
		return "", &OptionError{Known: found,
			Err: fmt.Errorf("%s has %d programs in section %s: name one: %s", path, len(found), name, listed(found))}
	}
	p := spec.Programs[found[0]]
	if p.Type != ebpf.XDP && p.Type != ebpf.UnspecifiedProgram {
		return "", fmt.Errorf("%s:%s is no XDP program: %s", path, name, described(p))
	}
	return found[0], nil
}

// described is a program with its type and section.
func described(p *ebpf.ProgramSpec) string {
	kind := p.Type.String()
	if p.Type == ebpf.UnspecifiedProgram {
		kind = "no type"
	}
	return fmt.Sprintf("%s (%s, section %s)", p.Name, kind, p.SectionName)
}

// mostListed is how many names a message has.
const mostListed = 12

// listed joins the first of names with commas.
func listed(names []string) string {
	if len(names) > mostListed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostListed], ", "), len(names)-mostListed)
	}
	return strings.Join(names, ", ")
}

// Prune returns a copy of an object's spec that has one program, the maps that it uses, and
// what these hold: programs of tail-call tables with their maps, and inner maps. An object
// may have programs for other hooks, which this kernel need not take.
func Prune(spec *ebpf.CollectionSpec, main string) *ebpf.CollectionSpec {
	s := spec.Copy()
	programs, used := map[string]*ebpf.ProgramSpec{}, map[string]*ebpf.MapSpec{}
	var addProgram, addMap func(name string)
	addMap = func(name string) {
		m := s.Maps[name]
		if m == nil || used[name] != nil {
			return
		}
		used[name] = m
		for _, kv := range m.Contents {
			object, ok := kv.Value.(string)
			switch {
			case ok && m.Type == ebpf.ProgramArray:
				addProgram(object)
			case ok:
				addMap(object)
			}
		}
	}
	addProgram = func(name string) {
		p := s.Programs[name]
		if p == nil || programs[name] != nil {
			return
		}
		programs[name] = p
		for i := range p.Instructions {
			if ins := &p.Instructions[i]; ins.IsLoadFromMap() {
				addMap(ins.Reference())
			}
		}
	}
	addProgram(main)
	s.Programs, s.Maps = programs, used
	for name, v := range s.Variables {
		if used[v.SectionName] == nil {
			delete(s.Variables, name)
		}
	}
	return s
}
