package filter

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cloudflare/cbpfc"
	"golang.org/x/net/bpf"

	"github.com/unthunk/unthunk/xsk"
)

// Claim translates classic BPF to what xsk.ProgramOptions.Claim takes. A load
// outside of the frame ends the program with no match, as in the kernel. Frames
// of several buffers are judged by the first. A program that reads scratch memory
// it has not written is an error, as in the kernel.
func Claim(program []bpf.Instruction) (asm.Instructions, error) {
	if len(program) == 0 || len(program) > maxInstructions {
		return nil, fmt.Errorf("classic BPF of %d instructions: must be 1 to %d", len(program), maxInstructions)
	}
	// cbpfc takes for granted that there are such registers and operations.
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("classic BPF: %w", err)
	}
	if _, all := bpf.Disassemble(raw); !all {
		return nil, errors.New("classic BPF: an instruction is not known")
	}
	if err := check(program); err != nil {
		return nil, err
	}
	const result = "filter_result"
	out, err := cbpfc.ToEBPF(program, cbpfc.EBPFOpts{
		// R2 and R3 hold the frame's begin and end, and the stack below
		// xsk.ClaimStack is free.
		PacketStart: asm.R2, PacketEnd: asm.R3, StackOffset: -xsk.ClaimStack,
		Working: [4]asm.Register{asm.R4, asm.R5, asm.R7, asm.R8},
		Result:  asm.R0, ResultLabel: result, LabelPrefix: "filter",
	})
	if err != nil {
		return nil, fmt.Errorf("translate classic BPF: %w", err)
	}
	return append(out,
		asm.JEq.Imm32(asm.R0, 0, xsk.PassLabel).WithSymbol(result),
		asm.Ja.Label(xsk.ClaimLabel),
	), nil
}

// farOffset is as far as a load reaches: the verifier's bound of an offset into
// a packet is 0xffff. The kernel's own extensions of classic BPF lie beyond it.
const farOffset = 0x7000

// check returns an error for loads that XDP cannot make, and where no return is one
// of a match.
func check(program []bpf.Instruction) error {
	matches := false
	for i, ins := range program {
		off := uint32(0)
		switch ins := ins.(type) {
		case bpf.LoadAbsolute:
			off = ins.Off
		case bpf.LoadIndirect:
			off = ins.Off
		case bpf.LoadMemShift:
			off = ins.Off
		case bpf.RetA:
			matches = true
		case bpf.RetConstant:
			matches = matches || ins.Val != 0
		}
		if off > farOffset {
			return fmt.Errorf("translate instruction %d, %v: offset %#x: %#x is the highest", i, ins, off, farOffset)
		}
	}
	if !matches {
		return errors.New("filter matches nothing")
	}
	return nil
}
