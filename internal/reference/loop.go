package reference

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

const (
	// loopTurns is how often the loop turns in one run of the program, loopRuns how many runs a sample has: some
	// 20 µs together.
	loopTurns = 1000
	loopRuns  = 10
)

// loop is a BPF program that calls nothing: additions, exclusive ors, a store and a load, most of which wait for no
// other, so that a core does several at once.
type loop struct{ program *ebpf.Program }

// newLoop loads the program: a socket filter, as an XDP program would go into the BPF dispatcher for each test run.
func newLoop() (*loop, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "unthunk_loop", Type: ebpf.SocketFilter, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R1, asm.R1, 0, asm.Word), // the length of the frame: nothing that the verifier knows
			asm.Mov.Reg(asm.R2, asm.R1),
			asm.Mov.Reg(asm.R3, asm.R1),
			asm.Mov.Reg(asm.R4, asm.R1),
			asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, loopTurns),
			asm.Add.Reg(asm.R1, asm.R0).WithSymbol("turn"),
			asm.Xor.Reg(asm.R2, asm.R0),
			asm.Add.Imm(asm.R3, 12345),
			asm.Xor.Imm(asm.R4, 54321),
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
			asm.LoadMem(asm.R5, asm.RFP, -8, asm.DWord),
			asm.Add.Reg(asm.R4, asm.R5),
			asm.Add.Imm(asm.R0, -1),
			asm.JNE.Imm(asm.R0, 0, "turn"),
			asm.Return(),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("load reference loop: %w", err)
	}
	return &loop{p}, nil
}

// run returns the time of one turn in ns, by the kernel's own clock around the program.
func (l *loop) run() (float64, error) {
	_, took, err := l.program.Benchmark(make([]byte, 64), loopRuns, nil)
	if err != nil {
		return 0, fmt.Errorf("run reference loop: %w", err)
	}
	return float64(took) / float64(time.Nanosecond) / loopTurns, nil
}

// Close unloads the program.
func (l *loop) Close() error { return l.program.Close() }
