package ktext

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/unpack"
)

// kernels are two of Debian's.
func kernels(t testing.TB) []*Tree {
	t.Helper()
	var trees []*Tree
	for _, series := range []string{"6.1", "6.12"} {
		tree, err := OpenTree(t.Context(), guesttest.Kernel(t, series))
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree)
	}
	return trees
}

// unpacked is a module as an ELF file, for binutils.
func unpacked(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = unpack.Code(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "module.o")
	if err := os.WriteFile(out, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// Each symbol that nm sees, each relocation that readelf sees, and one thunk site
// for each relocation to a thunk.
func TestModules(t *testing.T) {
	for _, tree := range kernels(t) {
		for _, name := range []string{"veth", "virtio_net", "ena", "gve", "mlx5_core", "ixgbevf"} {
			file, ok := tree.Modules[name]
			if !ok {
				continue
			}
			t.Run(tree.Release+"/"+name, func(t *testing.T) {
				img, err := OpenFile(t.Context(), file)
				if err != nil {
					t.Fatal(err)
				}
				if img.Name != name || img.Release != tree.Release {
					t.Errorf("%s of %s, want %s of %s", img.Name, img.Release, name, tree.Release)
				}
				plain := unpacked(t, file)
				checkSymbols(t, img, plain)
				checkRelocs(t, img, plain)
				checkThunks(t, img)
			})
		}
	}
}

func output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		t.Log(err)
		testutil.Missing(t, args[0])
	}
	return string(out)
}

func checkSymbols(t *testing.T, img *Image, file string) {
	functions := 0
	for line := range strings.Lines(output(t, "nm", file)) {
		fields := strings.Fields(line)
		name, typ := fields[len(fields)-1], fields[len(fields)-2]
		if typ == "a" || typ == "A" {
			continue
		}
		all := img.Table.All(name)
		if len(all) == 0 {
			t.Errorf("no symbol %s %s", typ, name)
			continue
		}
		if typ == "t" || typ == "T" {
			functions++
			if got, off, ok := img.Table.Find(all[0].Addr); !ok || off != 0 || !got.Text() {
				t.Errorf("%s at %#x is found as %+v", name, all[0].Addr, got)
			}
		}
	}
	if functions == 0 {
		t.Error("nm shows no function")
	}
}

func checkRelocs(t *testing.T, img *Image, file string) {
	want := make(map[string]int)
	total := 0
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inMemory := false
	for line := range strings.Lines(output(t, "readelf", "-rW", file)) {
		if rest, ok := strings.CutPrefix(line, "Relocation section '.rela"); ok {
			name, _, _ := strings.Cut(rest, "'")
			s := f.Section(name)
			inMemory = s != nil && s.Flags&elf.SHF_ALLOC != 0 && s.Type != elf.SHT_NOBITS
			continue
		}
		fields := strings.Fields(line)
		if !inMemory || len(fields) < 4 || !strings.HasPrefix(fields[2], "R_") {
			continue
		}
		total++
		if len(fields) > 4 && f.Section(fields[4]) == nil {
			want[fields[4]]++
		}
	}
	if total != len(img.Relocs) {
		t.Errorf("%d relocations, readelf shows %d", len(img.Relocs), total)
	}
	got := make(map[string]int)
	for _, r := range img.Relocs {
		got[r.Symbol]++
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%d relocations to %s, readelf shows %d", got[name], name, n)
		}
	}
}

func checkThunks(t *testing.T, img *Image) {
	want := 0
	for _, r := range img.Relocs {
		inCode := false
		for _, s := range img.Sections {
			inCode = inCode || s.Exec && r.Addr >= s.Addr && r.Addr < s.Addr+uint64(len(s.Data))
		}
		if inCode && strings.HasPrefix(r.Symbol, "__x86_indirect_thunk_") {
			want++
		}
	}
	resolve := func(addr uint64) (string, bool) {
		s, off, ok := img.Table.Find(addr)
		return s.Name, ok && off == 0
	}
	got := 0
	for _, s := range img.Sections {
		if !s.Exec {
			continue
		}
		sites, _ := branch.Sites(s.Data, s.Addr, resolve, nil)
		for _, site := range sites {
			if site.Kind == branch.SiteThunk {
				got++
			}
		}
	}
	if got != want {
		t.Errorf("%d calls and jumps to thunks, relocations to them %d", got, want)
	}
	for _, s := range img.Sections {
		if s.Name == ".retpoline_sites" && len(s.Data)/4 != want {
			t.Errorf(".retpoline_sites has %d, relocations to thunks %d", len(s.Data)/4, want)
		}
	}
}

// The kernel in a bzImage: its release, its types, and as many thunk sites as it
// lists itself.
func TestVmlinuz(t *testing.T) {
	for _, tree := range kernels(t) {
		img, err := OpenFile(t.Context(), tree.Vmlinuz)
		if err != nil {
			t.Fatal(err)
		}
		if img.Name != "vmlinux" || img.Release != tree.Release || len(img.BTF) == 0 {
			t.Errorf("%s of %q, want %s; %d bytes of types", img.Name, img.Release, tree.Release, len(img.BTF))
		}
		text := img.Section(".text")
		if text == nil || len(text.Data) < 10<<20 || img.Section(".retpoline_sites") == nil {
			t.Errorf("%s: no text or no retpoline sites", tree.Release)
		}
		if n := img.Table.Len(); n < 50_000 {
			t.Errorf("%s: %d symbols", tree.Release, n)
		}
		if s, ok := img.Table.Lookup("_stext"); !ok || s.Addr < text.Addr || s.Addr > text.Addr+4096 {
			t.Errorf("%s: _stext is %+v, text begins at %#x", tree.Release, s, text.Addr)
		}
		b := make([]byte, 16)
		if err := img.ReadAddr(b, text.Addr); err != nil || !bytes.Equal(b, text.Data[:16]) {
			t.Errorf("%v: % x", err, b)
		}
		if err := img.ReadAddr(b, 0xffff000000000000); err == nil {
			t.Error("read what is not there")
		}
	}
}

// Where functions begin in a recovered table: as many calls and jumps to thunks in
// them as the kernel's own list of such sites has, and nearly all functions that its
// types know. (Init code and cold parts have sites and no types.)
func TestRecovered(t *testing.T) {
	for _, tree := range kernels(t) {
		img, err := OpenFile(t.Context(), tree.Vmlinuz)
		if err != nil {
			t.Fatal(err)
		}
		resolve := func(addr uint64) (string, bool) {
			s, off, ok := img.Table.Find(addr)
			return s.Name, ok && off == 0
		}
		sites := 0
		for _, symbol := range img.Table.Module("") {
			// One of several names of an address.
			if at, off, ok := img.Table.Find(symbol.Addr); !ok || off != 0 || at.Name != symbol.Name || !symbol.Text() || symbol.Size > 1<<20 {
				continue
			}
			code := make([]byte, symbol.Size)
			if img.ReadAddr(code, symbol.Addr) != nil {
				continue
			}
			found, _ := branch.Sites(code, symbol.Addr, resolve, nil)
			for _, site := range found {
				if site.Kind == branch.SiteThunk {
					sites++
				}
			}
		}
		if want := len(img.Section(".retpoline_sites").Data) / 4; sites < want-1 || sites > want+1 {
			t.Errorf("%s: %d thunk sites, the kernel lists %d", tree.Release, sites, want)
		}
		known, all := functionsKnown(t, img)
		t.Logf("%s: %d thunk sites, %d of %d functions", tree.Release, sites, known, all)
	}
}

// A module on its kernel calls the kernel's functions where they are.
func TestOpenModule(t *testing.T) {
	for _, tree := range kernels(t) {
		kernel, err := OpenFile(t.Context(), tree.Vmlinuz)
		if err != nil {
			t.Fatal(err)
		}
		img, err := OpenModule(t.Context(), tree.Modules["veth"], kernel)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"xdp_do_redirect", "bq_xmit_all", "veth_poll"} {
			s, ok := img.Table.Lookup(name)
			if !ok || img.ReadAddr(make([]byte, 16), s.Addr) != nil {
				t.Errorf("%s: no code of %s: %+v", tree.Release, name, s)
			}
		}
		want, _ := kernel.Table.Lookup("xdp_do_redirect")
		if all := img.Table.All("xdp_do_redirect"); len(all) != 1 || all[0].Addr != want.Addr {
			t.Errorf("%s: %+v, want %#x", tree.Release, all, want.Addr)
		}
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenTree(t.Context(), dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
	for _, file := range []string{"boot/vmlinuz-6.1.0-1", "boot/config-6.1.0-1",
		"lib/modules/6.1.0-1/kernel/net/virtio-net.ko.xz", "lib/modules/6.1.0-1/modules.order"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := OpenTree(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := &Tree{
		Dir: dir, Release: "6.1.0-1",
		Vmlinuz: filepath.Join(dir, "boot/vmlinuz-6.1.0-1"), Config: filepath.Join(dir, "boot/config-6.1.0-1"),
		Modules: map[string]string{"virtio_net": filepath.Join(dir, "lib/modules/6.1.0-1/kernel/net/virtio-net.ko.xz")},
	}
	if diff := cmp.Diff(want, tree); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	// What leads out of the folder is none of its modules, what stays in it is one.
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "vmlinuz"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link(filepath.Join(outside, "vmlinuz"), "lib/modules/6.1.0-1/outside.ko")
	link("kernel/net/virtio-net.ko.xz", "lib/modules/6.1.0-1/inside.ko")
	want.Modules["inside"] = filepath.Join(dir, "lib/modules/6.1.0-1/inside.ko")
	if tree, err := OpenTree(t.Context(), dir); err != nil || !cmp.Equal(want, tree) {
		t.Errorf("%v, tree (-want +got):\n%s", err, cmp.Diff(want, tree))
	}
	if err := os.MkdirAll(filepath.Join(dir, "usr/lib/modules/6.2.0"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTree(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "6.1.0-1, 6.2.0") {
		t.Error(err)
	}
	link(filepath.Join(outside, "vmlinuz"), "boot/vmlinuz-6.3.0")
	if tree, err := OpenTree(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "boot/vmlinuz-6.3.0: path escapes") {
		t.Error(tree, err)
	}
}

// packed is b in gzip.
func packed(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestHostile(t *testing.T) {
	header := func(change func([]byte)) []byte {
		b := make([]byte, 64)
		copy(b, "\x7fELF\x02\x01\x01")
		binary.LittleEndian.PutUint16(b[16:], 1) // ET_REL
		binary.LittleEndian.PutUint16(b[18:], 62)
		binary.LittleEndian.PutUint32(b[20:], 1)
		change(b)
		return b
	}
	bz := make([]byte, 0x300)
	copy(bz[0x202:], "HdrS\x08\x02")
	bzOld := bytes.Clone(bz)
	bzOld[0x206] = 1
	binary.LittleEndian.PutUint32(bz[0x248:], 0xffffffff)
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "empty"},
		{"text", []byte("hello, this is a text"), "no kernel"},
		{"cut gzip", packed(t, make([]byte, 1000))[:20], "unpack"},
		{"packed text", packed(t, []byte("hello")), "no ELF"},
		{"packed twice", packed(t, packed(t, []byte("\x7fELF"))), "no ELF"},
		{"header alone", []byte("\x7fELF"), "not kernel code"},
		{"sections behind the end", header(func(b []byte) {
			binary.LittleEndian.PutUint64(b[0x28:], 1<<40)
			binary.LittleEndian.PutUint16(b[0x3a:], 64)
			binary.LittleEndian.PutUint16(b[0x3c:], 3)
		}), "not kernel code"},
		{"payload behind the end", bz, "truncated"},
		{"old protocol", bzOld, "boot protocol"},
	} {
		if _, err := parseImage(t.Context(), "x", test.b, nil, 0); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// A module is read beside its kernel: it may have fewer symbols, and less to name them.
func TestModuleLimits(t *testing.T) {
	module := func(symbols, names int) []byte {
		return object(0, section{kind: 1, flags: 6, data: make([]byte, 64)},
			section{kind: 2, data: make([]byte, 24*symbols), link: 3}, section{kind: 3, data: make([]byte, names)})
	}
	for _, test := range []struct {
		name           string
		symbols, names int
		want           string
	}{
		{"most", maxModuleSymbols, maxModuleNames, ""},
		{"symbols", maxModuleSymbols + 1, 1, "a symbol table of"},
		{"names", 1, maxModuleNames + 1, "bytes of names"},
	} {
		_, err := parseImage(t.Context(), "x", module(test.symbols, test.names), nil, 0)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// functionsKnown is how many functions the types of a kernel have, and how many of them have a symbol: nearly all.
func functionsKnown(t *testing.T, img *Image) (known, all int) {
	t.Helper()
	types, err := btf.LoadSpecFromReader(bytes.NewReader(img.BTF))
	if err != nil {
		t.Fatal(err)
	}
	for typ, err := range types.All() {
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := typ.(*btf.Func); ok {
			all++
			if s, ok := img.Table.Lookup(f.Name); ok && s.Text() {
				known++
			}
		}
	}
	if known < all*98/100 || all < 10_000 {
		t.Errorf("%s: %d of %d functions have a symbol", img.Release, known, all)
	}
	return known, all
}

func FuzzImage(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Add(packed(f, []byte("\x7fELF\x02\x01\x01")))
	f.Add([]byte("\xfd7zXZ\x00"))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Add([]byte{0x02, 0x21, 0x4c, 0x18})
	f.Add([]byte{0x5d, 0, 0, 0x80, 0})
	// A module of one function, with a symbol and a relocation.
	f.Add(object(0, section{kind: 1, flags: 6, data: make([]byte, 64)},
		section{kind: 2, data: append(make([]byte, 24), 1, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0), link: 4},
		section{kind: 4, data: append(make([]byte, 8), 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), link: 2, info: 1},
		section{kind: 3, data: []byte("\x00f\x00")}))
	f.Add(imageARM64(true))
	f.Add(packed(f, imageARM64(false)))
	if exe, err := os.Executable(); err == nil { // an ELF file that is not a kernel
		if b, err := os.ReadFile(exe); err == nil {
			f.Add(b[:4096])
		}
	}
	// The largest limit of what is unpacked takes much longer to clear than the rest does.
	const limit, unpacking = 1 << 20, 16 << 20
	f.Fuzz(func(t *testing.T, b []byte) {
		var img *Image
		var err error
		testutil.Allocates(t, unpacking, func() { b, err = unpack.CodeWithin(t.Context(), b, limit) })
		if err == nil { // debug/elf reads 10 MiB at once; tables of symbols and relocations; what the fuzzer takes meanwhile
			testutil.Allocates(t, 12<<20+256*uint64(len(b)), func() { img, err = parseImage(t.Context(), "x", b, nil, 0) })
		}
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Error(err)
			}
			return
		}
		for _, s := range img.Sections {
			if err := img.ReadAddr(make([]byte, 1), s.Addr); len(s.Data) > 0 && err != nil && img.Machine == elf.EM_X86_64 && img.Name == "x" {
				t.Error(err)
			}
		}
	})
}

func BenchmarkModules(b *testing.B) {
	trees := kernels(b)
	for b.Loop() {
		n := 0
		for name, file := range trees[len(trees)-1].Modules {
			if n == 60 {
				break
			}
			if _, err := OpenFile(b.Context(), file); err != nil {
				b.Fatal(name, err)
			}
			n++
		}
	}
}

func BenchmarkVmlinuz(b *testing.B) {
	for _, tree := range kernels(b) {
		b.Run(fmt.Sprint(tree.Release), func(b *testing.B) {
			for b.Loop() {
				if _, err := OpenFile(b.Context(), tree.Vmlinuz); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Relocations of arm64 put addresses into instructions and data.
func TestApplyARM64(t *testing.T) {
	const at, target = 0xffff800080001000, 0xffff800081234568
	for _, test := range []struct {
		kind        elf.R_AARCH64
		field, want string
	}{
		{elf.R_AARCH64_ABS64, "\x00\x00\x00\x00\x00\x00\x00\x00", "\x68\x45\x23\x81\x00\x80\xff\xff"},
		{elf.R_AARCH64_PREL32, "\x00\x00\x00\x00", "\x68\x35\x23\x01"},
		{elf.R_AARCH64_CALL26, "\x00\x00\x00\x94", "\x5a\xcd\x48\x94"},             // bl
		{elf.R_AARCH64_ADR_PREL_PG_HI21, "\x01\x00\x00\x90", "\x81\x91\x00\xf0"},   // adrp x1, pages 0x1233
		{elf.R_AARCH64_ADD_ABS_LO12_NC, "\x21\x00\x00\x91", "\x21\xa0\x15\x91"},    // add x1, x1, #0x568
		{elf.R_AARCH64_LDST64_ABS_LO12_NC, "\x21\x00\x40\xf9", "\x21\xb4\x42\xf9"}, // ldr x1, [x1, #0x568]
		{elf.R_AARCH64_LDST8_ABS_LO12_NC, "\x21\x00\x40\x39", "\x21\xa0\x55\x39"},  // ldrb w1, [x1, #0x568]
		{elf.R_AARCH64_CONDBR19, "\x00\x00\x00\x54", "\x00\x00\x00\x54"},           // not in modules
		{elf.R_AARCH64_ADD_ABS_LO12_NC, "\x21\x00", "\x21\x00"},                    // cut off
	} {
		field := []byte(test.field)
		apply(elf.EM_AARCH64, field, Reloc{Addr: at, Type: uint32(test.kind), Target: target})
		if string(field) != test.want {
			t.Errorf("%v: % x, want % x", test.kind, field, test.want)
		}
	}
}
