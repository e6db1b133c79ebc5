package profile

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/ksym"
)

// Frame is a place in a function.
type Frame struct {
	Function string // "" when no symbol holds the address
	Offset   uint64 // bytes from its start; the address when there is no symbol
	// Addr is where it was when it was last sampled: a BPF program is somewhere
	// else each time it is loaded.
	Addr uint64
}

// Stack is a distinct call chain that samples fell into.
type Stack struct {
	// Frames are places, the innermost first: where the CPU was, then return
	// addresses. Empty for user space.
	Frames []Frame
	// Stage is that of the packet it is in, if Outside is Inside; else Outside says
	// what it is in place of the packet's work.
	Stage   functions.Stage
	Outside Outside
	// Disturbed is set for samples of windows that are left out: they tell only who
	// had the CPU.
	Disturbed bool
	// Samples that fell into it; Ns is the time they stand for, by round.
	Samples int
	Ns      []float64

	// entry is how the innermost function was entered; atTargetEntry is set when the
	// CPU was at its first instructions, returned when it was at those behind a
	// call.
	entry                   entry
	atTargetEntry, returned bool
	// target is the function that a thunk is about to enter, "" when that is
	// not known.
	target string
}

// packets tells whether the stack is the packet's work, and counts.
func (s *Stack) packets() bool { return s.Outside == Inside && !s.Disturbed }

// innermost is the function the CPU was in, "" when it has no name.
func (s *Stack) innermost() string {
	if len(s.Frames) == 0 {
		return ""
	}
	return s.Frames[0].Function
}

// stacks gathers samples of one round by addresses, then of all rounds by place.
type stacks struct {
	round int
	raw   map[string]*rawStack
	known map[string]*Stack
	// rawFrames and knownFrames are how many places they have together.
	rawFrames, knownFrames int
	ids                    map[Frame]uint32 // of places, without their addresses
	key                    []byte
	// lines say which source lines of a program of the user's the round's addresses are of; nil without one.
	lines  *lineTable
	byLine map[sourceLine]*lineTime
}

type rawStack struct {
	chain   []uint64
	link    uint64
	at      circumstances
	samples int
	weight  float64
	stack   *Stack // that it falls into; nil where there is no room for it
}

// circumstances are what is known of a sample besides its call chain.
type circumstances struct {
	sink      bool // a poll under way is that of the sink
	disturbed bool // in a window that is left out
	by        task
}

func (c circumstances) key() byte {
	key := byte(c.by) << 2
	if c.sink {
		key |= 1
	}
	if c.disturbed {
		key |= 2
	}
	return key
}

func newStacks() *stacks {
	return &stacks{
		raw: make(map[string]*rawStack), known: make(map[string]*Stack), ids: make(map[Frame]uint32),
		byLine: make(map[sourceLine]*lineTime),
	}
}

// maxChains is how many distinct call chains are held of the round under way, and as many of all rounds, maxFrames how many places
// they have: a machine of many CPUs that is sampled for long has ever more. All of both take 340 MB at most.
const (
	maxChains = 150_000
	maxFrames = 5_000_000
)

func full(chains, frames int) bool { return chains >= maxChains || frames >= maxFrames }

// add counts a sample of the round that is under way. link is [perf.Sample.Link]. It tells whether
// it did: not when the sample's call chain is another than those that are held, which are all that there is room for.
func (s *stacks) add(chain []uint64, link uint64, at circumstances, weight float64) bool {
	s.key = binary.LittleEndian.AppendUint64(s.key[:0], link)
	for _, addr := range chain {
		s.key = binary.LittleEndian.AppendUint64(s.key, addr)
	}
	s.key = append(s.key, at.key())
	raw := s.raw[string(s.key)]
	if raw == nil {
		if full(len(s.raw), s.rawFrames) {
			return false
		}
		raw = &rawStack{chain: slices.Clone(chain), link: link, at: at}
		s.raw[string(s.key)] = raw
		s.rawFrames += len(chain)
	}
	raw.samples++
	raw.weight += weight
	return true
}

// weight is that of the round's samples in windows that count.
func (s *stacks) weight() (sum float64) {
	for _, raw := range s.raw {
		if !raw.at.disturbed {
			sum += raw.weight
		}
	}
	return sum
}

// end names the addresses of the round and begins the next one. It returns how many samples it left out, as their stack is
// another than those that are held. A sample of weight 1 stands for scale(kept) ns, where kept is the weight of
// those that it did not leave out, in windows that count. code may be nil: then how functions were entered is not known.
func (s *stacks) end(table *ksym.Table, code *reader, scale func(kept float64) float64) (noRoom int) {
	type address struct {
		addr    uint64
		returns bool
	}
	type named struct {
		Frame
		id uint32
	}
	names := make(map[address]named)
	name := func(i int, addr uint64) named {
		key := address{addr, i > 0}
		n, ok := names[key]
		if !ok {
			n.Frame = place(table, addr, key.returns)
			at := Frame{Function: n.Function, Offset: n.Offset}
			if n.id, ok = s.ids[at]; !ok {
				n.id = uint32(len(s.ids))
				s.ids[at] = n.id
			}
			names[key] = n
		}
		return n
	}
	var kept float64
	for _, raw := range s.raw {
		if code != nil && raw.link != 0 && !code.framed(raw.chain[0]) && (len(raw.chain) < 2 || raw.chain[1] != raw.link) {
			raw.chain = slices.Insert(raw.chain, 1, raw.link)
		}
		s.key = s.key[:0]
		for i, addr := range raw.chain {
			s.key = binary.LittleEndian.AppendUint32(s.key, name(i, addr).id)
		}
		s.key = append(s.key, raw.at.key())
		raw.stack = s.known[string(s.key)]
		if raw.stack == nil && full(len(s.known), s.knownFrames) {
			noRoom += raw.samples
			continue
		}
		if !raw.at.disturbed {
			kept += raw.weight
		}
		if raw.stack == nil {
			frames := make([]Frame, len(raw.chain))
			for i, addr := range raw.chain {
				frames[i] = name(i, addr).Frame
			}
			stack := &Stack{Frames: frames, Disturbed: raw.at.disturbed}
			stack.Stage, stack.Outside = classify(frames, raw.at.sink, raw.at.by)
			s.known[string(s.key)], raw.stack = stack, stack
			s.knownFrames += len(frames)
			if code != nil && stack.packets() {
				stack.enter(code)
			}
		}
	}
	each := scale(kept)
	for _, raw := range s.raw {
		stack := raw.stack
		if stack == nil {
			continue
		}
		stack.Samples += raw.samples
		for len(stack.Ns) <= s.round {
			stack.Ns = append(stack.Ns, 0)
		}
		stack.Ns[s.round] += raw.weight * each
		if stack.packets() {
			s.addLine(raw.chain, raw.samples, raw.weight*each)
		}
	}
	s.drop()
	s.round++
	return noRoom
}

// drop forgets the round's samples.
func (s *stacks) drop() {
	clear(s.raw)
	s.rawFrames = 0
}

// enter finds out how the innermost function was entered.
//
// A retpoline has its target where a return address is expected, and returns to it,
// through the return thunk where there is one: such a stack is at the branch to the
// target, wherever the CPU was.
func (s *Stack) enter(code *reader) {
	if len(s.Frames) < 2 || s.Frames[0].Function == "" {
		return
	}
	at, from := s.Frames[0], s.Frames[1].Addr
	start := at.Addr - at.Offset
	if thunk := indirectThunk(at.Function); thunk || returnThunk(at.Function) {
		if target, ok := code.kernel.Entered(from); ok && len(s.Frames) > 2 {
			s.target = target.Name
			s.entry = code.entered(from, s.Frames[2].Addr)
			return
		}
	}
	s.entry = code.entered(start, from)
	s.atTargetEntry = at.Addr < code.targetEntryEnd(start)
	s.returned = !s.atTargetEntry && code.returned(start, at.Addr)
}

// place names an address. The instruction before a return address made the call, and
// may be the last of its function. What stands in front of a function for CFI, and is run by
// those that call it indirectly, is its first instruction.
func place(table *ksym.Table, addr uint64, returns bool) Frame {
	at := addr
	if returns {
		at--
	}
	symbol, off, ok := table.Find(at)
	if !ok {
		return Frame{Offset: addr, Addr: addr}
	}
	if f, ok := table.Behind(symbol); ok {
		return Frame{Function: f.Name, Addr: f.Addr}
	}
	return Frame{Function: symbol.Name, Offset: off + addr - at, Addr: addr}
}

// all are the stacks of all rounds, each with as many numbers as there were rounds,
// the longest time first.
func (s *stacks) all() []*Stack {
	var out []*Stack
	for _, stack := range s.known {
		for len(stack.Ns) < s.round {
			stack.Ns = append(stack.Ns, 0)
		}
		out = append(out, stack)
	}
	slices.SortFunc(out, func(a, b *Stack) int {
		if c := compareTotals(b.Ns, a.Ns); c != 0 {
			return c
		}
		return slices.CompareFunc(a.Frames, b.Frames, compareFrames)
	})
	return out
}

func compareTotals(a, b []float64) int { return cmp.Compare(total(a), total(b)) }

func total(xs []float64) (sum float64) {
	for _, x := range xs {
		sum += x
	}
	return sum
}

func compareFrames(a, b Frame) int {
	return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(a.Offset, b.Offset))
}
