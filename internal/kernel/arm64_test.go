package kernel

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// Calls of a module that go through veneers lead to the kernel's functions, and the last function ends in front of the veneers.
func TestVeneers(t *testing.T) {
	const far = base + 0x1000
	page := make([]byte, 0x1040)
	put := func(off int, words ...uint32) {
		for i, w := range words {
			binary.LittleEndian.PutUint32(page[off+4*i:], w)
		}
	}
	// last: bl to the first veneer; cbz over a ret; b to the second; ret.
	put(0, 0x94000010, 0xb4000040, 0xd65f03c0, 0x14000010, 0xd65f03c0)
	put(0x40, 0xb0000010, 0x91000210, 0xd61f0200) // adrp x16, 4096 on; add x16, x16, #0; br x16
	put(0x4c, 0xb0000010, 0x91008210, 0xd61f0200)
	symbols := table(t, []ksym.Symbol{{Addr: base, Type: 't', Name: "last", Module: "m"},
		{Addr: far, Type: 'T', Name: "called"}, {Addr: far + 0x20, Type: 'T', Name: "tail"}})
	k := New(ktext.Bytes{Addr: base, Code: page}, symbols, nil)
	k.Arch = "arm64"
	f, code, err := k.ReadFunction("last")
	if err != nil || f.Name != "last" || len(code) != 0x40 {
		t.Fatalf("%+v: %d bytes, %v", f, len(code), err)
	}
	var decoded, scanned, branches []uint64
	var names, lines []string
	for inst := range k.Decode(code[:20], base) {
		if inst.Target != 0 {
			decoded = append(decoded, inst.Target)
		}
	}
	for step := range k.Scan(code[:20], base) {
		if step.Target != 0 {
			scanned = append(scanned, step.Target)
		}
	}
	for b := range k.Branches(code[:20], base) {
		if b.Target != 0 {
			branches, names = append(branches, b.Target), append(names, string(b.Class)+" "+b.Name)
		}
	}
	for l := range k.Annotated(code[:20], base) {
		lines = append(lines, l.Text)
	}
	want := []uint64{far, base + 12, far + 0x20}
	if !slices.Equal(decoded, want) || !slices.Equal(scanned, want) || !slices.Equal(branches, want) {
		t.Errorf("targets %#x, %#x, %#x; want %#x", decoded, scanned, branches, want)
	}
	if want := []string{"direct called", "conditional ", "tail-call tail"}; !slices.Equal(names, want) {
		t.Errorf("branches %q", names)
	}
	if want := []string{"bl called", "cbz x0, 0xffffffff8100000c <+0xc>", "ret", "b tail", "ret"}; !slices.Equal(lines, want) {
		t.Errorf("lines %q", lines)
	}
	if sites, _, err := k.Sites(f); err != nil || len(sites) != 0 {
		t.Errorf("sites %+v, %v", sites, err)
	}
}

// Veneers and detours as the linker makes them: calls lead to what they call, and what stands out of line is in its place, whether the
// symbols of veneers are there, as in a vmlinux, or not, as in kallsyms.
func TestLinked(t *testing.T) {
	dir := t.TempDir()
	source, object, file := filepath.Join(dir, "a.s"), filepath.Join(dir, "a.o"), filepath.Join(dir, "vmlinux")
	// e has an adrp in the last 8 bytes of a page, a store, and a load by the address: the erratum 843419.
	text := ".globl f\n.type f,%function\nf: bl far\nbl farther\nb far\n.size f,.-f\n.balign 4096\n.space 4088\n" +
		".type e,%function\ne: adrp x0,value\nstr x1,[x2]\nldr x3,[x0,#:lo12:value]\nret\n.size e,.-e\n" +
		".section .far,\"ax\"\n.type far,%function\nfar: ret\n.section .farther,\"ax\"\n.type farther,%function\nfarther: ret\n" +
		".data\nvalue: .quad 1\n"
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"aarch64-linux-gnu-as", source, "-o", object},
		{"aarch64-linux-gnu-ld", "--fix-cortex-a53-843419=full", "-Ttext=0xffff800008000000", "--section-start=.far=0xffff800048000000",
			"--section-start=.farther=0xffff900000000000", "--section-start=.data=0xffff800088000000", "-e", "f", object, "-o", file},
	} {
		if _, err := exec.LookPath(args[0]); err != nil {
			testutil.Missing(t, args[0])
		}
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	img, err := ktext.OpenFile(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	var bare []ksym.Symbol
	made := 0
	for _, s := range img.Table.Module("") {
		if strings.Contains(s.Name, "veneer") || strings.HasPrefix(s.Name, "e843419@") {
			made++
			continue
		}
		if text := img.Section(".text"); s.Name == "e" { // its symbol reaches over what has none
			s.Size = text.Addr + uint64(len(text.Data)) - s.Addr
		}
		bare = append(bare, s)
	}
	if made != 3 {
		t.Errorf("the linker made %d veneers and detours", made)
	}
	for name, symbols := range map[string]*ksym.Table{"vmlinux": img.Table, "kallsyms": table(t, bare)} {
		k := New(img, symbols, nil)
		k.Arch = "arm64"
		_, code, err := k.ReadFunction("f")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		at, _ := k.Function("f")
		for b := range k.Branches(code[:12], at.Addr) {
			got = append(got, fmt.Sprintf("%s %s %#x", b.Class, b.Name, b.Target))
		}
		want := []string{"direct far 0xffff800048000000", "direct farther 0xffff900000000000", "tail-call far 0xffff800048000000"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: branches %s", name, diff)
		}
		e, code, err := k.ReadFunction("e")
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for inst := range k.Decode(code[:16], e.Addr) {
			lines = append(lines, inst.Text(nil))
		}
		if want := []string{"adrp x0, .+0x7ffff000", "str x1, [x2]", "ldr x3, [x0]", "ret"}; !slices.Equal(lines, want) {
			t.Errorf("%s: %q, want %q", name, lines, want)
		}
		if sites, _, err := k.Sites(e); err != nil || len(sites) != 0 {
			t.Errorf("%s: sites %+v, %v", name, sites, err)
		}
	}
}

// Debian's kernels have such detours: each is of a load or store behind an adrp in the last 8 bytes of a page, as the erratum says.
func TestDetours(t *testing.T) {
	for series, want := range map[string]int{"6.1": 0, "6.12": 5, "6.18": 3, "7.3": 7} {
		k, err := OpenTree(t.Context(), guesttest.Named(t, "debian:"+series+"-cloud-arm64").Dir, "")
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, s := range k.Text.(*ktext.Image).Sections {
			if !s.Exec {
				continue
			}
			for step := range branch.ScanARM64(s.Data, s.Addr) {
				if step.Kind != branch.JumpDirect {
					continue
				}
				inst, ok := k.detour(step.Target, step.Addr)
				if f, _, _ := k.Symbols.Find(step.Addr); !ok || step.Target-f.Addr < f.Size {
					continue
				}
				adrp := false
				for back := uint64(8); back <= 12; back += 4 {
					at := step.Addr - back
					w := binary.LittleEndian.Uint32(s.Data[at-s.Addr:])
					adrp = adrp || at&0xfff >= 0xff8 && w&0x9f000000 == 0x90000000 && w&31 == inst.Word()>>5&31
				}
				if !adrp {
					t.Errorf("%s: %#x goes to %#x for %s", series, step.Addr, step.Target, inst)
				}
				found++
			}
		}
		if found != want {
			t.Errorf("%s: %d detours, want %d", series, found, want)
		}
	}
}

// What traces a function stands in front of it, by a pointer of which the low half may look like a branch: it is none of the function
// that it stands behind.
func TestOps(t *testing.T) {
	code := make([]byte, 0x80)
	for i, w := range []uint32{0xb4000040, 0xd65f03c0, 0xd4210000, 0xd503201f, 0x94000010, 0xffffd4a4} { // cbz; ret; brk; nop; a pointer
		binary.LittleEndian.PutUint32(code[4*i:], w)
	}
	binary.LittleEndian.PutUint32(code[0x18:], 0xd65f03c0)
	symbols := table(t, []ksym.Symbol{{Addr: base, Type: 'T', Name: "_stext"}, {Addr: base, Type: 'T', Name: "f"},
		{Addr: base + 0x18, Type: 't', Name: "g"}, {Addr: base + 0x1c, Type: 'T', Name: "_etext"}})
	for arch, want := range map[string]int{"arm64": 16, "amd64": 24} {
		k := New(ktext.Bytes{Addr: base, Code: code}, symbols, nil)
		k.Arch = arch
		if _, code, err := k.ReadFunction("f"); err != nil || len(code) != want {
			t.Errorf("%s: %d bytes, %v; want %d", arch, len(code), err, want)
		}
	}
	k := New(ktext.Bytes{Addr: base, Code: code}, symbols, nil)
	k.Arch = "arm64"
	totals, err := k.Totals(t.Context())
	want := map[branch.Class]int{branch.ClassConditional: 1, branch.ClassReturn: 2}
	if err != nil || totals.Functions != 2 || !maps.Equal(totals.Branches, want) {
		t.Errorf("%+v, %v; want %v", totals, err, want)
	}
}

// Each call and jump that leaves a function of a running module leads to a function, into one, or takes a detour. On a Cortex-A53 there
// are detours.
func TestLiveJumps(t *testing.T) {
	if runtime.GOARCH != "arm64" {
		testutil.Missing(t, "arm64")
	}
	k, err := OpenLive()
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	jumps, detours := 0, 0
	for _, module := range k.Symbols.Modules() {
		if module == program {
			continue
		}
		for _, f := range k.Symbols.Module(module) {
			code, err := k.Code(f)
			if !f.Text() || err != nil {
				continue
			}
			for step := range branch.ScanARM64(code, f.Addr) {
				if step.Kind != branch.JumpDirect && step.Kind != branch.CallDirect || step.Target-f.Addr < uint64(len(code)) {
					continue
				}
				jumps++
				if inst, ok := k.detour(step.Target, step.Addr); ok && step.Kind == branch.JumpDirect {
					t.Logf("%s of %s goes out of line for %s", f.Name, module, inst)
					detours++
					continue
				}
				to, off, ok := k.Symbols.Find(k.goal(step.Target))
				if in, err := k.Code(to); !ok || err != nil || off >= uint64(len(in)) {
					t.Errorf("%s of %s at +%#x leads to %#x: %+v", f.Name, module, step.Addr-f.Addr, step.Target, to)
				}
			}
		}
	}
	t.Logf("%d calls and jumps that leave functions, %d detours", jumps, detours)
	if jumps == 0 {
		t.Error("no module calls anything")
	}
}
