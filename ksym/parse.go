package ksym

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

const (
	// maxLine is longer than any line the kernel prints: 16 digits, a type,
	// a name of at most KSYM_NAME_LEN (512 since Linux 6.1) and a module.
	maxLine = 1024
	// maxSymbols bounds memory on a file that is not kallsyms. Kernels with
	// KALLSYMS_ALL list up to about 300 000.
	maxSymbols = 4 << 20
)

// Symbol is one name of one address.
type Symbol struct {
	Addr uint64 // virtual
	// Size is the distance in bytes to the next higher address that has a
	// symbol, so padding counts as part of what comes before it. It is 0
	// when not known: for the highest symbol of a module, and for symbols
	// that come from [Scan].
	Size uint64
	// Type is the letter nm prints: t and T are text.
	Type byte
	Name string
	// Module is the name of the module, "bpf" for JITed BPF programs, and
	// empty for the kernel itself.
	Module string
}

// Text tells whether the symbol is code.
func (s Symbol) Text() bool {
	return s.Type == 't' || s.Type == 'T' || s.Type == 'w' || s.Type == 'W'
}

// line is a symbol whose strings still point into the read buffer.
type line struct {
	addr         uint64
	typ          byte
	name, module []byte
}

// scan yields the symbols of r in the order of the file. It stops after the first
// error.
func scan(r io.Reader) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		br := bufio.NewReaderSize(r, 64<<10)
		for n := 1; ; n++ {
			raw, err := br.ReadSlice('\n')
			switch {
			case errors.Is(err, bufio.ErrBufferFull) || len(raw) > maxLine:
				yield(line{}, fmt.Errorf("parse kallsyms line %d: longer than %d bytes", n, maxLine))
				return
			case err != nil && !errors.Is(err, io.EOF):
				yield(line{}, fmt.Errorf("read kallsyms: %w", err))
				return
			case err != nil && len(raw) == 0:
				return
			case n > maxSymbols:
				yield(line{}, fmt.Errorf("parse kallsyms: more than %d symbols", maxSymbols))
				return
			}
			last := err != nil
			l, err := parseLine(bytes.TrimSuffix(raw, []byte("\n")))
			if err != nil {
				yield(line{}, fmt.Errorf("parse kallsyms line %d: %w", n, err))
				return
			}
			if !mapping(l.name) && !yield(l, nil) || last {
				return
			}
		}
	}
}

// mapping tells the symbols by which modules and objects of arm64 tell code ($x) from data ($d): they name nothing (is_mapping_symbol in
// include/linux/module_symbol.h). The kernel's own symbols have none.
func mapping(name []byte) bool {
	return len(name) >= 2 && name[0] == '$' && bytes.IndexByte([]byte("adtx"), name[1]) >= 0 && (len(name) == 2 || name[2] == '.')
}

// parseLine reads "ffffffff81000000 T name" with an optional "\t[module]".
func parseLine(b []byte) (line, error) {
	addr, rest, ok := bytes.Cut(b, []byte(" "))
	if !ok || len(addr) == 0 || len(addr) > 16 {
		return line{}, errors.New("no address")
	}
	var l line
	for _, c := range addr {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		default:
			return line{}, fmt.Errorf("address %q is not hexadecimal", addr)
		}
		l.addr = l.addr<<4 | uint64(c)
	}
	if len(rest) < 3 || rest[1] != ' ' {
		return line{}, errors.New("no type letter")
	}
	l.typ = rest[0]
	name, module, hasModule := bytes.Cut(rest[2:], []byte("\t"))
	if len(name) == 0 || bytes.IndexByte(name, ' ') >= 0 {
		return line{}, fmt.Errorf("name %q is not one word", name)
	}
	l.name = name
	if hasModule {
		if len(module) < 3 || module[0] != '[' || module[len(module)-1] != ']' {
			return line{}, fmt.Errorf("module %q is not in brackets", module)
		}
		l.module = module[1 : len(module)-1]
	}
	return l, nil
}
