package ktext

import (
	"encoding/binary"
	"strings"
	"testing"
)

// section is one of a file that is made for a test.
type section struct {
	kind, flags uint64
	data        []byte
}

// object is an ELF file of sections; again lists the last of them so many times more.
func object(again int, sections ...section) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	for at, value := range map[int]uint16{16: 1, 18: 62, 52: 64, 58: 64} { // ET_REL, x86-64
		binary.LittleEndian.PutUint16(b[at:], value)
	}
	binary.LittleEndian.PutUint32(b[20:], 1)
	heads := make([]byte, 64)
	for i, s := range sections {
		head := make([]byte, 64)
		binary.LittleEndian.PutUint32(head[4:], uint32(s.kind))
		binary.LittleEndian.PutUint64(head[8:], s.flags)
		binary.LittleEndian.PutUint64(head[24:], uint64(len(b)))
		binary.LittleEndian.PutUint64(head[32:], uint64(len(s.data)))
		b = append(b, s.data...)
		n := 1
		if i == len(sections)-1 {
			n += again
		}
		for range n {
			heads = append(heads, head...)
		}
	}
	binary.LittleEndian.PutUint64(b[40:], uint64(len(b)))
	binary.LittleEndian.PutUint16(b[60:], uint16(len(heads)/64))
	return append(b, heads...)
}

// Files that made debug/elf take gigabytes.
func TestCheckHeaders(t *testing.T) {
	const symtab, strtab, rela = 2, 3, 4
	names := []byte("\x00a\x00b\x00")
	long := []byte("\x00" + strings.Repeat("a", maxName+1) + "\x00")
	for name, test := range map[string]struct {
		file []byte
		want string
	}{
		"plain":              {object(0, section{kind: strtab, data: names}, section{kind: rela, data: make([]byte, 48)}), ""},
		"long name":          {object(0, section{kind: strtab, data: long}), "a name of 2049 bytes"},
		"name without end":   {object(0, section{kind: strtab, data: long[:len(long)-1]}), "a name of 2049 bytes"},
		"compressed names":   {object(0, section{kind: strtab, flags: 0x800, data: names}), "compressed"},
		"compressed symbols": {object(0, section{kind: symtab, flags: 0x800, data: names}), "compressed"},
		"relocations again":  {object(1000, section{kind: rela, data: make([]byte, 4800)}), "more relocations"},
		"no ELF":             {[]byte("hello"), ""},
	} {
		err := checkHeaders(test.file)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if test.want == "" {
			continue
		}
		if _, err := parseImage("x", test.file, nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: as an image: %v", name, err)
		}
	}
}
