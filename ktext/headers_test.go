package ktext

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/unpack"
)

// section is one of a file that is made for a test.
type section struct {
	kind, flags uint64
	data        []byte
	link, info  uint32
}

// object is an ELF file of sections; again lists the last of them that many times more.
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
		binary.LittleEndian.PutUint32(head[40:], s.link)
		binary.LittleEndian.PutUint32(head[44:], s.info)
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
	binary.LittleEndian.PutUint16(b[62:], uint16(len(sections))) // the last has the sections' names
	return append(b, heads...)
}

// changed is b with another byte at one place.
func changed(b []byte, at int, to byte) []byte {
	b[at] = to
	return b
}

// Files that made debug/elf take gigabytes, or the rest of the package hours.
func TestCheckHeaders(t *testing.T) {
	const progbits, symtab, strtab, rela = 1, 2, 3, 4
	names := []byte("\x00a\x00b\x00")
	long := []byte("\x00" + strings.Repeat("a", unpack.MaxName+1) + "\x00")
	for name, test := range map[string]struct {
		file []byte
		want string
	}{
		"plain":              {object(0, section{kind: strtab, data: names}, section{kind: rela, data: make([]byte, 48)}), ""},
		"long name":          {object(0, section{kind: strtab, data: long}), "a name of 2049 bytes"},
		"name without end":   {object(0, section{kind: strtab, data: long[:len(long)-1]}), "a name of 2049 bytes"},
		"compressed names":   {object(0, section{kind: strtab, flags: 0x800, data: names}), "compressed"},
		"compressed symbols": {object(0, section{kind: symtab, flags: 0x800, data: names}), "compressed"},
		"relocations again":  {object(1000, section{kind: rela, data: make([]byte, 4800)}), "overlap"},
		"code again":         {object(1000, section{kind: progbits, data: make([]byte, 4800)}), "overlap"},
		"names again":        {object(1000, section{kind: strtab, data: make([]byte, 4800)}), "overlap"},
		"no ELF":             {[]byte("hello"), ""},
		"big endian":         {changed(object(0, section{kind: strtab, flags: 0x800, data: names}), 5, 2), "little endian"},
		"32 bit":             {changed(object(0, section{kind: strtab, flags: 0x800, data: names}), 4, 1), "not 64 bit"},
		"very many sections": {changed(object(0, section{kind: strtab, flags: 0x800, data: names}), 60, 0), "65280 sections"},
	} {
		err := unpack.CheckHeaders(test.file)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if test.want == "" {
			continue
		}
		if _, err := parseImage(t.Context(), "x", test.file, nil, 0); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: as an image: %v", name, err)
		}
	}
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Symbols that share a long name share its memory, and names are in a table of names.
func TestSharedName(t *testing.T) {
	const count = 10_000
	entry := make([]byte, 24)
	entry[0], entry[4], entry[6] = 1, 2, 1 // the name at 1, a function, in section 1
	table := append(make([]byte, 24), bytes.Repeat(entry, count)...)
	names := []byte("\x00" + strings.Repeat("a", unpack.MaxName) + "\x00")
	file := object(0, section{kind: 1, flags: 6, data: make([]byte, 64)}, section{kind: 2, data: table, link: 3},
		section{kind: 3, data: names})
	var img *Image
	var err error
	got := allocated(func() { img, err = parseImage(t.Context(), "x", file, nil, 0) })
	if err != nil {
		t.Fatal(err)
	}
	if n := len(img.Table.All(string(names[1 : unpack.MaxName+1]))); n != count {
		t.Errorf("%d symbols, want %d", n, count)
	}
	if limit := uint64(10 << 20); got > limit { // 20 MB of names
		t.Errorf("%d bytes of %d allocated %d, want at most %d", len(file), count, got, limit)
	}

	// A table of names that is said to be code, packed.
	file = object(0, section{kind: 1, flags: 0x800, data: names}, section{kind: 2, data: table, link: 1}, section{kind: 3, data: []byte{0}})
	if _, err := parseImage(t.Context(), "x", file, nil, 0); err == nil || !strings.Contains(err.Error(), "without names") {
		t.Error(err)
	}
}

// A module's relocations are counted.
func TestManyRelocs(t *testing.T) {
	text := section{kind: 1, flags: 6, data: make([]byte, 64)}
	names := section{kind: 3, data: []byte{0}}
	img, err := parseImage(t.Context(), "x", object(0, text, section{kind: 4, data: make([]byte, 24*5), info: 1}, names), nil, 0)
	if err != nil || len(img.Relocs) != 5 {
		t.Errorf("%+v, %v", img, err)
	}
	many := packed(t, object(0, text, section{kind: 4, data: make([]byte, 24*(maxRelocs+1)), info: 1}, names))
	if _, err := parseImage(t.Context(), "x", many, nil, 0); err == nil || !strings.Contains(err.Error(), "relocations") {
		t.Errorf("%d bytes: %v", len(many), err)
	}
}
