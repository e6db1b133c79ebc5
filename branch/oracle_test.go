package branch

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ktext"
)

// theirs is an instruction as objdump has it.
type theirs struct {
	addr uint64
	op   string // without prefixes
	args string
}

// disassemble runs objdump and yields its instructions.
func disassemble(t testing.TB, yield func(theirs), args ...string) {
	t.Helper()
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		testutil.Missing(t, "objdump")
	}
	disassembleBy(t, objdump, yield, args...)
}

func disassembleBy(t testing.TB, tool string, yield func(theirs), args ...string) {
	t.Helper()
	cmd := exec.Command(tool, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(out)
	for s.Scan() {
		// "ffffffff81000000:\tcs call ffffffff81204bc0 <f+0x10>"
		colon := bytes.IndexByte(s.Bytes(), ':')
		if colon < 0 || colon+1 == len(s.Bytes()) || s.Bytes()[colon+1] != '\t' && s.Bytes()[colon+1] != ' ' {
			continue
		}
		addr, err := strconv.ParseUint(string(bytes.TrimSpace(s.Bytes()[:colon])), 16, 64)
		if err != nil {
			continue
		}
		text := string(bytes.TrimSpace(s.Bytes()[colon+1:]))
		in := theirs{addr: addr}
		for {
			in.op = text
			if i := strings.IndexAny(text, " \t"); i >= 0 {
				in.op = text[:i]
			}
			in.args = strings.TrimSpace(text[len(in.op):])
			if !prefixWord(in.op) || in.args == "" {
				break
			}
			text = in.args
		}
		yield(in)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func prefixWord(op string) bool {
	switch op {
	case "cs", "ds", "es", "ss", "fs", "gs", "bnd", "notrack", "rep", "repz", "repnz", "lock", "data16", "addr32":
		return true
	}
	return strings.HasPrefix(op, "rex")
}

// flowOf is what objdump's instruction does to the flow of control.
func (i theirs) flowOf() Kind {
	op, _, _ := strings.Cut(i.op, ",") // "je,pn"
	switch op {
	case "call", "callq":
		if strings.HasPrefix(i.args, "*") {
			return CallIndirect
		}
		return CallDirect
	case "jmp", "jmpq":
		if strings.HasPrefix(i.args, "*") {
			return JumpIndirect
		}
		return JumpDirect
	case "ret", "retq", "lret", "lretq", "retw":
		return Return
	case "loop", "loope", "loopne", "jrcxz", "jecxz", "xbegin":
		return JumpCond
	}
	if strings.HasPrefix(op, "j") {
		return JumpCond
	}
	return Other
}

func (i theirs) target() uint64 {
	hex, _, _ := strings.Cut(i.args, " ")
	n, _ := strconv.ParseUint(strings.TrimPrefix(hex, "0x"), 16, 64)
	return n
}

// difference counts how a function's branches compare with objdump's.
type difference struct{ instructions, branches, starts, missing, invented, targets int }

// compare holds Scan of code against objdump's instructions of the same bytes
// at the same addresses.
func compare(t testing.TB, code []byte, addr uint64, list []theirs, d *difference) {
	t.Helper()
	ours := make(map[uint64]Step)
	for step := range Scan(code, addr) {
		ours[step.Addr] = step
		d.instructions++
	}
	flows := make(map[uint64]bool)
	for _, in := range list {
		step, ok := ours[in.addr]
		if !ok {
			d.starts++
			if d.starts < 10 {
				at := code[in.addr-addr:]
				t.Logf("no start at %#x: %s %s: % x", in.addr, in.op, in.args, at[:min(8, len(at))])
			}
		}
		kind := in.flowOf()
		if kind == Other {
			continue
		}
		d.branches++
		flows[in.addr] = true
		switch {
		case !ok || step.Kind != kind:
			d.missing++
			t.Logf("missing at %#x: %s %s", in.addr, in.op, in.args)
		case step.Target != 0 && step.Target != in.target():
			d.targets++
			t.Logf("target at %#x: %s %s, not %#x", in.addr, in.op, in.args, step.Target)
		}
	}
	for _, step := range ours {
		switch step.Kind {
		case CallDirect, CallIndirect, JumpDirect, JumpIndirect, JumpCond, Return:
			if !flows[step.Addr] {
				d.invented++
				t.Logf("invented at %#x: % x", step.Addr, code[step.Addr-addr:][:step.Len])
			}
		}
	}
}

// tree is the folder of one of Debian's cloud kernels: the oldest and the newest, and between them those that brought new code
// at branches.
func tree(t testing.TB, series string) *ktext.Tree {
	t.Helper()
	tree, err := ktext.OpenTree(t.Context(), guesttest.Kernel(t, series))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// vmlinux unpacks a test kernel's image into a file by the tools of its
// compression.
func vmlinux(t testing.TB, series string) string {
	t.Helper()
	image, err := os.ReadFile(tree(t, series).Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	// Documentation/arch/x86/boot.rst: setup_sects, payload_offset,
	// payload_length.
	start := (int(image[0x1f1])+1)*512 + int(binary.LittleEndian.Uint32(image[0x248:]))
	payload := image[start:][:binary.LittleEndian.Uint32(image[0x24c:])]
	tool := "lz4"
	if bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		tool = "zstd"
	}
	if _, err := exec.LookPath(tool); err != nil {
		testutil.Missing(t, tool)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "vmlinux"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(tool, "-dcf")
	cmd.Stdin, cmd.Stdout = bytes.NewReader(payload), out
	// lz4 fails on the length that the kernel's build puts behind the end.
	if err := cmd.Run(); err != nil && tool != "lz4" {
		t.Fatal(tool, err)
	}
	return out.Name()
}

// kernels of the oracle tests.
var kernels = []string{"5.10", "6.1", "6.12", "6.18", "7.2", "7.3"}

// lkgs is "lkgs %edi", which objdump 2.40 does not know and reads on in the middle of.
const lkgs = "\xf2\x0f\x00\xf7"

// unknown is where code, which begins at addr, has an lkgs: kernels have two of them, from Linux 6.12 on.
func unknown(code []byte, addr uint64) (at []uint64) {
	for step := range Scan(code, addr) {
		if bytes.HasPrefix(code[step.Addr-addr:], []byte(lkgs)) {
			at = append(at, step.Addr)
		}
	}
	return at
}

// TestKernelAgainstObjdump decodes the whole text of kernels: every
// instruction must begin where objdump's does, every branch must be there and
// none else.
func TestKernelAgainstObjdump(t *testing.T) {
	t.Parallel()
	testutil.Slow(t)
	for _, version := range kernels {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			name := vmlinux(t, version)
			f, err := elf.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			text := f.Section(".text")
			code, err := text.Data()
			if err != nil {
				t.Fatal(err)
			}
			var (
				d     difference
				list  []theirs
				begin = text.Addr
			)
			// In pieces that end after a ret or a jmp, where both begin anew.
			flush := func(end uint64) {
				compare(t, code[begin-text.Addr:end-text.Addr], begin, list, &d)
				begin, list = end, list[:0]
			}
			hex := func(addr uint64) string { return fmt.Sprintf("%#x", addr) }
			for _, end := range append(unknown(code, text.Addr), text.Addr+uint64(len(code))) {
				disassemble(t, func(in theirs) {
					if len(list) > 100000 && (list[len(list)-1].flowOf() == Return || list[len(list)-1].flowOf() == JumpDirect) {
						flush(in.addr)
					}
					list = append(list, in)
				}, "-d", "-z", "-w", "--no-show-raw-insn", "-j", ".text", "--start-address", hex(begin), "--stop-address", hex(end), name)
				flush(end)
				begin += uint64(len(lkgs))
			}
			t.Logf("%s: %+v", version, d)
			// Debian's are built by GCC, without CFI.
			for step := range Scan(code, text.Addr) {
				at := code[:step.Addr-text.Addr]
				if check, n := checkBefore(at); check != CheckNone && step.Kind != Other {
					t.Errorf("%s at %#x: % x", check, step.Addr, at[len(at)-n:])
				}
			}
			if d.branches < 500000 {
				t.Error("objdump had next to nothing to say")
			}
			if d.starts+d.missing+d.invented+d.targets > 0 {
				t.Error("differs")
			}
		})
	}
}

// TestModulesAgainstObjdump does so for modules.
func TestModulesAgainstObjdump(t *testing.T) {
	testutil.Slow(t) // under QEMU's user mode
	t.Parallel()
	for _, version := range kernels {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			var d difference
			n := 0
			for _, name := range modules(t, version) {
				f, err := elf.Open(name)
				if err != nil {
					t.Fatal(err)
				}
				bySection := make(map[int][]theirs)
				for i, s := range f.Sections {
					if s.Flags&elf.SHF_EXECINSTR == 0 || s.Size == 0 {
						continue
					}
					disassemble(t, func(in theirs) { bySection[i] = append(bySection[i], in) },
						"-d", "-z", "-w", "--no-show-raw-insn", "-j", s.Name, name)
					code, err := s.Data()
					if err != nil {
						t.Fatal(err)
					}
					compare(t, code, 0, bySection[i], &d)
				}
				n++
				f.Close()
			}
			t.Logf("%s: %d modules: %+v", version, n, d)
			if d.starts+d.missing+d.invented+d.targets > 0 {
				t.Error("differs")
			}
		})
	}
}

// modules are files of network drivers and of a sample of the others, unpacked.
func modules(t testing.TB, series string) []string {
	t.Helper()
	all := tree(t, series).Modules
	var out []string
	dir := t.TempDir()
	for i, name := range slices.Sorted(maps.Keys(all)) {
		path := all[name]
		switch name {
		case "veth", "virtio_net", "tun", "ena", "igb", "i40e", "ice", "ixgbe",
			"mlx4_en", "mlx5_core", "vmxnet3", "hv_netvsc", "gve", "kvm":
		default:
			if i%40 != 0 {
				continue
			}
		}
		if strings.HasSuffix(path, ".xz") {
			xz, err := exec.LookPath("xz")
			if err != nil {
				testutil.Missing(t, "xz")
			}
			unpacked, err := os.Create(filepath.Join(dir, name+".ko"))
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(xz, "-dc", path)
			cmd.Stdout = unpacked
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			path = unpacked.Name()
			unpacked.Close()
		}
		out = append(out, path)
	}
	return out
}

// pieces are functions one behind the other, with nops between them, where
// objdump comes back in step if it lost it.
type pieces struct {
	data  []byte
	begin []int
	size  []int
}

func (p *pieces) add(code []byte) {
	p.begin, p.size = append(p.begin, len(p.data)), append(p.size, len(code))
	p.data = append(p.data, code...)
	p.data = append(p.data, bytes.Repeat([]byte{0x90}, 16)...)
}

func (p *pieces) compare(t testing.TB) difference {
	t.Helper()
	file := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(file, p.data, 0o600); err != nil {
		t.Fatal(err)
	}
	list := make([][]theirs, len(p.begin))
	i := 0
	disassemble(t, func(in theirs) {
		for i+1 < len(p.begin) && in.addr >= uint64(p.begin[i+1]) {
			i++
		}
		if in.addr < uint64(p.begin[i]+p.size[i]) {
			list[i] = append(list[i], in)
		}
	}, "-D", "-z", "-w", "--no-show-raw-insn", "-b", "binary", "-m", "i386:x86-64", file)
	var d difference
	for i, begin := range p.begin {
		compare(t, p.data[begin:][:p.size[i]], uint64(begin), list[i], &d)
	}
	return d
}

// BenchmarkKernel decodes the text of a whole kernel, by one core, and runs
// objdump on the same file.
func BenchmarkKernel(b *testing.B) {
	name := vmlinux(b, kernels[len(kernels)-1])
	f, err := elf.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var codes [][]byte
	size := 0
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Type == elf.SHT_PROGBITS {
			code, err := s.Data()
			if err != nil {
				b.Fatal(err)
			}
			codes = append(codes, code)
			size += len(code)
		}
	}
	b.Run("Scan", func(b *testing.B) {
		b.SetBytes(int64(size))
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for _, code := range codes {
				for step := range Scan(code, 0) {
					if step.Kind != Other {
						n++
					}
				}
			}
		}
	})
	b.Run("EachBranch", func(b *testing.B) {
		b.SetBytes(int64(size))
		b.ReportAllocs()
		for b.Loop() {
			indirect := 0
			for _, code := range codes {
				for branch := range EachBranch(code, 0, nil, nil, nil) {
					if branch.Indirect() {
						indirect++
					}
				}
			}
		}
	})
	b.Run("objdump", func(b *testing.B) {
		objdump, err := exec.LookPath("objdump")
		if err != nil {
			testutil.Missing(b, "objdump")
		}
		b.SetBytes(int64(size))
		for b.Loop() {
			cmd := exec.Command(objdump, "-d", name)
			cmd.Stdout = io.Discard
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
