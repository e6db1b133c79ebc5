package lab

import (
	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ktext"
)

// executed is how many instructions an indirect branch takes to its target: itself, those
// of its thunk up to the return or jump that enters the target, and the nop behind a call
// that fills the room of a longer one. It is 0 when the code cannot be read.
func executed(text ktext.Source, s xdppath.Site) (n int) {
	if s.Kind == branch.SiteLfence {
		n++
	}
	for addr := s.Addr; n < maxExecuted; {
		step, ok := stepAt(text, addr)
		if !ok {
			return 0
		}
		n++
		next := addr + uint64(step.Len)
		switch step.Kind {
		case branch.CallDirect, branch.JumpDirect:
			addr = step.Target
		case branch.Return, branch.JumpIndirect:
			return n
		case branch.CallIndirect:
			// Compilers write a call of a thunk in 5 bytes, or 6 with a prefix.
			if fill, ok := stepAt(text, next); ok && fill.Nop() && (next+uint64(fill.Len) == addr+5 || next+uint64(fill.Len) == addr+6) {
				n++
			}
			return n
		case branch.Other:
			addr = next
		default:
			return 0
		}
	}
	return 0
}

// maxExecuted bounds the code of a thunk.
const maxExecuted = 32

func stepAt(text ktext.Source, addr uint64) (branch.Step, bool) {
	var code [16]byte
	if text.ReadAddr(code[:], addr) != nil {
		return branch.Step{}, false
	}
	for step := range branch.Scan(code[:], addr) {
		return step, step.Kind != branch.Bad
	}
	return branch.Step{}, false
}
