package trace

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits on what package dwarf copies or makes room for as often as debugging information says, without looking at how much
// of it there is. The largest table of files of Debian's 6.12 has 1000 in 100 KB.
const (
	maxSections = 1024
	maxTitles   = 64 << 10  // bytes of names of sections
	maxHeader   = 256 << 10 // bytes before the lines of a unit
	maxFiles    = 1 << 14
	maxPath     = 1024 // bytes
)

// Instructions of a table of lines: an extended one that adds a file, one with an operand that package dwarf takes without looking at
// how many there are said to be, and the one whose operand is of 2 bytes.
const (
	defineFile   = 3
	setColumn    = 5
	fixedAdvance = 9
)

// vetTitles refuses section headers that package elf would take much memory for: it copies the name of each section.
func vetTitles(r io.ReaderAt) error {
	var head [64]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return fmt.Errorf("read its header: %w", err)
	}
	if head[elf.EI_CLASS] != byte(elf.ELFCLASS64) || head[elf.EI_DATA] != byte(elf.ELFDATA2LSB) {
		return errors.New("not 64 bit, little endian")
	}
	at, each := binary.LittleEndian.Uint64(head[40:]), binary.LittleEndian.Uint16(head[58:])
	n, titles := binary.LittleEndian.Uint16(head[60:]), binary.LittleEndian.Uint16(head[62:])
	if n == 0 || n > maxSections || titles >= n || each != 64 || at > 1<<62 {
		return fmt.Errorf("%d sections: 1 to %d are read", n, maxSections)
	}
	var h [64]byte
	if _, err := r.ReadAt(h[:], int64(at)+64*int64(titles)); err != nil {
		return fmt.Errorf("read the header of its names: %w", err)
	}
	packed := elf.SectionFlag(binary.LittleEndian.Uint64(h[8:]))&elf.SHF_COMPRESSED != 0
	if length := binary.LittleEndian.Uint64(h[32:]); packed || length > maxTitles {
		return fmt.Errorf("names of sections of %d bytes, packed %v", length, packed)
	}
	return nil
}

var errPath = fmt.Errorf("a path of more than %d bytes", maxPath)

// vetPaths refuses texts that are too long for a path: one is copied for each file that is said to be there.
func vetPaths(b []byte) error {
	for len(b) > maxPath {
		i := bytes.IndexByte(b, 0)
		if i < 0 || i > maxPath {
			return errPath
		}
		b = b[i+1:]
	}
	return nil
}

// cursor reads a table. Behind its end all is 0, and short is set.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) skip(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.b, c.short = nil, true
		return nil
	}
	some := c.b[:n:n]
	c.b = c.b[n:]
	return some
}

// fixed reads a number of at most 8 bytes.
func (c *cursor) fixed(n uint64) uint64 {
	var b [8]byte
	copy(b[:n], c.skip(n))
	return binary.LittleEndian.Uint64(b[:])
}

func (c *cursor) uint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.skip(uint64(len(c.b)) + 1)
		return 0
	}
	c.skip(uint64(n))
	return v
}

// vetTable refuses a table of lines, which begins b, whose files package dwarf would make room for without end. Its tables of folders and
// files must end where its header says: package dwarf reads on behind that.
func vetTable(b []byte) error {
	c := &cursor{b: b}
	wide, length := uint64(4), c.fixed(4)
	if length == 1<<32-1 {
		wide, length = 8, c.fixed(8)
	}
	if length < uint64(len(c.b)) {
		c.b = c.b[:length]
	}
	version := c.fixed(2)
	if version >= 5 {
		c.skip(2)
	}
	size := c.fixed(wide)
	if c.short {
		return io.ErrUnexpectedEOF
	}
	if size > min(maxHeader, uint64(len(c.b))) {
		return fmt.Errorf("a table of files of %d bytes", size)
	}
	program := &cursor{b: c.b[size:]}
	c.b = c.b[:size]
	if err := vetPaths(c.b); err != nil {
		return err
	}
	if version >= 4 {
		c.skip(1) // operations of an instruction
	}
	c.skip(4) // the length of an instruction, the range of lines
	base := max(c.fixed(1), 1)
	lengths := c.skip(base - 1)
	walk := c.walkFiles
	if version >= 5 {
		walk = c.walkFiles5
	}
	if err := walk(wide); err != nil {
		return err
	}
	if c.short || len(c.b) > 0 {
		return errors.New("tables of files that do not end with their header")
	}
	return vetProgram(program, base, lengths)
}

// walkFiles goes behind the folders and files of a table before DWARF 5 (DWARF 4, 6.2.4): each list ends with an empty name.
func (c *cursor) walkFiles(uint64) error {
	for _, numbers := range []int{0, 3} { // behind a folder, behind a file
		for n := 0; ; n++ {
			if n > maxFiles {
				return fmt.Errorf("a table of more than %d files", maxFiles)
			}
			if name := c.text(); len(name) == 0 {
				break
			}
			for range numbers {
				c.uint()
			}
		}
	}
	return nil
}

// walkFiles5 goes behind those of DWARF 5 (6.2.4): each list has its forms and its length before it.
func (c *cursor) walkFiles5(wide uint64) error {
	for range 2 { // folders, files
		var forms []uint64
		for range c.fixed(1) {
			c.uint() // what it is
			forms = append(forms, c.uint())
		}
		n := c.uint()
		if n > maxFiles || n > 0 && len(forms) == 0 {
			return fmt.Errorf("a table of %d files", n)
		}
		for range n {
			for _, form := range forms {
				if err := c.form(form, wide); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// text reads a text without the 0 that ends it.
func (c *cursor) text() []byte {
	i := bytes.IndexByte(c.b, 0)
	if i < 0 {
		c.skip(uint64(len(c.b)) + 1)
		return nil
	}
	return c.skip(uint64(i) + 1)[:i]
}

// vetProgram refuses instructions that add files (DW_LNE_define_file): DWARF 5 has none, and a path of 1 KB takes 8 bytes of them.
// base is the first special instruction, lengths are how many operands each one before it has (DWARF 5, 6.2.5).
func vetProgram(c *cursor, base uint64, lengths []byte) error {
	for len(c.b) > 0 && !c.short {
		switch op := c.fixed(1); {
		case op >= base:
		case op == 0:
			if extended := c.skip(c.uint()); len(extended) == 0 || extended[0] == defineFile {
				return errors.New("files among its lines")
			}
		case op == setColumn:
			c.uint()
		case op == fixedAdvance:
			c.skip(2)
		case int(op) <= len(lengths):
			for range lengths[op-1] {
				c.uint()
			}
		}
	}
	if c.short {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// form goes behind a value in one of the forms that tables of files have (DWARF 5, 6.2.4.1 and 7.5.6).
func (c *cursor) form(form, wide uint64) error {
	switch form {
	case 0x08: // string
		c.text()
	case 0x1f: // line_strp
		c.skip(wide)
	case 0x0b: // data1
		c.skip(1)
	case 0x05: // data2
		c.skip(2)
	case 0x06: // data4
		c.skip(4)
	case 0x07: // data8
		c.skip(8)
	case 0x1e: // data16
		c.skip(16)
	case 0x0f: // udata
		c.uint()
	case 0x09: // block
		c.skip(c.uint())
	default:
		return fmt.Errorf("a table of files with values of form %#x", form)
	}
	return nil
}
