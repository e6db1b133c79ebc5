package forward

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/unpack"
	"github.com/unthunk/unthunk/xsk"
)

// object is a BPF object of the user's: one XDP program and one map that it
// redirects through.
type object struct {
	program *ebpf.Program
	maps    map[string]*ebpf.Map
}

// maxObject is the largest BPF object that is read, in bytes: it may be four times the million
// instructions that the verifier takes, which are decoded into ten times their size.
const maxObject = 32 << 20

func loadObject(path string) (*object, error) {
	b, err := unpack.ReadFile(path, maxObject)
	if err != nil {
		if failed, ok := errors.AsType[*os.PathError](err); ok {
			err = failed.Err // the message has the name already
		}
		return nil, fmt.Errorf("open BPF object %s: %w", path, err)
	}
	spec, name, err := parseObject(b)
	if err != nil {
		return nil, fmt.Errorf("read BPF object %s: %w", path, err)
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

// parseObject reads an object, and finds its one XDP program.
func parseObject(b []byte) (spec *ebpf.CollectionSpec, program string, err error) {
	if !bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return nil, "", errors.New("it is not an ELF object, as clang -target bpf writes")
	}
	if err := checkSections(b); err != nil {
		return nil, "", err
	}
	spec, err = ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
	if err != nil {
		return nil, "", err
	}
	for name, p := range spec.Programs {
		if p.Type != ebpf.XDP {
			continue
		}
		if program != "" {
			return nil, "", fmt.Errorf("it has two XDP programs, %s and %s", min(program, name), max(program, name))
		}
		program = name
	}
	if program == "" {
		return nil, "", errors.New("it has no XDP program")
	}
	return spec, program, nil
}

// checkSections refuses an object that would take much more memory than it has bytes:
// whoever reads sections unpacks them, reads them several times, and makes their zeroes.
func checkSections(b []byte) error {
	if err := unpack.CheckHeaders(b); err != nil {
		return err
	}
	file, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return err
	}
	room := uint64(maxObject)
	for _, s := range file.Sections {
		if s.Type == elf.SHT_NOBITS { // as .bss: zeroes that the file does not have
			if s.Size > room {
				return fmt.Errorf("section %.60q: more than %d MiB of zeroes", s.Name, maxObject>>20)
			}
			room -= s.Size
		}
		if s.Flags&elf.SHF_COMPRESSED != 0 && !strings.HasPrefix(s.Name, ".debug") {
			return fmt.Errorf("section %.60q is compressed", s.Name)
		}
	}
	return nil
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
