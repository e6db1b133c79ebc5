package branch

import (
	"bytes"
	"testing"
)

func TestScan(t *testing.T) {
	for _, tt := range []struct {
		code string
		kind Kind
		len  int
		reg  string
	}{
		{"\xe8\xfb\x0f\x00\x00", CallDirect, 5, ""},
		{"\x2e\xe8\xfb\x0f\x00\x00", CallDirect, 6, ""},
		{"\xeb\xfe", JumpDirect, 2, ""},
		{"\x0f\x8f\x00\x00\x00\x00", JumpCond, 6, ""},
		{"\xe3\x00", JumpCond, 2, ""},
		{"\xc7\xf8\x00\x00\x00\x00", JumpCond, 6, ""}, // xbegin
		{"\xff\xd0", CallIndirect, 2, "rax"},
		{"\x41\xff\xd7", CallIndirect, 3, "r15"},
		{"\xff\xe4", JumpIndirect, 2, "rsp"},
		{"\x2e\x2e\x2e\xff\xd1", CallIndirect, 5, "rcx"},
		{"\xff\x54\x24\x08", CallIndirect, 4, ""},
		{"\xff\x24\xc5\x00\x00\x00\x81", JumpIndirect, 7, ""},
		{"\xff\x15\x00\x00\x00\x00", CallIndirect, 6, ""},
		{"\xff\x90\x00\x01\x00\x00", CallIndirect, 6, ""},
		{"\xc2\x08\x00", Return, 3, ""},
		{"\xf3\xc3", Return, 2, ""},
		{"\x48\xcf", Other, 2, ""},
		{"\xcd\x80", Trap, 2, ""},
		{"\x0f\xb9\xcc", Trap, 3, ""}, // the mark of static call trampolines
		{"\xd6", Trap, 1, ""},         // udb
		{"\xf3\x90", Fence, 2, ""},
		{"\x0f\xae\xe8", Fence, 3, ""},
		{"\xf3\x48\x0f\xae\xe8", Other, 5, ""}, // incsspq
		{"\xf3\x0f\x1e\xfa", Other, 4, ""},
		{"\xf2\x0f\x00\xf7", Other, 4, ""}, // lkgs
		{"\x48\xb8\x01\x02\x03\x04\x05\x06\x07\x08", Other, 10, ""},
		{"\x66\xb8\x01\x02", Other, 4, ""},
		{"\x48\xa1\x01\x02\x03\x04\x05\x06\x07\x08", Other, 10, ""},
		{"\x67\xa1\x01\x02\x03\x04", Other, 6, ""},
		{"\xc8\x10\x00\x00", Other, 4, ""},
		{"\xf6\x05\x00\x00\x00\x00\x01", Other, 7, ""},
		{"\xf6\x15\x00\x00\x00\x00", Other, 6, ""},
		{"\x66\xf7\xc0\x01\x02", Other, 5, ""},
		{"\x66\x48\xf7\xc0\x01\x02\x03\x04", Other, 8, ""},
		{"\x8b\x04\x25\x01\x02\x03\x04", Other, 7, ""},
		{"\x8b\x44\x25\x01", Other, 4, ""},
		{"\x0f\x22\xd8", Other, 3, ""},
		{"\x0f\x22\x1d", Other, 3, ""}, // no displacement whatever the mode
		{"\x0f\x38\xf1\x07", Other, 4, ""},
		{"\x66\x0f\x3a\x0f\xc1\x08", Other, 6, ""},
		{"\xc5\xf8\x77", Other, 3, ""},                                  // vzeroupper
		{"\xc5\xf9\x70\xc0\x4e", Other, 5, ""},                          // vpshufd
		{"\xc4\xe2\x7d\x00\xc1", Other, 5, ""},                          // vpshufb
		{"\xc4\xe3\x75\x46\xc2\x20", Other, 6, ""},                      // vperm2i128
		{"\x62\xf1\x7d\x48\x6f\x46\x01", Other, 7, ""},                  // vmovdqa32
		{"\x62\xf3\x7d\x48\x25\xc0\xff", Other, 7, ""},                  // vpternlogd
		{"\x8f\xe8\x78\xc2\xc0\x10", Other, 6, ""},                      // XOP vprotd
		{"\x8f\x00", Other, 2, ""},                                      // pop (%rax)
		{"\x66\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00", Other, 11, ""}, // nop
		{"\x06", Bad, 1, ""},
		{"\x62\xf0\x7d\x48\x6f", Bad, 1, ""},
		{"\xff\xff", Bad, 1, ""},
		{"\x8d\xc0", Bad, 1, ""},
		{"\x66\xc5\xf8\x77", Bad, 1, ""},
		{"\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90", Bad, 1, ""},
		{"\x48\xb8\x01", Bad, 1, ""}, // cut short
	} {
		for _, tail := range []string{"", "\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90"} {
			if tt.kind == Bad && tt.code == "\x48\xb8\x01" && tail != "" {
				continue
			}
			for step := range Scan([]byte(tt.code+tail), 0x1000) {
				if step.Kind != tt.kind || step.Len != tt.len || step.Register() != tt.reg {
					t.Errorf("% x: %+v", tt.code, step)
				}
				break
			}
		}
	}
}

// FuzzScan holds Scan against Decode, which takes the text from x86asm.
func FuzzScan(f *testing.F) {
	f.Add([]byte("\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xe9\x91\x0a\x00\x00\x90"), uint64(at))
	f.Add([]byte("\xc5\xf8\x77\x62\xf1\x7d\x48\x6f\x46\x01\xff\x15\x00\x00\x00\x00"), uint64(0))
	f.Add([]byte(kcfiOff+callR11+paranoid72+"\x2e\xe8\x00\x00\x00\x00"), uint64(at))
	f.Fuzz(func(t *testing.T, code []byte, addr uint64) {
		n, end := 0, addr+uint64(len(code))
		var steps []Step
		for step := range Scan(code, addr) {
			if step.Len < 1 || step.Len > 15 || step.Addr != addr+uint64(n) {
				t.Fatalf("%+v at %d", step, n)
			}
			n += step.Len
			steps = append(steps, step)
		}
		if n != len(code) {
			t.Fatalf("scanned %d of %d bytes", n, len(code))
		}
		for inst := range Decode(code, addr) {
			if s := steps[0]; inst.Addr != s.Addr || inst.Len != s.Len || inst.Kind != s.Kind || inst.Target != s.Target {
				t.Fatalf("%+v, %+v", inst, s)
			}
			steps = steps[1:]
		}
		facts := &Facts{StaticKeys: map[uint64]string{addr: "key"}, Alternatives: map[uint64]string{addr + 1: "jmp 1"}}
		for _, b := range Branches(code, addr, resolve, facts, func(uint64) []byte { return code }) {
			if b.Offset >= uint64(len(code)) || b.Addr != addr+b.Offset || b.Class == "" {
				t.Fatalf("%+v in %d bytes", b, len(code))
			}
		}
		got := 0
		for _, line := range Annotate(code, addr, resolve, facts) {
			got += len(line.Bytes)
		}
		if got != len(code) {
			t.Fatalf("annotated %d of %d bytes up to %#x", got, len(code), end)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	code := bytes.Repeat([]byte("\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xe9\x91\x0a\x00\x00\x90"), 1024)
	b.SetBytes(int64(len(code)))
	b.ReportAllocs()
	for b.Loop() {
		for range Scan(code, at) {
		}
	}
}
