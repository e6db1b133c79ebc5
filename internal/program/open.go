package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/verifier"
)

// Options say how a target is opened. The zero value opens an object with empty maps, and a
// live program to be read.
type Options struct {
	// Set gives global variables of an object their values, before it is loaded: see
	// [Assign] for how they are written.
	Set map[string]string
	// MapsFrom fills the maps of an object with copies of a live program's: id:N, dev:DEV, a
	// pinned program, or a folder of pinned maps. Empty copies none.
	MapsFrom string
	// TailCalls puts programs of an object into its tail-call tables, by index, as its loader
	// does.
	TailCalls map[string]map[uint32]string
	// Sizes are the numbers of entries of maps of an object, by name: some objects leave them to
	// their loader.
	Sizes map[string]uint32
	// Flags say how elements of maps of an object are allocated, by name: BPF_F_NO_PREALLOC and BPF_F_NO_COMMON_LRU.
	Flags map[string]uint32
	// Maps fills maps of an object, by name, each from a file that bpftool wrote.
	Maps map[string]string
	// SomeMaps says that Maps may name maps that the program does not use, but one that it is compared with.
	SomeMaps bool `json:"-"`
	// Change makes another spec of an object's, right before it is loaded: a copy with counters
	// in it. Nil changes nothing.
	Change func(*ebpf.CollectionSpec) (*ebpf.CollectionSpec, error) `json:"-"`
	// Beside are objects that stay open meanwhile: their maps and those of this one have half of the memory together.
	Beside []*Opened `json:"-"`
	// WholeLog asks for all that the verifier says of a program that it refuses, as far as it fits: see [verifier.Load].
	WholeLog bool
	// Run says that the program is to be run: a live one with maps is refused, unless
	// OnLiveMaps is set.
	Run bool
	// Ports says that maps that redirects go by get entries when the program runs: that they are empty now is no warning.
	Ports bool `json:"-"`
	// OnLiveMaps allows a live program to be run, which changes what its maps hold.
	OnLiveMaps bool
}

// Opened is a program that a target names. It must be closed.
type Opened struct {
	// Program is loaded. That of a target that is live is the live one.
	Program *ebpf.Program
	// Spec is what was loaded: the program, the maps that it uses, and what tail-call tables
	// hold. It is nil when the target is live.
	Spec *ebpf.CollectionSpec
	// Name is the program's name: that of its function for an object, at most 15 bytes of it for a live one.
	Name string
	// Type is ebpf.XDP, or ebpf.Extension for a part of a libxdp dispatcher.
	Type ebpf.ProgramType
	// Live is set for a program that was loaded before, whose maps are those of production.
	Live bool
	// Maps are the program's by name: of an object those that it was loaded with, of a live
	// program those in use, open for reading only. Two of one name get #ID.
	Maps map[string]*ebpf.Map
	// Parts are the programs of a libxdp dispatcher.
	Parts []Part
	// Copies say what became of each map of an object that was to be filled.
	Copies []Copy
	// Nowhere are the maps of an object that is to be run that redirects go by and that hold nothing: see NowhereText.
	Nowhere []string
	// Warnings say in a sentence each what makes this program another one than the user may
	// think.
	Warnings []string

	others []*ebpf.Program // of tail-call tables
	memory uint64          // about what the maps of an object take, in bytes
}

// OptionError is about a value of an option that does not fit what the target is.
type OptionError struct {
	// Name is what was asked for, Known are the names that there are: one may resemble it.
	Name  string
	Known []string
	Err   error
}

func (e *OptionError) Error() string { return e.Err.Error() }
func (e *OptionError) Unwrap() error { return e.Err }

// Open finds the program, loads it when it is an object's, and fills its maps. Nothing is
// pinned, attached or changed. It returns soon after ctx ends; what the kernel is still
// loading then is closed when it is done. A [feature.Missing] says what the machine lacks,
// an [OptionError] which option does not fit.
//
// Programs by id need CAP_SYS_ADMIN, objects CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
func (t Target) Open(ctx context.Context, o Options) (*Opened, error) {
	return verifier.Await(ctx, func() (*Opened, error) { return t.open(ctx, o) })
}

func (t Target) open(ctx context.Context, o Options) (*Opened, error) {
	switch {
	case t.id != 0, t.device != "":
		return t.openLive(ctx, o)
	case t.path == "":
		return nil, errors.New("no target is given")
	}
	path, name, err := t.file()
	if err != nil {
		return nil, err
	}
	if onBPFFS(path) {
		if name != "" {
			return nil, &OptionError{Err: fmt.Errorf("%s is pinned: it is one program, without a name after the colon", path)}
		}
		return t.openLive(ctx, o)
	}
	return openObject(ctx, path, name, o)
}

// file splits the path of an object from the name of a program in it. The name of a file may
// have a colon.
func (t Target) file() (path, name string, err error) {
	path, name, err = t.split()
	switch {
	case name == "" && path != t.path:
		return "", "", emptyName(t.text)
	case err == nil:
		return path, name, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("there is no file %s: a target is an object file, a pinned program, id:N or dev:DEV", path)
	}
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err
	}
	return "", "", fmt.Errorf("open %s: %w", path, err)
}

func emptyName(target string) error {
	return &OptionError{Err: fmt.Errorf("target %s: the name of the program is empty", target)}
}

// split is the path of a file that is there, and the name behind it, or why it is not.
func (t Target) split() (path, name string, err error) {
	if _, err = os.Stat(t.path); err == nil {
		return t.path, "", nil
	}
	if i := strings.LastIndexByte(t.path, ':'); i > 0 {
		path, name = t.path[:i], t.path[i+1:]
		_, err = os.Stat(path)
		return path, name, err
	}
	return t.path, "", err
}

// onBPFFS says whether a path is on a BPF file system, where programs are pinned.
func onBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && uint32(st.Type) == unix.BPF_FS_MAGIC
}

// Close closes the program and its maps. What only this process held is gone then.
func (o *Opened) Close() error {
	errs := []error{o.Program.Close()}
	for _, m := range o.Maps {
		errs = append(errs, m.Close())
	}
	for _, p := range o.others {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// TailCalls are the programs of the tail-call tables of an object, in no order.
func (o *Opened) TailCalls() []*ebpf.Program { return o.others }

func (o *Opened) warnf(format string, args ...any) {
	o.Warnings = append(o.Warnings, fmt.Sprintf(format, args...))
}
