package ktext

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/unpack"
)

// numbered are a section of code and the tables of so many functions in it, whose names have 60 bytes, the first of another.
func numbered(count int) []section {
	const length = 61
	table, names := make([]byte, elf.Sym64Size, (count+1)*elf.Sym64Size), make([]byte, 1, 1+count*length)
	for n := range count {
		entry := make([]byte, elf.Sym64Size)
		binary.LittleEndian.PutUint32(entry, uint32(len(names)))
		entry[4], entry[6] = 2, 1 // a function in section 1
		binary.LittleEndian.PutUint64(entry[8:], 0xffffffff81000000+uint64(n))
		table = append(table, entry...)
		name := []byte(strings.Repeat("a", length-9) + "\x00")
		names = append(names, name...)
		binary.LittleEndian.PutUint32(names[len(names)-9:], uint32(n)|0x80808080)
	}
	return []section{{kind: 1, flags: 6, data: make([]byte, 64)}, {kind: 2, data: table, link: 3}, {kind: 3, data: names}}
}

// asKernel makes an object a kernel, whose first section of code lies at an address.
func asKernel(b []byte) []byte {
	b[16] = byte(elf.ET_EXEC)
	heads := b[binary.LittleEndian.Uint64(b[40:]):]
	binary.LittleEndian.PutUint64(heads[64+16:], 0xffffffff81000000)
	return b
}

// Reading the symbols of a kernel takes what their table has, and nothing as large beside it.
func TestKernelMemory(t *testing.T) {
	const count = 100_000
	file := asKernel(object(0, append(numbered(count), section{kind: 3, data: []byte{0}})...))
	var img *Image
	var err error
	// What debug/elf reads at once is beside it.
	testutil.Allocates(t, count*(24+62)+2<<20, func() { img, err = parseImage(t.Context(), "x", file, nil, 0) })
	if err != nil || img.Table.Len() != count {
		t.Fatalf("%+v, %v", img, err)
	}
	if want := len(file) + img.Table.Memory(); img.Memory() != want {
		t.Errorf("%d bytes, want %d", img.Memory(), want)
	}
}

// What is read beside a kernel or beside types has to fit with them, before it is unpacked and behind that.
func TestMemoryTogether(t *testing.T) {
	dir := t.TempDir()
	save := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kernel, err := OpenFile(t.Context(), save("vmlinux", asKernel(object(0, numbered(1000)...))))
	if err != nil {
		t.Fatal(err)
	}
	many := object(0, numbered(10_000)...)
	fits := len(many) + 10_000*(symbolSize+entrySize) + 10_000*61 // what reading takes most
	for name, file := range map[string][]byte{"plain.ko": many, "packed.ko.gz": packed(t, many)} {
		path := save(name, file)
		for what, test := range map[string]struct {
			left int
			want string
		}{
			"not the file": {len(many) - 1, "beside 319 MiB that are in use: at most 320 are possible together"},
			"the file":     {len(many) + len(file) + 1<<16, " MiB of code and symbols: at most 320 are possible together"},
			"all":          {fits + 2*len(file) + 1<<20, ""},
		} {
			_, err := OpenBeside(t.Context(), path, unpack.MaxHeld-test.left)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%s, room for %s: %v, want %q", name, what, err, test.want)
			}
			large := *kernel
			large.memory = unpack.MaxHeld - test.left
			if _, err = OpenModule(t.Context(), path, &large); test.want == "" && err != nil || test.want != "" && err == nil {
				t.Errorf("%s on a kernel, room for %s: %v", name, what, err)
			}
		}
	}
	img, err := OpenModule(t.Context(), save("small.ko", object(0, numbered(100)...)), kernel)
	if err != nil || img.Table.Len() != 1100 || img.Memory() <= kernel.Memory() {
		t.Errorf("%+v, %v", img, err)
	}
}

// Of a file that is not packed what is in memory is read, with symbols and types, and no debugging information.
func TestOpenFileSlim(t *testing.T) {
	const debug = 64 << 20
	sections := numbered(1000)
	whole := append(sections, section{kind: 1, data: make([]byte, debug)})
	file := asKernel(object(0, append(whole, section{kind: 3, data: []byte("\x00.text\x00")})...))
	want, err := parseImage(t.Context(), "x", bytes.Clone(file), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	var img *Image
	testutil.Allocates(t, debug/8, func() { img, err = OpenFile(t.Context(), path) })
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Sections) != len(want.Sections) || !bytes.Equal(img.Sections[0].Data, want.Sections[0].Data) ||
		img.Sections[0].Addr != want.Sections[0].Addr || img.Table.Len() != want.Table.Len() || img.Memory() > want.Memory()-debug {
		t.Errorf("%+v, want %+v", img, want)
	}
}
