package ktext_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/ktext"
)

const textAddr = 0xffffffff81000000

// vmlinux makes an ELF file with one function, xdp_do_generic, of code.
func vmlinux(code []byte) []byte {
	const headerSize, symbolSize = 64, 24
	names, strings := "\x00.text\x00.symtab\x00.strtab\x00", "\x00xdp_do_generic\x00"
	var symbols bytes.Buffer
	function := elf.Sym64{Name: 1, Info: byte(elf.STT_FUNC), Shndx: 1, Value: textAddr, Size: uint64(len(code))}
	for _, s := range []elf.Sym64{{}, function} {
		binary.Write(&symbols, binary.LittleEndian, s)
	}
	body := bytes.Join([][]byte{code, symbols.Bytes(), []byte(strings), []byte(names)}, nil)
	at := uint64(headerSize)
	place := func(s elf.Section64, size int) elf.Section64 {
		s.Off, s.Size = at, uint64(size)
		at += uint64(size)
		return s
	}
	sections := []elf.Section64{
		{},
		place(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR),
			Addr: textAddr}, len(code)),
		place(elf.Section64{Name: 7, Type: uint32(elf.SHT_SYMTAB), Link: 3, Entsize: symbolSize}, symbols.Len()),
		place(elf.Section64{Name: 15, Type: uint32(elf.SHT_STRTAB)}, len(strings)),
		place(elf.Section64{Name: 15, Type: uint32(elf.SHT_STRTAB)}, len(names)),
	}
	var out bytes.Buffer
	binary.Write(&out, binary.LittleEndian, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: at, Ehsize: headerSize, Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: 4,
	})
	out.Write(body)
	binary.Write(&out, binary.LittleEndian, sections)
	return out.Bytes()
}

func ExampleOpenFile() {
	dir, err := os.MkdirTemp("", "ktext")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "vmlinux")
	if err := os.WriteFile(path, vmlinux([]byte{0x90, 0xc3}), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	kernel, err := ktext.OpenFile(context.Background(), path)
	if err != nil {
		fmt.Println(err)
		return
	}
	f, _ := kernel.Table.Lookup("xdp_do_generic")
	code := make([]byte, 2)
	if err := kernel.ReadAddr(code, f.Addr); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s at %#x: % x\n", f.Name, f.Addr, code)
	// Output: xdp_do_generic at 0xffffffff81000000: 90 c3
}

// A kernel in a folder, found, opened, and read up to its end.
func TestImageOfTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "boot"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "boot/vmlinuz-6.1.0")
	if err := os.WriteFile(file, vmlinux([]byte{0x90, 0x90, 0xc3}), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := ktext.OpenTree(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Release != "6.1.0" {
		t.Errorf("release %q, want 6.1.0", tree.Release)
	}
	img, err := ktext.OpenFile(t.Context(), tree.Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	want := []ktext.Section{{Name: ".text", Addr: textAddr, Data: []byte{0x90, 0x90, 0xc3}, Exec: true}}
	if diff := cmp.Diff(want, img.Sections); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	if img.Name != "vmlinux" || img.Machine != elf.EM_X86_64 || img.Section(".data") != nil {
		t.Errorf("name %q, machine %v, .data %v", img.Name, img.Machine, img.Section(".data"))
	}
	var source ktext.Source = img
	var b [2]byte
	if err := source.ReadAddr(b[:], textAddr+1); err != nil || b != [2]byte{0x90, 0xc3} {
		t.Errorf("read % x, %v", b, err)
	}
	if err := source.ReadAddr(b[:], textAddr+2); err == nil {
		t.Error("read beyond the end: no error")
	}
	if _, err := ktext.OpenFile(t.Context(), filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want %v", err, fs.ErrNotExist)
	}
}

func ExampleModuleName() {
	name, ok := ktext.ModuleName("/lib/modules/6.1.0/kernel/drivers/net/virtio-net.ko.xz")
	fmt.Println(name, ok)
	// Output: virtio_net true
}
