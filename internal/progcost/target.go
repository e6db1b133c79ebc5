package progcost

import (
	"fmt"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/clock"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/prog"
)

// Replayable is an opened program as one to replay. That of an object can be loaded anew, with the maps that it has; the
// object's source lines are let go.
func Replayable(o *program.Opened) prog.Program {
	p := prog.Program{Name: o.Name, Loaded: o.Program}
	if o.Spec == nil {
		return p
	}
	o.ForgetLines()
	p.Reload = prog.Reloader(o.Spec, o.Name, o.Maps)
	return p
}

// Identity says which program was measured: target is what the user typed.
func (raw *Raw) Identity(target string, o *program.Opened, number int) record.ProgramIdentity {
	id, err := Identify(o)
	if err != nil {
		id = record.ProgramIdentity{Name: record.Sentence(o.Name)} // it is what it is called
	}
	id.Target, id.Places = record.Sentence(target), 1
	if raw.anew[number] {
		id.Places = len(raw.numbers)
	}
	return id
}

// Identify says what program the kernel made of an opened one: its hash, and the size of its machine code.
func Identify(o *program.Opened) (record.ProgramIdentity, error) {
	id := record.ProgramIdentity{Name: record.Sentence(o.Name)}
	info, err := kernel.ProgramInfo(o.Program)
	if err != nil {
		return id, fmt.Errorf("read about program %s: %w", o.Name, err)
	}
	id.Tag = info.Tag
	if size, err := info.JitedSize(); err == nil {
		id.JitedBytes = size
	}
	if code, ok := info.JitedInsns(); ok && clock.X86 {
		for range branch.Decode(code, 0) {
			id.Instructions++
		}
	}
	return id, nil
}
