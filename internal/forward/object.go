package forward

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/xsk"
)

// object is a BPF object of the user's: one XDP program and one map that it
// redirects through.
type object struct {
	program *ebpf.Program
	maps    map[string]*ebpf.Map
}

func loadObject(path string) (*object, error) {
	file, err := os.Open(path)
	if err != nil {
		if failed, ok := errors.AsType[*os.PathError](err); ok {
			err = failed.Err // the message has the name already
		}
		return nil, fmt.Errorf("open BPF object %s: %w", path, err)
	}
	defer file.Close()
	var magic [4]byte
	if n, err := file.ReadAt(magic[:], 0); n < len(magic) || string(magic[:]) != elf.ELFMAG {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read BPF object %s: %w", path, errors.Unwrap(err))
		}
		return nil, fmt.Errorf("read BPF object %s: it is not an ELF object, as clang -target bpf writes", path)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(file)
	if err != nil {
		return nil, fmt.Errorf("read BPF object %s: %w", path, err)
	}
	name := ""
	for n, p := range spec.Programs {
		if p.Type != ebpf.XDP {
			continue
		}
		if name != "" {
			return nil, fmt.Errorf("BPF object %s has two XDP programs, %s and %s", path, name, n)
		}
		name = n
	}
	if name == "" {
		return nil, fmt.Errorf("BPF object %s has no XDP program", path)
	}
	for n := range spec.Programs {
		if n != name {
			delete(spec.Programs, n)
		}
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load BPF object %s: %w", path, err)
	}
	o := &object{program: collection.DetachProgram(name), maps: make(map[string]*ebpf.Map)}
	for n := range collection.Maps {
		o.maps[n] = collection.DetachMap(n)
	}
	collection.Close()
	return o, nil
}

// mapOf is the object's one map of a type.
func (o *object) mapOf(types ...ebpf.MapType) (*ebpf.Map, error) {
	var found *ebpf.Map
	for _, m := range o.maps {
		for _, t := range types {
			if m.Type() != t {
				continue
			}
			if found != nil {
				return nil, fmt.Errorf("BPF object has two maps of type %v", t)
			}
			found = m
		}
	}
	if found == nil {
		return nil, fmt.Errorf("BPF object has no map of type %v: its program must redirect through one", types[0])
	}
	return found, nil
}

// attachXSK attaches the program to a device.
func (o *object) attachXSK(ifindex int, generic bool) (*xsk.Program, error) {
	m, err := o.mapOf(ebpf.XSKMap)
	if err != nil {
		return nil, err
	}
	return xsk.AttachProgram(ifindex, o.program, m, generic)
}

func (o *object) Close() error {
	errs := []error{o.program.Close()}
	for _, m := range o.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
