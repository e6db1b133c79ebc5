package trace

import (
	"cmp"
	"debug/dwarf"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
)

// Lines are the source lines of a kernel by its debugging information (DWARF), as far as they
// were asked for.
type Lines struct {
	data *dwarf.Data
	// table is .debug_line: the header of a unit is vetted before it is read.
	table []byte
	// ranges and lines are of the unit that was asked for last: a function lies in one.
	ranges [][2]uint64
	lines  []line
}

// line is where the code of a source line begins; end is set where no line goes on.
type line struct {
	addr uint64
	file string
	line int
	end  bool
}

// Limits on debugging information, which may be a stranger's: that of Debian's 6.12 has
// 400 MB, and the largest unit of it some 30 000 lines.
const (
	maxDebug     = 1 << 30
	maxUnitLines = 1 << 20
	// Packed sections unpack to about three times their length.
	mostUnpacked  = 4
	leastUnpacked = 64 << 20
)

// ErrNoLines is returned for a kernel without debugging information.
var ErrNoLines = errors.New("it has no debugging information (CONFIG_DEBUG_INFO)")

// NewLines reads the debugging information of a vmlinux of some size, in bytes.
func NewLines(r io.ReaderAt, size int64) (*Lines, error) {
	if err := vetTitles(r); err != nil {
		return nil, fmt.Errorf("read debugging information: %w", err)
	}
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("read debugging information: %w", err)
	}
	sum, found := uint64(0), false
	for _, s := range f.Sections {
		if strings.HasPrefix(s.Name, ".zdebug_") { // of compilers before 2016
			return nil, fmt.Errorf("read debugging information: %s is packed in an old way", s.Name)
		}
		if !strings.HasPrefix(s.Name, ".debug_") {
			continue
		}
		found = found || s.Name == ".debug_info"
		if s.Size > maxDebug || s.Size > 64*uint64(size) {
			return nil, fmt.Errorf("read debugging information: %s has %d bytes", s.Name, s.Size)
		}
		sum += s.Size
	}
	switch {
	case !found:
		return nil, ErrNoLines
	case sum > min(maxDebug, max(leastUnpacked, mostUnpacked*uint64(size))):
		return nil, fmt.Errorf("read debugging information: more than %d MiB", min(maxDebug, max(leastUnpacked, mostUnpacked*uint64(size)))>>20)
	}
	l := new(Lines)
	if err := l.open(f); err != nil {
		return nil, fmt.Errorf("read debugging information: %w", err)
	}
	return l, nil
}

// open reads all sections, when they have nothing that package dwarf takes without limit.
func (l *Lines) open(f *elf.File) (err error) {
	for _, s := range f.Sections {
		switch s.Name {
		case ".debug_info":
			err = vetUnits(s)
		case ".debug_line_str":
			var b []byte
			if b, err = s.Data(); err == nil {
				err = vetPaths(b)
			}
		case ".debug_line":
			l.table, err = s.Data()
		}
		if err != nil {
			return err
		}
	}
	l.data, err = f.DWARF()
	return err
}

// At is the source line that an address comes from; ok is unset where none is known.
func (l *Lines) At(addr uint64) (file string, number int, ok bool) {
	if !slices.ContainsFunc(l.ranges, func(r [2]uint64) bool { return r[0] <= addr && addr < r[1] }) {
		unit, err := l.data.Reader().SeekPC(addr)
		if err != nil {
			return "", 0, false
		}
		if l.ranges, err = l.data.Ranges(unit); err != nil {
			return "", 0, false
		}
		l.lines = l.read(unit)
	}
	i := sort.Search(len(l.lines), func(i int) bool { return l.lines[i].addr > addr }) - 1
	if i < 0 || l.lines[i].end || l.lines[i].line == 0 {
		return "", 0, false
	}
	return l.lines[i].file, l.lines[i].line, true
}

// read reads the lines of a unit, by address; what cannot be read ends them.
func (l *Lines) read(unit *dwarf.Entry) (lines []line) {
	dir, _ := unit.Val(dwarf.AttrCompDir).(string)
	if at, ok := unit.Val(dwarf.AttrStmtList).(int64); !ok || at < 0 || at > int64(len(l.table)) || len(dir) > maxPath ||
		vetHeader(l.table[at:]) != nil {
		return nil
	}
	r, err := l.data.LineReader(unit)
	if err != nil || r == nil {
		return nil
	}
	for len(lines) < maxUnitLines {
		var e dwarf.LineEntry
		if r.Next(&e) != nil {
			break
		}
		at := line{addr: e.Address, line: e.Line, end: e.EndSequence}
		if e.File != nil {
			at.file = e.File.Name
		}
		lines = append(lines, at)
	}
	// The end of a sequence is before what begins at its address; of two lines there the later
	// one in the table holds.
	slices.SortStableFunc(lines, func(a, b line) int {
		switch {
		case a.addr != b.addr:
			return cmp.Compare(a.addr, b.addr)
		case a.end == b.end:
			return 0
		case a.end:
			return -1
		}
		return 1
	})
	return lines
}
