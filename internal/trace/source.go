package trace

import (
	"bufio"
	"cmp"
	"context"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/unpack"
)

// Place is a line of a source file.
type Place struct {
	File string
	Line int
}

// Limits on debugging information, which may be a stranger's, in bytes: the largest unit of Debian's 6.12 has some 30 000 lines
// in 200 KB, and the paths of all units have 200 KB. A table shorter than leastTable has no line.
const (
	leastTable = 16
	maxTable   = 2 << 20
	maxPaths   = 16 << 20
)

// ErrNoLines is returned for a kernel without debugging information.
var ErrNoLines = errors.New("it has no debugging information (CONFIG_DEBUG_INFO)")

// Places finds in the debugging information (DWARF) of a vmlinux the source lines that addresses come from; those that are not
// known are left out. It reads the tables of lines of all units, one after the other, until all addresses are found or ctx ends.
func Places(ctx context.Context, r io.ReaderAt, addrs []uint64) (map[uint64]Place, error) {
	if err := vetTitles(r); err != nil {
		return nil, fmt.Errorf("read debugging information: %w", err)
	}
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("read debugging information: %w", err)
	}
	if slices.ContainsFunc(f.Sections, func(s *elf.Section) bool { return strings.HasPrefix(s.Name, ".zdebug_") }) {
		return nil, errors.New("read debugging information: it is packed in an old way") // of compilers before 2016
	}
	tables := f.Section(".debug_line")
	if tables == nil {
		return nil, ErrNoLines
	}
	s := search{found: make(map[uint64]Place), files: make(map[string]string)}
	if paths := f.Section(".debug_line_str"); paths != nil {
		if s.paths, err = io.ReadAll(io.LimitReader(unpack.Heard(ctx, paths.Open()), maxPaths+1)); err == nil && len(s.paths) > maxPaths {
			err = fmt.Errorf("paths of more than %d MiB", maxPaths>>20)
		}
		if err = cmp.Or(err, vetPaths(s.paths)); err != nil {
			return nil, fmt.Errorf("read debugging information: %w", err)
		}
	}
	s.left = slices.Compact(slices.Sorted(slices.Values(addrs)))
	if err := s.readAll(ctx, unpack.Heard(ctx, tables.Open())); err != nil {
		return nil, fmt.Errorf("read debugging information: %w", err)
	}
	return s.found, nil
}

// search looks for the lines of addresses.
type search struct {
	// paths is .debug_line_str.
	paths []byte
	// left are the addresses that are not found, sorted.
	left  []uint64
	found map[uint64]Place
	// files are the paths of found, each once, of so many bytes.
	files map[string]string
	bytes int
}

// readAll reads tables of lines; what is no table ends them.
func (s *search) readAll(ctx context.Context, r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for len(s.left) > 0 {
		table, err := nextTable(in)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
		if table != nil && vetTable(table) == nil {
			if err := s.read(ctx, table); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextTable reads a table with its length before it (DWARF 5, 6.2.4); nil for one that is shorter or longer than any of a compiler.
func nextTable(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(4)
	if err != nil {
		return nil, err
	}
	length := uint64(binary.LittleEndian.Uint32(head)) + 4
	if length == 1<<32-1+4 {
		if head, err = r.Peek(12); err != nil {
			return nil, err
		}
		length = binary.LittleEndian.Uint64(head[4:])
		if length > math.MaxInt64-12 {
			return nil, io.ErrUnexpectedEOF
		}
		length += 12
	}
	if length < leastTable || length > maxTable {
		_, err := r.Discard(int(length))
		return nil, err
	}
	table := make([]byte, length)
	_, err = io.ReadFull(r, table)
	return table, err
}

// read finds addresses in a table; what cannot be read ends it. The error is of ctx, which it asks every 4096 lines, or of too
// many paths.
func (s *search) read(ctx context.Context, table []byte) error {
	// Package dwarf reads tables of units only: this is one of version 4 with addresses of 8 bytes, and one byte of content.
	unit := []byte{8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8, 0}
	data, err := dwarf.New([]byte{0}, nil, nil, unit, table, nil, nil, nil)
	if err != nil || data.AddSection(".debug_line_str", s.paths) != nil {
		return nil
	}
	r, err := data.LineReader(&dwarf.Entry{
		Offset: dwarf.Offset(len(unit) - 1), Tag: dwarf.TagCompileUnit,
		Field: []dwarf.Field{{Attr: dwarf.AttrStmtList, Val: int64(0), Class: dwarf.ClassLinePtr}},
	})
	if err != nil || r == nil {
		return nil
	}
	var last, next dwarf.LineEntry
	last.EndSequence = true
	for n := 0; len(s.left) > 0 && r.Next(&next) == nil; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !last.EndSequence && last.File != nil && last.Line > 0 {
			s.take(last.Address, next.Address, Place{last.File.Name, last.Line})
			if s.bytes > maxPaths {
				return fmt.Errorf("paths of more than %d MiB", maxPaths>>20)
			}
		}
		last = next
	}
	return nil
}

// take finds the addresses from low to before high.
func (s *search) take(low, high uint64, at Place) {
	i, _ := slices.BinarySearch(s.left, low)
	j := i
	if j < len(s.left) && s.left[j] < high {
		file, ok := s.files[at.File]
		if !ok {
			file, s.bytes = at.File, s.bytes+len(at.File)
			s.files[file] = file
		}
		at.File = file
	}
	for j < len(s.left) && s.left[j] < high {
		s.found[s.left[j]] = at
		j++
	}
	s.left = slices.Delete(s.left, i, j)
}
