package branch

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		code string
		kind Kind
		len  int
		text string
	}{
		{"\xe8\xfb\x0f\x00\x00", CallDirect, 5, "call 0x2000"},
		{"\xeb\xfe", JumpDirect, 2, "jmp 0x1000"},
		{"\x74\x02", JumpCond, 2, "je 0x1004"},
		{"\xff\xd0", CallIndirect, 2, "call *%rax"},
		{"\xff\x50\x08", CallIndirect, 3, "call *0x8(%rax)"},
		{"\xff\xe0", JumpIndirect, 2, "jmp *%rax"},
		{"\x3e\xff\xe0", JumpIndirect, 3, "jmp *%rax"}, // notrack
		{"\xc3", Return, 1, "ret"},
		{"\xcc", Trap, 1, "int3"},
		{"\x0f\x0b", Trap, 2, "ud2"},
		{"\x0f\xae\xe8", Fence, 3, "lfence"},
		{"\xf3\x90", Fence, 2, "pause"},
		{"\xf3\x0f\x1e\xfa", Other, 4, "endbr64"},
		{"\x0f\x01\xca", Other, 3, "clac"},
		{"\x0f\x01\xf8", Other, 3, "swapgs"},
		{"\x0f\x01\x10", Other, 3, "lgdtl (%rax)"},
		{"\x48\xc7\xc6\xe0\x29\x4e\x82", Other, 7, "mov $0xffffffff824e29e0,%rsi"},
		{"\x81\xfe\xe0\x29\x4e\x82", Other, 6, "cmp $0x824e29e0,%esi"},
		{"\x48\x8b\x85\xf0\xff\xff\xff", Other, 7, "mov -0x10(%rbp),%rax"},
		{"\xf6\x83\xa4\xf7\xff\xff\x01", Other, 7, "testb $0x1,-0x85c(%rbx)"},
		{"\x48\x63\xc7", Other, 3, "movslq %edi,%rax"},
		{"\x49\x8b\x3c\x24", Other, 4, "mov (%r12),%rdi"},
		{"\xf2\x0f\x00\xf7", Other, 4, ".byte 0xf2,0x0f,0x00,0xf7"},
		{"\x06", Bad, 1, "(bad)"},
		{"\xe8\x00", Bad, 1, "(bad)"},
	} {
		for inst := range Decode([]byte(tt.code), 0x1000) {
			got := inst.String()
			if inst.Kind != tt.kind || inst.Len != tt.len || !strings.Contains(loose(got), loose(tt.text)) {
				t.Errorf("% x: kind %d, %d bytes, %q; want kind %d, %d bytes, %q",
					tt.code, inst.Kind, inst.Len, got, tt.kind, tt.len, tt.text)
			}
			break
		}
	}
}

// loose drops the suffixes in which GNU syntax was never of one mind.
func loose(s string) string {
	for _, op := range []string{"call", "jmp", "ret"} {
		s = strings.Replace(s, op+"q", op, 1)
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "notrack ", ""), "ds ", "")
}

// TestDecodeAgainstObjdump compares where instructions start in this test's
// own binary.
func TestDecodeAgainstObjdump(t *testing.T) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		testutil.Missing(t, "objdump")
	}
	testutil.AMD64(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := f.Section(".text")
	if text == nil {
		t.Fatal("no .text")
	}
	code := make([]byte, min(512<<10, text.Size))
	if _, err := text.ReadAt(code, int64(text.Size)-int64(len(code))); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(file, code, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(objdump, "-D", "-b", "binary", "-m", "i386:x86-64", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := make(map[uint64]bool)
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		// "   0:\te8 …\tcall …"; lines without the third part go on.
		parts := strings.Split(s.Text(), "\t")
		if len(parts) < 3 {
			continue
		}
		addr, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(parts[0]), ":"), 16, 64)
		if err == nil {
			theirs[addr] = true
		}
	}
	ours, differ := 0, 0
	for inst := range Decode(code, 0) {
		ours++
		if !theirs[inst.Addr] {
			differ++
		}
	}
	if len(theirs) < len(code)/16 {
		t.Fatalf("read only %d instructions of objdump's", len(theirs))
	}
	// The runtime's AVX code is what x86asm does not know; kernels have
	// next to none.
	if differ*1000 > ours {
		t.Errorf("%d of %d instructions start where objdump has none", differ, ours)
	}
	t.Logf("%d instructions, %d starts differ", ours, differ)
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xe9\x91\x0a\x00\x00\x90"), uint64(at))
	f.Add([]byte("\x0f\xae\xe8\xff\xe0\xcc"), uint64(0))
	f.Add([]byte("\xf3\x0f\x1e\xfa\x0f\x01\xca\x66\x0f\x01\xcb"), ^uint64(0))
	f.Add([]byte(kcfiOff+callR11+kcfi+jmpR11), uint64(at))
	f.Add([]byte(paranoid72+jneBack+callR11+fineibt615+callR11), uint64(at))
	f.Add([]byte(preamble615One+"\xf5"+preamble72[:9]+"\x2e\x2e\xe8\x00\x00\x00\x00\x75\xee\x48\x0f\x45\xf8\xc3"), uint64(at))
	f.Add([]byte("\x75\xfd\x41\xff\xe3\xcc\xf3\x48\x0f\x1e\xf8"), uint64(0xffffffffc0100061))
	f.Fuzz(func(t *testing.T, code []byte, addr uint64) {
		n := 0
		for inst := range Decode(code, addr) {
			if inst.Len < 1 || inst.Len > 15 {
				t.Fatalf("length %d at %d", inst.Len, n)
			}
			if inst.Addr != addr+uint64(n) {
				t.Fatalf("address %#x at %d", inst.Addr, n)
			}
			_ = fmt.Sprint(inst)
			n += inst.Len
		}
		if n != len(code) {
			t.Fatalf("decoded %d of %d bytes", n, len(code))
		}
		NameIndirectThunk(code, addr, resolve)
		NameIndirectThunk(code, addr, nil)
		NameReturnThunk(code, addr, resolve)
		follow := func(uint64) []byte { return code }
		if p, ok := NamePreamble(code, addr, follow); ok != (Landing(code, addr) != addr) || p.Instructions > maxThunk {
			t.Fatalf("preamble %+v, %v", p, ok)
		}
		sites, _ := Sites(code, addr, resolve, follow)
		for _, s := range sites {
			if s.Offset >= uint64(len(code)) || s.CheckLen > s.Offset || (s.Check == CheckNone) != (s.CheckLen == 0) {
				t.Fatalf("%+v in %d bytes", s, len(code))
			}
			if n := s.Instructions(addr+s.Offset, follow); n < 0 || n > maxThunk+6 {
				t.Fatalf("%+v has %d instructions", s, n)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	code := bytes.Repeat([]byte("\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xe9\x91\x0a\x00\x00\x90"), 1024)
	b.SetBytes(int64(len(code)))
	b.ReportAllocs()
	for b.Loop() {
		for range Decode(code, at) {
		}
	}
}
