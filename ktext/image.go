package ktext

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/unpack"
	"github.com/unthunk/unthunk/ksym"
)

// Limits on what a file may hold, whatever it says of itself. A kernel has up to
// 190 000 symbols with 9 MB of names, and of the modules of Debian's 6.12 for clouds xfs
// has most relocations of what is in memory: 111 000.
const (
	maxSymbols = 1 << 20
	maxRelocs  = 1 << 20
	maxNames   = 64 << 20 // bytes
	// A module is read beside its kernel. Debian's 6.12 for clouds has most symbols in
	// kvm: 6 000; the largest drivers of others, of GPUs, have ten times as many.
	maxModuleSymbols = 1 << 18
	maxModuleNames   = 16 << 20 // bytes
)

// Image is kernel code read from a file: a vmlinux, what a bzImage unpacks to, or
// a module. It is a [Source].
type Image struct {
	// Name is "vmlinux", or the module's name: "veth".
	Name string
	// Release is what uname -r says of it; empty when it was not found.
	Release string
	// Machine is what the code is for.
	Machine elf.Machine
	// Sections are those that are in memory, by address. A module's lie at
	// addresses of its own making, where no kernel puts anything.
	Sections []Section
	// Table has its symbols. What a module needs of others is in it too, each
	// name at an address where there is no code.
	Table *ksym.Table
	// Relocs are what the loader fills in, by address; only a module has
	// them. They are applied already.
	Relocs []Reloc
	// BTF is the raw section of types; nil when there is none. That of a
	// module builds on its kernel's.
	BTF []byte

	memory int // in bytes, without what it shares with another
}

// Memory is about how many bytes the image takes, with its symbols; one of a module with its kernel.
func (i *Image) Memory() int { return i.memory }

// Section is a part of an image.
type Section struct {
	Name string // ".text"
	Addr uint64 // virtual address of Data's first byte
	Data []byte // as the file has it
	Exec bool   // it holds code
}

// Reloc is a field that holds an address.
type Reloc struct {
	Addr   uint64 // virtual address of the field
	Type   uint32 // of the machine: R_X86_64_PLT32
	Symbol string // empty for a section's
	// Target is the address of the symbol, Addend what is added to it.
	Target uint64
	Addend int64
}

// OpenFile reads a kernel or a module: ELF, or one packed with xz, zstd or gzip,
// or a bzImage (x86 boot protocol 2.08, Linux 2.6.26) with a payload of gzip,
// zstd, lz4, xz or lzma; or an Image of arm64, packed in any of these ways or in a
// program of EFI (CONFIG_EFI_ZBOOT, Linux 6.1). Its format is known by its bytes. The symbols of a
// stripped vmlinux, as that in a bzImage, and of an Image are those of its kallsyms
// ([ksym.RecoverAt]); without these it has none. A file may have up to 512 MiB, one that
// is packed, and what it unpacks to, up to 192 MiB; 64 MiB when it does not say how much
// it unpacks to. Of one that is not packed only what is in memory counts, with symbols and types; others parts,
// as debugging information, are not read. All that an image takes has 320 MiB. When ctx ends OpenFile returns the error of ctx.
func OpenFile(ctx context.Context, path string) (*Image, error) { return openFile(ctx, path, nil, 0) }

// OpenBeside is [OpenFile] where so many bytes of the 320 MiB are in use already.
func OpenBeside(ctx context.Context, path string, used int) (*Image, error) {
	return openFile(ctx, path, nil, used)
}

// OpenModule reads a module as [OpenFile] does and puts it on its kernel: the image
// has the code, the symbols and the types of both, and what the module calls is the
// kernel's. Both together have 320 MiB.
func OpenModule(ctx context.Context, path string, kernel *Image) (*Image, error) {
	return openFile(ctx, path, kernel, kernel.memory)
}

// ReadTypes reads the raw section of types of the kernel in a file, as [OpenFile] reads the file; nil when there is none.
func ReadTypes(ctx context.Context, path string) ([]byte, error) {
	b, err := readFile(ctx, path, 0)
	if err != nil {
		return nil, err
	}
	types, err := typesOf(b)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return bytes.Clone(types), nil // not a part of all
}

// readFile reads a file that is not larger than what is left of [unpack.MaxHeld].
func readFile(ctx context.Context, path string, used int) ([]byte, error) {
	b, err := unpack.Loaded(ctx, path, unpack.MaxHeld-used)
	if err != nil {
		if used > 0 && unpack.IsTooLarge(err) {
			err = fmt.Errorf("%w, beside %d MiB that are in use: at most %d are possible together", err, used>>20, unpack.MaxHeld>>20)
		}
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			return nil, fmt.Errorf("open kernel code: %w", failed) // it has the name
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return b, nil
}

func openFile(ctx context.Context, path string, kernel *Image, used int) (*Image, error) {
	b, err := readFile(ctx, path, used)
	if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	img, err := parseImage(ctx, strings.ReplaceAll(name, "-", "_"), b, kernel, used)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return img, nil
}

// ReadAddr implements [Source].
func (i *Image) ReadAddr(p []byte, addr uint64) error {
	n, found := slices.BinarySearchFunc(i.Sections, addr, func(s Section, addr uint64) int {
		return cmp.Compare(s.Addr, addr)
	})
	if !found {
		n--
	}
	if n < 0 {
		return fmt.Errorf("read code at %#x: before all of %s", addr, i.Name)
	}
	return Bytes{i.Sections[n].Addr, i.Sections[n].Data}.ReadAddr(p, addr)
}

// Section finds a section by name; nil when there is none.
func (i *Image) Section(name string) *Section {
	for n := range i.Sections {
		if i.Sections[n].Name == name {
			return &i.Sections[n]
		}
	}
	return nil
}

// parseImage reads an image; a module is put on kernel, unless that is nil.
//
// b is the parser's to change, and used are the bytes of memory that are in use beside it, the kernel's included.
func parseImage(ctx context.Context, name string, b []byte, kernel *Image, used int) (*Image, error) {
	b, err := unpack.Code(ctx, b)
	if err != nil {
		return nil, err
	}
	if unpack.IsImageARM64(b) {
		return parseARM64(ctx, b, used)
	}
	return parseELF(ctx, name, b, kernel, used)
}

// checkMemory refuses what takes more than there is.
func checkMemory(all int) error {
	if all > unpack.MaxHeld {
		return fmt.Errorf("%d MiB of code and symbols: at most %d are possible together", (all+1<<20-1)>>20, unpack.MaxHeld>>20)
	}
	return nil
}

// typesOf is the section of types in what is not packed; nil for none.
func typesOf(b []byte) ([]byte, error) {
	if unpack.IsImageARM64(b) {
		return typesIn(b), nil
	}
	p, err := newParser("", b, nil)
	if err != nil {
		return nil, err
	}
	if err := p.sections(); err != nil {
		return nil, err
	}
	return p.image.BTF, nil
}

// parseELF is [parseImage] of what is not packed.
func parseELF(ctx context.Context, name string, b []byte, kernel *Image, used int) (*Image, error) {
	p, err := newParser(name, b, kernel)
	if err != nil {
		return nil, err
	}
	if err := p.sections(); err != nil {
		return nil, err
	}
	p.names()
	parse := p.parseKernel
	if p.file.Type == elf.ET_REL {
		parse = p.parseModule
	}
	if err := cmp.Or(parse(ctx, used+len(b)), ctx.Err()); err != nil {
		return nil, err
	}
	img := p.image
	if img.Table == nil {
		img.Table = recovered(img)
	}
	if used += len(b) + cap(img.Relocs)*relocSize; kernel != nil { // whose symbols are in the table
		used -= kernel.Table.Memory()
	}
	img.memory = used + img.Table.Memory()
	return img, checkMemory(img.memory)
}

// newParser is a parser of what is not packed.
func newParser(name string, b []byte, kernel *Image) (*parser, error) {
	if err := unpack.CheckHeaders(b); err != nil {
		return nil, fmt.Errorf("not kernel code: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("not kernel code: %w", err)
	}
	p := &parser{
		file: f, elf: b, kernel: kernel, at: make([]uint64, len(f.Sections)),
		image: &Image{Name: "vmlinux", Machine: f.Machine},
	}
	if f.Type == elf.ET_REL {
		p.image.Name = name
		p.next = moduleStart(f.Machine, kernel)
	}
	return p, nil
}

// parseKernel reads the symbols of a kernel, beside which so many bytes of memory are in use.
func (p *parser) parseKernel(_ context.Context, used int) error {
	table, names, err := p.symbolTable()
	if err == nil {
		err = checkMemory(used + len(table) + len(names))
	}
	if err == nil && len(table) > 0 {
		p.image.Table, err = ksym.Of(func(yield func(ksym.Symbol, []byte) bool) {
			for s, name := range entries(table, names) {
				if s, ok := p.entry(&s, len(name)); ok && !yield(s, name) {
					return
				}
			}
		})
	}
	if err != nil {
		return fmt.Errorf("read symbols: %w", err)
	}
	if p.image.Table != nil && p.image.Table.Len() == 0 {
		p.image.Table = nil
	}
	return nil
}

// parseModule reads the symbols of a module, applies its relocations and puts it on its kernel, unless that is nil.
func (p *parser) parseModule(ctx context.Context, used int) (err error) {
	table, names, err := p.symbolTable()
	if err != nil {
		return fmt.Errorf("read symbols: %w", err)
	}
	relocs, err := p.countRelocs()
	if err != nil {
		return err
	}
	count := len(table) / elf.Sym64Size
	used += relocs*relocSize + count*(symbolSize+entrySize) + len(names)
	if err := checkMemory(used); err != nil {
		return err
	}
	symbols := p.symbols(table, names)
	if err := cmp.Or(ctx.Err(), p.relocate(ctx, symbols, relocs)); err != nil {
		return err
	}
	switch {
	case p.kernel != nil:
		if err := checkMemory(used + p.kernel.Table.Memory() + len(table) + len(names)); err != nil {
			return err
		}
		err = p.join()
	case len(p.table) > 0:
		p.image.Table, err = ksym.New(p.table)
	}
	if err != nil {
		return fmt.Errorf("read symbols: %w", err)
	}
	return nil
}

// Sizes in memory, in bytes: of a [symbol], of what is made of it on the way to a table, and of a [Reloc].
const symbolSize, entrySize, relocSize = 48, 56 + 64, 48

// recovered are the symbols that a kernel without a symbol table has built in.
func recovered(img *Image) *ksym.Table {
	tries := 0
	for _, s := range img.Sections {
		if s.Exec || s.Name != ".rodata" {
			continue
		}
		if tries++; tries > maxRodata {
			break
		}
		if table, err := ksym.RecoverAt(s.Data, s.Addr); err == nil {
			return table
		}
	}
	return new(ksym.Table)
}

// maxRodata is how many sections are searched for symbols: a kernel has one of that name.
const maxRodata = 4

// join adds the kernel to the module.
func (p *parser) join() (err error) {
	img := p.image
	img.Sections = append(img.Sections, p.kernel.Sections...)
	slices.SortStableFunc(img.Sections, func(a, b Section) int { return cmp.Compare(a.Addr, b.Addr) })
	img.BTF = p.kernel.BTF
	img.Table, err = p.kernel.Table.With(p.table)
	return err
}

// moduleArea is where modules are laid out: the last 1.5 GB of the address space,
// as on x86-64, so that all of a module is in reach of its calls.
const moduleArea = 0xffffffffa0000000

// moduleStart is where a module is laid out. On arm64 that is in front of its kernel, as a call reaches no farther than 128 MB.
func moduleStart(machine elf.Machine, kernel *Image) uint64 {
	const front = 64 << 20
	if machine == elf.EM_AARCH64 && kernel != nil && len(kernel.Sections) > 0 && kernel.Sections[0].Addr > front {
		return kernel.Sections[0].Addr - front
	}
	return moduleArea
}

// parser reads one ELF file.
type parser struct {
	file  *elf.File
	elf   []byte   // all of it
	next  uint64   // address of the next section of a module
	at    []uint64 // of sections; 0 for those that are not in memory
	data  map[int][]byte
	image *Image
	table []ksym.Symbol
	// kernel has what the module calls; nil for a module by itself.
	kernel *Image
}

// sections reads what is in memory, and lays a module out.
func (p *parser) sections() error {
	p.data = make(map[int][]byte)
	for n, s := range p.file.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		addr := s.Addr
		if p.file.Type == elf.ET_REL {
			if s.Size > 1<<28 || p.next > 0xfffffffff0000000 {
				return fmt.Errorf("section %.40q is too large", s.Name)
			}
			align := min(max(s.Addralign, 16), 4096)
			addr = (p.next + align - 1) / align * align
			p.next = addr + s.Size
		}
		p.at[n] = addr
		if s.Type == elf.SHT_NOBITS || s.Size == 0 {
			continue
		}
		data, err := p.bytes(s)
		if err != nil {
			return err
		}
		p.data[n] = data
		p.image.Sections = append(p.image.Sections, Section{s.Name, addr, data, s.Flags&elf.SHF_EXECINSTR != 0})
		if s.Name == ".BTF" {
			p.image.BTF = data
		}
	}
	if s := p.file.Section(".BTF"); s != nil && p.image.BTF == nil {
		data, err := p.bytes(s)
		if err != nil {
			return err
		}
		p.image.BTF = data
	}
	slices.SortStableFunc(p.image.Sections, func(a, b Section) int { return cmp.Compare(a.Addr, b.Addr) })
	return nil
}

// bytes is a section's part of the file, not a copy.
func (p *parser) bytes(s *elf.Section) ([]byte, error) {
	size := uint64(len(p.elf))
	if s.Flags&elf.SHF_COMPRESSED != 0 || s.Type == elf.SHT_NOBITS || s.Offset > size || s.FileSize > size-s.Offset {
		return nil, fmt.Errorf("section %.40q is packed, or ends behind the file", s.Name)
	}
	return p.elf[s.Offset:][:s.FileSize:s.FileSize], nil
}

// names finds the module's name and the kernel's release.
func (p *parser) names() {
	if s := p.image.Section(".modinfo"); s != nil {
		for field := range bytes.SplitSeq(s.Data, []byte{0}) {
			key, value, _ := strings.Cut(string(field[:min(len(field), 300)]), "=")
			switch key {
			case "name":
				p.image.Name = value
			case "vermagic":
				p.image.Release, _, _ = strings.Cut(value, " ")
			}
		}
		return
	}
	p.image.Release = p.image.banner()
}

// banner is the release in what the kernel says of itself; empty when that is not found.
func (i *Image) banner() string {
	for _, s := range i.Sections {
		const banner = "Linux version "
		if i := bytes.Index(s.Data, []byte(banner)); i >= 0 && !s.Exec {
			rest := s.Data[i+len(banner):]
			if end := bytes.IndexByte(rest[:min(len(rest), 300)], ' '); end > 0 && rest[0] != '%' {
				return string(rest[:end])
			}
		}
	}
	return ""
}

// symbol is one of a file.
type symbol struct {
	name        string
	info        byte
	section     elf.SectionIndex
	value, size uint64
}

// symbolTable is the symbol table without its first entry, which is empty, and the names of its symbols; none when there is none.
func (p *parser) symbolTable() (table, names []byte, err error) {
	s := p.file.SectionByType(elf.SHT_SYMTAB)
	if s == nil || s.FileSize == 0 {
		return nil, nil, nil
	}
	symbols, most := maxSymbols, maxNames
	if p.file.Type == elf.ET_REL {
		symbols, most = maxModuleSymbols, maxModuleNames
	}
	if s.FileSize%elf.Sym64Size != 0 || s.FileSize/elf.Sym64Size > uint64(symbols) {
		return nil, nil, fmt.Errorf("a symbol table of %d bytes", s.FileSize)
	}
	if table, err = p.bytes(s); err != nil {
		return nil, nil, err
	}
	if int(s.Link) >= len(p.file.Sections) || p.file.Sections[s.Link].Type != elf.SHT_STRTAB {
		return nil, nil, errors.New("a symbol table without names")
	}
	if names, err = p.bytes(p.file.Sections[s.Link]); err != nil {
		return nil, nil, err
	}
	if len(names) > most {
		return nil, nil, fmt.Errorf("%d bytes of names", len(names))
	}
	return table[elf.Sym64Size:], names, nil
}

// entries are the symbols in a table, each with its name apart.
func entries(table, names []byte) iter.Seq2[symbol, []byte] {
	return func(yield func(symbol, []byte) bool) {
		for ; len(table) > 0; table = table[elf.Sym64Size:] {
			var name []byte
			at := uint64(binary.LittleEndian.Uint32(table))
			if length := unpack.NameLength(names, at); length > 0 {
				name = names[at:][:length]
			}
			s := symbol{
				info:    table[4],
				section: elf.SectionIndex(binary.LittleEndian.Uint16(table[6:])),
				value:   binary.LittleEndian.Uint64(table[8:]),
				size:    binary.LittleEndian.Uint64(table[16:]),
			}
			if !yield(s, name) {
				return
			}
		}
	}
}

// entry is a symbol of the image as its table has it; ok is false for one that does not stand in what is in memory, or has no
// name. Its name is not set.
func (p *parser) entry(s *symbol, name int) (e ksym.Symbol, ok bool) {
	if s.section == elf.SHN_UNDEF || int(s.section) >= len(p.at) || p.at[s.section] == 0 || name == 0 {
		return e, false
	}
	if kind := elf.ST_TYPE(s.info); kind == elf.STT_FILE || kind == elf.STT_SECTION {
		return e, false
	}
	typ := byte('d')
	if p.file.Sections[s.section].Flags&elf.SHF_EXECINSTR != 0 {
		typ = 't'
	}
	if elf.ST_BIND(s.info) != elf.STB_LOCAL {
		typ -= 'a' - 'A'
	}
	return ksym.Symbol{Addr: s.value, Size: s.size, Type: typ}, true
}

// symbols reads the symbol table of a module; those that stand elsewhere get an
// address each. The addresses are by the index in the file. Names are parts
// of one string: debug/elf would copy each, however many share one.
func (p *parser) symbols(table, names []byte) []symbol {
	symbols := make([]symbol, 0, len(table)/elf.Sym64Size)
	p.table = make([]ksym.Symbol, 0, cap(symbols))
	extern := make(map[string]uint64)
	next := (p.next + 0xffff) &^ 0xffff
	all := string(names)
	for s, name := range entries(table, names) {
		if len(name) > 0 {
			at := binary.LittleEndian.Uint32(table[len(symbols)*elf.Sym64Size:])
			s.name = all[at:][:len(name)]
		}
		switch {
		case s.section == elf.SHN_UNDEF && s.name != "":
			addr, ok := extern[s.name]
			if !ok && p.kernel != nil {
				if there, found := p.kernel.Table.Lookup(s.name); found {
					addr, ok, extern[s.name] = there.Addr, true, there.Addr
				}
			}
			if !ok {
				addr, next = next, next+externSize
				extern[s.name] = addr
				p.table = append(p.table, ksym.Symbol{Addr: addr, Size: externSize, Type: 'T', Name: s.name})
			}
			s.value = addr
		case int(s.section) < len(p.at): // no other is of a section
			s.value += p.at[s.section]
			if e, ok := p.entry(&s, len(name)); ok {
				e.Name, e.Module = s.name, p.image.Name
				p.table = append(p.table, e)
			}
		}
		symbols = append(symbols, s)
	}
	return symbols
}

// externSize is the room of a symbol that stands elsewhere.
const externSize = 16

// countRelocs is how many relocations a module has of what is in memory.
func (p *parser) countRelocs() (int, error) {
	count := uint64(0)
	for _, s := range p.file.Sections {
		if s.Type == elf.SHT_RELA && p.data[int(s.Info)] != nil {
			count += s.FileSize / relaSize
		}
	}
	if count > maxRelocs {
		return 0, fmt.Errorf("more than %d relocations", maxRelocs)
	}
	return int(count), nil
}

// relocate applies a module's relocations, that many.
func (p *parser) relocate(ctx context.Context, symbols []symbol, count int) error {
	p.image.Relocs = make([]Reloc, 0, count)
	for _, s := range p.file.Sections {
		if err := ctx.Err(); err != nil {
			return err
		}
		data := p.data[int(s.Info)]
		if s.Type != elf.SHT_RELA || data == nil {
			continue
		}
		b, err := p.bytes(s)
		if err != nil {
			return err
		}
		for ; len(b) >= relaSize; b = b[relaSize:] {
			off, info := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
			r := Reloc{Addr: p.at[int(s.Info)] + off, Type: uint32(info), Addend: int64(binary.LittleEndian.Uint64(b[16:]))}
			if n := info >> 32; n > 0 && n <= uint64(len(symbols)) {
				r.Symbol, r.Target = symbols[n-1].name, symbols[n-1].value
			} else if n > 0 {
				return fmt.Errorf("a relocation of symbol %d of %d", n, len(symbols))
			}
			if off >= uint64(len(data)) {
				return fmt.Errorf("a relocation outside of section %d", s.Info)
			}
			apply(p.file.Machine, data[off:], r)
			p.image.Relocs = append(p.image.Relocs, r)
		}
	}
	slices.SortStableFunc(p.image.Relocs, func(a, b Reloc) int { return cmp.Compare(a.Addr, b.Addr) })
	return nil
}

// relaSize is the size of a relocation in a file (Elf64_Rela), in bytes.
const relaSize = 24

// lowBits are the relocations of arm64 that put the low 12 bits of an address into an instruction, as a number of units: the
// binary logarithm of their bytes.
var lowBits = map[elf.R_AARCH64]int{
	elf.R_AARCH64_ADD_ABS_LO12_NC: 0, elf.R_AARCH64_LDST8_ABS_LO12_NC: 0, elf.R_AARCH64_LDST16_ABS_LO12_NC: 1,
	elf.R_AARCH64_LDST32_ABS_LO12_NC: 2, elf.R_AARCH64_LDST64_ABS_LO12_NC: 3, elf.R_AARCH64_LDST128_ABS_LO12_NC: 4,
}

// apply writes a relocation to the field it is of. Kinds that no code holds are
// left alone.
func apply(machine elf.Machine, field []byte, r Reloc) {
	value := r.Target + uint64(r.Addend)
	if machine == elf.EM_AARCH64 {
		switch t := elf.R_AARCH64(r.Type); {
		case t == elf.R_AARCH64_ABS64 && len(field) >= 8:
			binary.LittleEndian.PutUint64(field, value)
		case (t == elf.R_AARCH64_CALL26 || t == elf.R_AARCH64_JUMP26) && len(field) >= 4:
			old := binary.LittleEndian.Uint32(field)
			binary.LittleEndian.PutUint32(field, old&^(1<<26-1)|uint32((value-r.Addr)>>2)&(1<<26-1))
		case t == elf.R_AARCH64_PREL32 && len(field) >= 4:
			binary.LittleEndian.PutUint32(field, uint32(value-r.Addr))
		case (t == elf.R_AARCH64_ADR_PREL_PG_HI21 || t == elf.R_AARCH64_ADR_PREL_PG_HI21_NC) && len(field) >= 4:
			pages := uint32((value>>12 - r.Addr>>12) & (1<<21 - 1))
			const at = 3<<29 | (1<<19-1)<<5
			binary.LittleEndian.PutUint32(field, binary.LittleEndian.Uint32(field)&^at|pages&3<<29|pages>>2<<5)
		default:
			if shift, ok := lowBits[t]; ok && len(field) >= 4 {
				low := uint32(value&0xfff) >> shift
				binary.LittleEndian.PutUint32(field, binary.LittleEndian.Uint32(field)&^(0xfff<<10)|low<<10)
			}
		}
		return
	}
	if machine != elf.EM_X86_64 {
		return
	}
	switch t := elf.R_X86_64(r.Type); t {
	case elf.R_X86_64_64, elf.R_X86_64_PC64:
		if t == elf.R_X86_64_PC64 {
			value -= r.Addr
		}
		if len(field) >= 8 {
			binary.LittleEndian.PutUint64(field, value)
		}
	case elf.R_X86_64_32, elf.R_X86_64_32S, elf.R_X86_64_PC32, elf.R_X86_64_PLT32:
		if t == elf.R_X86_64_PC32 || t == elf.R_X86_64_PLT32 {
			value -= r.Addr
		}
		if len(field) >= 4 {
			binary.LittleEndian.PutUint32(field, uint32(value))
		}
	}
}
