package forward

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/verifier"
	"github.com/unthunk/unthunk/xsk"
)

// object is a BPF object of the user's: an XDP program, those of its tail-call tables, and one map that they
// redirect through.
type object struct {
	program *ebpf.Program
	maps    map[string]*ebpf.Map
	memory  uint64 // about what the maps take, in bytes
}

// memoryOf is about what the maps of objects take, in bytes.
func memoryOf(objects iter.Seq[*object]) (sum uint64) {
	for o := range objects {
		sum += o.memory
	}
	return sum
}

// objectFile is what was in the file of a BPF object when it was read.
type objectFile struct {
	path, program string // path may have the name of the program behind it
	spec          *ebpf.CollectionSpec
}

func readObject(ctx context.Context, path string) (*objectFile, error) {
	spec, name, err := program.ReadProgram(ctx, path)
	if err != nil {
		return nil, err
	}
	return &objectFile{path, name, spec}, nil
}

// load loads the program and the maps that it uses. It may be called again, for another device. It ends with ctx. With loaded,
// what maps of other objects take in bytes, these must fit into half of the memory: a [feature.Missing] says that they do not.
func (f *objectFile) load(ctx context.Context, loaded uint64) (*object, error) {
	sum, err := program.CheckMemory(loaded, f.spec.Maps)
	if err != nil {
		return nil, fmt.Errorf("load BPF object %s: %w", f.path, err)
	}
	collection, err := verifier.LoadContext(ctx, f.spec.Copy(), ebpf.CollectionOptions{}, false)
	if err != nil {
		return nil, fmt.Errorf("load BPF object %s: %w", f.path, err)
	}
	o := &object{program: collection.DetachProgram(f.program), maps: make(map[string]*ebpf.Map), memory: sum - loaded}
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
	if found.Flags()&unix.BPF_F_RDONLY != 0 {
		return nil, fmt.Errorf("map of type %v in the BPF object has BPF_F_RDONLY: nobody can put the output into it", found.Type())
	}
	return found, nil
}

// redirectTo puts a device into the object's devmap, at key 0.
func (o *object) redirectTo(ifindex int) error {
	m, err := o.mapOf(ebpf.DevMap, ebpf.DevMapHash)
	if err != nil {
		return err
	}
	if err := m.Update(uint32(0), uint32(ifindex), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("put output into the devmap of the BPF object: %w", err)
	}
	return nil
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
