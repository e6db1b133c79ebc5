package prog

import (
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Each packet is timed by itself, through both programs, and those that come out otherwise are found.
func TestSingles(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	packets := made(t, "udp4,tcp4:200,arp")
	r, err := New(t.Context(), packets, Options{}, sampleProgram(t, "encap"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const passes = 5
	s, err := r.Singles(t.Context(), 0, passes)
	if err != nil {
		t.Fatal(err)
	}
	for i := range packets.Frames {
		if len(s.Null[i]) != passes || len(s.Program[i]) != passes || s.Null[i][0] == 0 || s.Wrong[i] != 0 {
			t.Errorf("packet %d: %v, %v, %d wrong", i, s.Null[i], s.Program[i], s.Wrong[i])
		}
	}
	if _, err := r.Singles(t.Context(), 1, passes); err == nil || !strings.Contains(err.Error(), "program 1 of 1") {
		t.Errorf("no second program: %v", err)
	}
}

// A program that drops from its twentieth run on is found out, packet by packet.
func TestSinglesWrong(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := assembled(t, ebpf.AttachXDP, counting(asm.JLT.Imm(asm.R2, 20, "out")))
	r, err := New(t.Context(), made(t, "udp4,tcp4"), Options{}, p) // 6 runs
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := r.Singles(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if s.Wrong[0]+s.Wrong[1] != 7 || s.First != "packet 2: XDP_DROP, and XDP_PASS when run once" {
		t.Errorf("%v wrong, %q", s.Wrong, s.First)
	}
}
