package kernel

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

// The code of a program of 4 MiB of instructions is shown. The kernel is not asked for that of a larger one: it would warn of
// itself, and answer ENOMEM. All else is known of both.
func TestLargePrograms(t *testing.T) {
	testutil.Root(t)
	tainted := func() string {
		b, err := os.ReadFile("/proc/sys/kernel/tainted")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	before := tainted() // 512 for ever where it has warned before
	for _, extra := range []int{0, 1} {
		n := maxShown/asm.InstructionSize + extra
		ins := make(asm.Instructions, n-1, n)
		for i := range ins {
			ins[i] = asm.Mov.Imm(asm.R0, 2)
		}
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "large", Type: ebpf.XDP, License: "GPL", Instructions: append(ins, asm.Return()),
		})
		if err != nil {
			t.Fatal(err)
		}
		a, err := AboutProgram(p)
		if err != nil {
			t.Fatal(err)
		}
		_, errInfo := ProgramInfo(p)
		functions, err := Program(p)
		p.Close()
		if a.ID == 0 || a.Name != "large" || a.Tag == "" || a.Loaded == 0 || len(a.Functions) != len(functions) || err != nil {
			t.Errorf("%d instructions: %+v; functions %+v, %v", n, a, functions, err)
		}
		if extra == 0 {
			if a.Info == nil || a.Unseen != nil || errInfo != nil {
				t.Errorf("%d instructions: %v, %v: their code is not seen", n, a.Unseen, errInfo)
			}
			continue
		}
		for _, err := range []error{a.Unseen, errInfo} {
			if !errors.Is(err, ErrTooLarge) || errors.Is(err, unix.ENOMEM) || a.Info != nil {
				t.Errorf("%d instructions: %v, want %v, and that the kernel is not asked", n, err, ErrTooLarge)
			}
		}
	}
	if after := tainted(); after != before {
		t.Errorf("kernel.tainted was %s, and is %s", before, after)
	}
}
