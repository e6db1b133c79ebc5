package lines

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
)

// MapName is the map of counters in an instrumented object.
const MapName = "unthunk_lines"

// Counters say which counter is of which lines.
type Counters struct {
	blocks []block
	lines  int // of all blocks
}

// block is one counter's.
type block struct {
	program, function string
	lines             []place
}

// place is a line of a source file.
type place struct {
	file, text string
	line       uint32
}

// Count is how often a source line ran.
type Count struct {
	// Function is that of the C source, in a program of the object.
	Program, Function string
	File              string
	Line              uint32
	// Text is the beginning of the source line, without the blanks around it.
	Text string
	// Runs is how often the line ran since the object was loaded.
	Runs uint64
}

// maxText is how much of a line is kept, in characters.
const maxText = 300

// most is how many blocks an object may have, and how many lines they may have together: the verifier takes a million
// instructions.
const most = 1 << 18

// Instrument returns a copy of an object's spec in which each block counts its runs. The
// object must have line information: clang -g writes it.
func Instrument(spec *ebpf.CollectionSpec) (*ebpf.CollectionSpec, *Counters, error) {
	if spec.Maps[MapName] != nil {
		return nil, nil, fmt.Errorf("the object has a map %s: lines are counted in it already", MapName)
	}
	copied, counters := spec.Copy(), &Counters{}
	known := false
	for _, name := range slices.Sorted(maps.Keys(copied.Programs)) {
		p := copied.Programs[name]
		ins, err := counters.instrument(name, p.Instructions)
		if err != nil {
			return nil, nil, fmt.Errorf("count the lines of %s: %w", name, err)
		}
		p.Instructions = ins
	}
	for _, b := range counters.blocks {
		known = known || len(b.lines) > 0
	}
	if !known {
		return nil, nil, errors.New("the object does not say which source line an instruction is of: compile it with clang -g")
	}
	copied.Maps[MapName] = &ebpf.MapSpec{
		Name: MapName, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(8 * len(counters.blocks)), MaxEntries: 1,
	}
	return copied, counters, nil
}

// Runs returns how often a program of the object was run.
func (c *Counters) Runs(m *ebpf.Map, program string) (uint64, error) {
	b, err := c.read(m)
	if err != nil {
		return 0, err
	}
	for i, block := range c.blocks {
		if block.program == program { // the first is that of its first instruction
			return binary.NativeEndian.Uint64(b[8*i:]), nil
		}
	}
	return 0, fmt.Errorf("read counters of lines: there is no program %s", program)
}

func (c *Counters) read(m *ebpf.Map) ([]byte, error) {
	b, err := m.LookupBytes(uint32(0))
	if err != nil {
		return nil, fmt.Errorf("read counters of lines: %w", err)
	}
	if len(b) != 8*len(c.blocks) {
		return nil, fmt.Errorf("read counters of lines: %d bytes, want %d", len(b), 8*len(c.blocks))
	}
	return b, nil
}

// Read returns the counts of all lines, in the order of the source. m is the map [MapName] of
// the instrumented object.
func (c *Counters) Read(m *ebpf.Map) ([]Count, error) {
	b, err := c.read(m)
	if err != nil {
		return nil, err
	}
	type key struct {
		program, function, file string
		line                    uint32
	}
	counts := map[key]Count{}
	for i, block := range c.blocks {
		runs := binary.NativeEndian.Uint64(b[8*i:])
		for _, p := range block.lines {
			k := key{block.program, block.function, p.file, p.line}
			counts[k] = Count{block.program, block.function, p.file, p.line, record.Text(p.text, maxText, ' '), max(runs, counts[k].Runs)}
		}
	}
	return slices.SortedFunc(maps.Values(counts), func(a, b Count) int {
		for _, by := range []int{
			strings.Compare(a.Program, b.Program), strings.Compare(a.File, b.File), int(a.Line) - int(b.Line),
			strings.Compare(a.Function, b.Function),
		} {
			if by != 0 {
				return by
			}
		}
		return 0
	}), nil
}

// instrument puts counters into the functions of a program.
func (c *Counters) instrument(program string, ins asm.Instructions) (asm.Instructions, error) {
	ins = slices.Clone(ins)
	g, err := newGraph(ins)
	if err != nil {
		return nil, err
	}
	live, err := g.liveness()
	if err != nil {
		return nil, err
	}
	stack := g.stackUse()
	function := ""
	var out asm.Instructions
	var line place
	counted := map[place]int{}        // how many blocks there were when the line got its last counter
	starts := make([]int, len(ins)+1) // where each instruction goes, in instructions of out
	for i := range ins {
		if f := g.functionAt(i); f != "" {
			function, line = f, place{}
		}
		next, ok := placeOf(&ins[i])
		if ok {
			line = next
		}
		starts[i] = len(out)
		if g.leader[i] {
			if len(c.blocks) == most {
				return nil, fmt.Errorf("it has more than %d blocks", most)
			}
			counter, err := count(live[i], stack[g.function[i]], uint32(8*len(c.blocks)))
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", line.line, err)
			}
			b := block{program: program, function: function}
			if !ok && line.line > 0 { // the line goes on from the block before
				b.lines = append(b.lines, line)
				counted[line] = len(c.blocks) + 1
			}
			c.blocks = append(c.blocks, b)
			// What says where a function begins must be of its first instruction.
			first := counter[0].WithSymbol(ins[i].Symbol())
			if source := ins[i].Source(); source != nil {
				first = first.WithSource(source)
			}
			ins[i] = ins[i].WithSymbol("")
			if f := btf.FuncMetadata(&ins[i]); f != nil {
				first = btf.WithFuncMetadata(first, f)
				ins[i] = btf.WithFuncMetadata(ins[i], nil)
			}
			counter[0] = first
			out = append(out, counter...)
		}
		if ok && counted[line] < len(c.blocks) {
			if c.lines++; c.lines > most {
				return nil, fmt.Errorf("its blocks have more than %d lines", most)
			}
			counted[line] = len(c.blocks)
			last := &c.blocks[len(c.blocks)-1]
			last.lines = append(last.lines, line)
		}
		out = append(out, ins[i])
	}
	starts[len(ins)] = len(out)
	return out, g.relocate(out, starts)
}

// placeOf is the source line that an instruction begins.
func placeOf(ins *asm.Instruction) (place, bool) {
	l, ok := ins.Source().(*btf.Line)
	if !ok || l.LineNumber() == 0 {
		return place{}, false
	}
	line := kernel.LineOf(l)
	return place{line.File, line.Text, l.LineNumber()}, true
}

// maxStack is the stack of a function, in bytes (MAX_BPF_STACK).
const maxStack = 512

// count are the instructions that add one to a counter at an offset of the map. They use two
// registers that hold nothing that is read later; where there are not two, they keep those of
// others on the stack meanwhile.
func count(live registers, stack int, offset uint32) (asm.Instructions, error) {
	var free, kept []asm.Register
	for _, r := range []asm.Register{asm.R1, asm.R2, asm.R3, asm.R4, asm.R5, asm.R0, asm.R9, asm.R8, asm.R7, asm.R6} {
		if !live.has(r) {
			free = append(free, r)
		}
	}
	// Registers 6 to 9 hold what was written to them: those of arguments may hold nothing.
	for _, r := range []asm.Register{asm.R6, asm.R7, asm.R8, asm.R9} {
		if len(free)+len(kept) < 2 && live.has(r) {
			kept = append(kept, r)
		}
	}
	if stack+8*len(kept) > maxStack {
		return nil, errors.New("no register is free, and no room on the stack")
	}
	use := append(free, kept...)
	var out asm.Instructions
	for i, r := range kept {
		out = append(out, asm.StoreMem(asm.RFP, int16(-stack-8*(i+1)), r, asm.DWord))
	}
	out = append(out,
		asm.LoadMapValue(use[0], 0, offset).WithReference(MapName),
		asm.Mov.Imm(use[1], 1),
		asm.AddAtomic.Mem(use[0], use[1], asm.DWord, 0),
	)
	for i, r := range kept {
		out = append(out, asm.LoadMem(r, asm.RFP, int16(-stack-8*(i+1)), asm.DWord))
	}
	return out, nil
}
