package list

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/pin"

	"github.com/unthunk/unthunk/internal/kernel"
)

// pins are the paths at which programs and links are pinned, by number.
type pins struct{ programs, links map[uint32][]string }

// maxPins bounds how many files of BPF file systems are opened.
const maxPins = 10_000

// errMorePins says that there are more files.
var errMorePins = errors.New("more than 10 000 pins")

// readPins opens what is pinned in the BPF file systems of a table of mounts. What cannot be
// opened, or goes meanwhile, is left out; files of other kinds are among it (maps.debug). It
// wraps [fs.ErrPermission] where a folder cannot be read.
func readPins(ctx context.Context, mountinfo string) (pins, error) {
	p := pins{make(map[uint32][]string), make(map[uint32][]string)}
	opened := 0
	var refused error
	for _, root := range bpfMounts(mountinfo) {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, fs.ErrPermission):
				refused = err
				return nil
			case err != nil, !entry.Type().IsRegular():
				return nil
			case opened == maxPins:
				return errMorePins
			}
			opened++
			p.add(path)
			return nil
		})
		if err != nil {
			return p, err
		}
	}
	return p, refused
}

// add notes what is pinned at path.
func (p pins) add(path string) {
	object, err := pin.Load(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		if object, err = pin.Load(path, nil); err != nil { // links take no flags
			return
		}
	}
	defer object.Close()
	switch o := object.(type) {
	case *ebpf.Program:
		if about, err := kernel.AboutProgram(o); err == nil {
			p.programs[uint32(about.ID)] = append(p.programs[uint32(about.ID)], clean(path))
		}
	case link.Link:
		if info, err := o.Info(); err == nil {
			p.links[uint32(info.ID)] = append(p.links[uint32(info.ID)], clean(path))
		}
	}
}

// bpfMounts are where BPF file systems are mounted, each once.
func bpfMounts(mountinfo string) (paths []string) {
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if !ok || !strings.HasPrefix(after, "bpf ") || len(fields) < 5 || len(paths) == maxMounts {
			continue
		}
		if path := unescaped(fields[4]); !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}
