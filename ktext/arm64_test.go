package ktext

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/ksym"
)

// made are symbols of an Image that a test makes, by their distance from its beginning.
var made = []struct {
	name string
	at   uint64
}{{"t_text", 0}, {"T_stext", 0x100}, {"tfunction", 0x180}, {"T_etext", 0x200}, {"t_sinittext", 0x1200}, {"t_einittext", 0x1280}}

// madeBase is where that Image lies.
const madeBase = 0xffff800008000000

// kallsyms are tables of Linux 6.4 of the made symbols, one token a letter. Where their base is, in bytes from their beginning, is
// returned too.
func kallsyms() (b []byte, base int) {
	align := func() {
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
	}
	le := binary.LittleEndian
	b = le.AppendUint64(make([]byte, 16), uint64(len(made)))
	for _, s := range made {
		b = append(append(b, byte(len(s.name))), s.name...)
	}
	align()
	b = le.AppendUint64(b, 0) // one marker
	start := len(b)
	index := make([]uint16, 256)
	for i := range index {
		index[i] = uint16(len(b) - start)
		b = append(b, max(byte(i), 1), 0)
	}
	align()
	for _, off := range index {
		b = le.AppendUint16(b, off)
	}
	for _, s := range made {
		b = le.AppendUint32(b, uint32(-1-int32(s.at)))
	}
	align()
	return le.AppendUint64(b, madeBase), len(b)
}

// imageARM64 is an Image of arm64 with the made symbols and types. When linked is unset, its addresses are in a table of
// relocations alone, as in a kernel without CONFIG_RELR.
func imageARM64(linked bool) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0x2000)
	copy(b, "MZ\x40\xfa")
	copy(b[0x38:], "ARM\x64")
	le.PutUint32(b[0x180:], 0xd65f03c0) // ret
	copy(b[0x300:], "Linux version 6.4.0-made (a@b)")
	types := le.AppendUint32([]byte{0x9f, 0xeb, 1, 0}, 24)
	for _, n := range []uint32{0, 16, 16, 5} {
		types = le.AppendUint32(types, n)
	}
	types = append(types, "\x01\x00\x00\x00\x00\x00\x00\x01\x04\x00\x00\x00\x20\x00\x00\x01\x00int\x00"...)
	copy(b[0x400:], types)
	tables, base := kallsyms()
	copy(b[0x800:], tables)
	if linked {
		return b
	}
	clear(b[0x800+base:][:8])
	place := madeBase + uint64(0x800+base)
	for i := range uint64(minRelocs) {
		b = le.AppendUint64(b, place)
		b = le.AppendUint64(b, uint64(elf.R_AARCH64_RELATIVE))
		b = le.AppendUint64(b, madeBase+0x100*i)
		place = madeBase + 0x1800 + 8*i
	}
	return b
}

// An Image has the sections that its symbols tell, its release and its types. What a table of relocations has is put where it
// belongs, in the file's own memory: a copy would take as much again.
func TestImageARM64(t *testing.T) {
	t.Parallel()
	for name, linked := range map[string]bool{"linked": true, "table of relocations": false} {
		file := imageARM64(linked)
		img, err := parseImage(t.Context(), "x", file, nil, 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if data := img.Sections[0].Data; &data[0] != &file[0] {
			t.Errorf("%s: the image is a copy", name)
		}
		type part struct {
			Name      string
			Addr, Len int
			Exec      bool
		}
		var parts []part
		for _, s := range img.Sections {
			parts = append(parts, part{s.Name, int(s.Addr - madeBase), len(s.Data), s.Exec})
		}
		want := []part{{".data", 0, 0x100, false}, {".text", 0x100, 0x100, true}, {".data", 0x200, 0x1000, false},
			{".init.text", 0x1200, 0x80, true}, {".data", 0x1280, len(file) - 0x1280, false}}
		if diff := cmp.Diff(want, parts); diff != "" {
			t.Errorf("%s: sections (-want +got):\n%s", name, diff)
		}
		if img.Name != "vmlinux" || img.Release != "6.4.0-made" || img.Machine != elf.EM_AARCH64 || img.Table.Len() != len(made) {
			t.Errorf("%s: %s, release %q, %v, %d symbols", name, img.Name, img.Release, img.Machine, img.Table.Len())
		}
		if _, err := btf.LoadSpecFromReader(bytes.NewReader(img.BTF)); err != nil {
			t.Errorf("%s: types: %v", name, err)
		}
		code := make([]byte, 4)
		if s, ok := img.Table.Lookup("function"); !ok || img.ReadAddr(code, s.Addr) != nil || binary.LittleEndian.Uint32(code) != 0xd65f03c0 {
			t.Errorf("%s: %+v has % x", name, s, code)
		}
		if moved := make([]byte, 8); !linked && (img.ReadAddr(moved, madeBase+0x1808) != nil ||
			binary.LittleEndian.Uint64(moved) != madeBase+0x200) {
			t.Errorf("%s: % x", name, moved)
		}
	}
}

// Wherever symbols are, the sections of an Image are all of it, one behind the other.
func FuzzSectionsARM64(f *testing.F) {
	const base = uint64(madeBase)
	f.Add(base+0x10, base+0x20, base+0x30, base+0x40)
	f.Add(base+0x30, base+0x40, base+0x10, base+0x20)
	f.Add(base, base+0x100, base-0x20, base+0x20)
	f.Add(uint64(0), ^uint64(0), ^uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, text, etext, init, einit uint64) {
		table, err := ksym.New([]ksym.Symbol{
			{Addr: text, Name: "_stext", Type: 'T'}, {Addr: etext, Name: "_etext", Type: 'T'},
			{Addr: init, Name: "_sinittext", Type: 'T'}, {Addr: einit, Name: "_einittext", Type: 'T'},
		})
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 0x100)
		at := base
		for _, s := range sectionsARM64(b, base, table) {
			if s.Addr != at || len(s.Data) == 0 || &s.Data[0] != &b[at-base] {
				t.Fatalf("%s is of %d bytes at %#x, want it at %#x", s.Name, len(s.Data), s.Addr, at)
			}
			at += uint64(len(s.Data))
		}
		if at != base+uint64(len(b)) {
			t.Errorf("sections end at %#x", at)
		}
	})
}

// An Image that is cut off, has no symbols or lies nowhere has no code, or is refused; it never fails otherwise.
func TestImageARM64Refuses(t *testing.T) {
	t.Parallel()
	change := func(linked bool, do func([]byte)) []byte {
		b := imageARM64(linked)
		do(b)
		return b
	}
	_, base := kallsyms()
	for name, test := range map[string]struct {
		file    []byte
		refused string
		symbols int
		code    bool
	}{
		"big endian":        {change(true, func(b []byte) { b[24] = 1 }), "big endian", 0, false},
		"cut in its tables": {imageARM64(true)[:0x900], "", 0, false},
		"a header":          {imageARM64(true)[:0x40], "", 0, false},
		"no place for it":   {change(true, func(b []byte) { binary.LittleEndian.PutUint64(b[0x800+base:], ^uint64(0)-0x1000) }), "", 0, false},
		"relocation behind the end": {change(false, func(b []byte) {
			binary.LittleEndian.PutUint64(b[0x2000+24:], madeBase+1<<40)
		}), "", 0, false},
		"relocation of the table itself": {change(false, func(b []byte) {
			binary.LittleEndian.PutUint64(b[0x2000+24:], madeBase+0x2000-7)
		}), "", 0, false},
		"cut behind its code": {imageARM64(true)[:0x1240], "", len(made), true},
	} {
		img, err := parseImage(t.Context(), "x", test.file, nil, 0)
		switch {
		case test.refused != "":
			if err == nil || !strings.Contains(err.Error(), test.refused) {
				t.Errorf("%s: %v, want %q", name, err, test.refused)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case img.Table.Len() != test.symbols, slices.ContainsFunc(img.Sections, func(s Section) bool { return s.Exec }) != test.code:
			t.Errorf("%s: %d symbols, sections %+v", name, img.Table.Len(), img.Sections)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := parseImage(ctx, "x", imageARM64(true), nil, 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Types are found in an image without sections, behind what only begins as they do.
func TestTypesIn(t *testing.T) {
	t.Parallel()
	image := imageARM64(true)
	raw := image[0x400 : 0x400+24+16+5]
	with := slices.Concat(image[:0x100], []byte{0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0xff, 0xff}, image[:0x100], raw, image[:0x100])
	if got := typesIn(with); !bytes.Equal(got, raw) {
		t.Errorf("%d bytes, want %d", len(got), len(raw))
	}
	if got := typesIn(with[:len(with)-0x100-1]); got != nil {
		t.Errorf("%d bytes of a section that is cut off", len(got))
	}
}

// Debian's kernels of arm64, without and with packed relocations, with and without all symbols: their releases, their types, nearly
// all functions that the types know, and the same out of an Image.gz. A module lies where a call reaches.
func TestKernelsARM64(t *testing.T) {
	for _, series := range []string{"6.1", "6.12", "7.3"} {
		tree, err := OpenTree(t.Context(), guesttest.Named(t, "debian:"+series+"-cloud-arm64").Dir)
		if err != nil {
			t.Fatal(err)
		}
		img, err := OpenFile(t.Context(), tree.Vmlinuz)
		if err != nil {
			t.Fatal(err)
		}
		if img.Release != tree.Release || img.Machine != elf.EM_AARCH64 || len(img.BTF) < 4<<20 || len(img.Section(".text").Data) < 10<<20 {
			t.Errorf("%s of %v, want %s; %d bytes of types", img.Release, img.Machine, tree.Release, len(img.BTF))
		}
		known, all := functionsKnown(t, img)
		t.Logf("%s: %d symbols, %d of %d functions", tree.Release, img.Table.Len(), known, all)
		module, err := OpenModule(t.Context(), tree.Modules["veth"], img)
		if err != nil {
			t.Fatal(err)
		}
		poll, ok1 := module.Table.Lookup("veth_poll")
		last, ok2 := module.Table.Lookup("_etext")
		if !ok1 || !ok2 || last.Addr-poll.Addr >= 1<<27 || module.ReadAddr(make([]byte, 16), poll.Addr) != nil {
			t.Errorf("%s: a module at %#x, the text ends at %#x", tree.Release, poll.Addr, last.Addr)
		}
		if series != "6.1" {
			continue
		}
		plain, err := os.ReadFile(tree.Vmlinuz)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "Image.gz")
		if err := os.WriteFile(file, packed(t, plain), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := OpenFile(t.Context(), file)
		if err != nil || again.Release != img.Release || again.Table.Len() != img.Table.Len() {
			t.Errorf("Image.gz: %v", err)
		}
	}
}
