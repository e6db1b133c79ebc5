package record

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// LabTrace is what the packets of one window executed in a guest, instruction by
// instruction. Counts are whole numbers for all packets together: none is sampled.
type LabTrace struct {
	// Packets are those of the window, Executed the instructions, which are as many as the
	// guest's clock counts: [LabRow.Instructions] times Packets.
	Packets  int    `json:"packets"`
	Executed uint64 `json:"executed"`
	// Windows are, on wires, how many windows the trace is of: all that take as many instructions as most do, of Among that
	// were traced.
	Windows int `json:"windows,omitempty"`
	Among   int `json:"among,omitempty"`
	// Functions by stage, the most instructions first. Their Executed add up to that of all.
	Functions []LabTraceFunction `json:"functions"`
	// Branches are the indirect branches with what they really entered, those too that no
	// kprobe can count.
	Branches []LabTraceBranch `json:"branches"`
	// Lines are the source lines of BPF programs, as far as the programs have them.
	Lines []LabTraceLine `json:"lines,omitempty"`
	// Annotated are the instructions of the functions that were asked for, by address.
	Annotated []LabTraceInstruction `json:"annotated,omitempty"`
	// Stacks are the chains of calls. Their Executed add up too.
	Stacks []LabTraceStack `json:"stacks"`
}

// LabTraceFunction is a function in one stage.
type LabTraceFunction struct {
	Function string `json:"function"`
	Stage    string `json:"stage"`
	// Executed are the instructions of the function itself, Inclusive those with what it
	// calls and jumps to.
	Executed  uint64 `json:"executed"`
	Inclusive uint64 `json:"inclusive"`
	// Spread is how far Executed is from that of any of the windows, in instructions per packet; 0 where all are alike.
	Spread float64 `json:"spread,omitempty"`
}

// LabTraceBranch is an indirect call or jump that entered one target.
type LabTraceBranch struct {
	Function string `json:"function"`
	Offset   uint64 `json:"offset"` // in bytes from the start of the function
	Jump     bool   `json:"jump,omitempty"`
	Target   string `json:"target"`
	Times    uint64 `json:"times"`
}

// LabTraceLine is a source line of a BPF program.
type LabTraceLine struct {
	Program  string `json:"program"`
	File     string `json:"file"`
	Line     int    `json:"line"` // 0 for what the compiler gave no line
	Text     string `json:"text,omitempty"`
	Executed uint64 `json:"executed"`
}

// LabTraceInstruction is an instruction that was executed.
type LabTraceInstruction struct {
	Function string `json:"function"`
	Offset   uint64 `json:"offset"` // in bytes from the start of the function
	Text     string `json:"text"`   // in GNU syntax
	Times    uint64 `json:"times"`
	// Source is the source line where another one begins: "chain.bpf.c:182 if (…"; empty where
	// none is known.
	Source string `json:"source,omitempty"`
}

// LabTraceStack is a chain of calls with the instructions of its innermost function itself.
type LabTraceStack struct {
	Frames   []string `json:"frames"` // the outermost first
	Stage    string   `json:"stage"`
	Executed uint64   `json:"executed"`
	// Entered is how often the innermost function was entered within windows: its first instruction was executed. Records of
	// versions before 2026-11-30 have none.
	Entered uint64 `json:"entered,omitempty"`
}

// maxFrames of a chain of calls.
const maxFrames = 1024

// maxExecuted is the most instructions of a window: a guest executes a billion in a minute.
const maxExecuted = 1 << 40

// StampFunction is the function of the kernel whose indirect branch is that of the observer's time stamps.
const StampFunction = "ktime_get_mono_fast_ns"

// LabBranch is an indirect branch by its function, and what it enters; empty where that is not known.
type LabBranch struct{ Function, Target string }

// Branches are the indirect branches of a packet by place, without those of time stamps: of the trace where the row has one, which
// misses none, else those that kprobes counted. They are nil where neither was counted.
func (r *LabRow) Branches() map[LabBranch]float64 {
	if r.CallsPerPacket == nil {
		return nil
	}
	out := make(map[LabBranch]float64)
	if t := r.Trace; t != nil && len(t.Branches) > 0 {
		for _, b := range t.Branches {
			if b.Function != StampFunction {
				out[LabBranch{b.Function, b.Target}] += t.PerPacket(b.Times)
			}
		}
		return out
	}
	for _, s := range r.Sites {
		out[LabBranch{s.Function, s.Target}] += s.PerPacket
	}
	return out
}

// PerPacket is a count of the window for one packet.
func (t *LabTrace) PerPacket(n uint64) float64 { return float64(n) / float64(t.Packets) }

func (t *LabTrace) check() error {
	if t.Packets <= 0 || t.Packets > maxExecuted || t.Executed > maxExecuted {
		return fmt.Errorf("impossible trace of %d packets with %d instructions", t.Packets, t.Executed)
	}
	if t.Windows < 0 || t.Windows > t.Among || t.Among > maxExecuted || t.Windows > 0 && t.Packets%t.Windows != 0 {
		return fmt.Errorf("impossible trace of %d windows among %d with %d packets", t.Windows, t.Among, t.Packets)
	}
	for _, n := range []int{len(t.Functions), len(t.Branches), len(t.Lines), len(t.Stacks), len(t.Annotated)} {
		if n > MaxRows {
			return errors.New("a trace of too many functions")
		}
	}
	left := t.Executed
	for _, f := range t.Functions {
		if err := checkNames(f.Function, f.Stage); err != nil {
			return err
		}
		if f.Executed > left || f.Inclusive > t.Executed || f.Inclusive < f.Executed || !possibleCount(f.Spread) {
			return fmt.Errorf("impossible count of function %.60q", f.Function)
		}
		left -= f.Executed
	}
	if left != 0 {
		return fmt.Errorf("%d instructions of a trace are in no function", left)
	}
	for _, b := range t.Branches {
		if err := checkTexts([]string{b.Function, b.Target}); err != nil {
			return err
		}
		if b.Function == "" || b.Times > t.Executed {
			return fmt.Errorf("impossible branch in function %.60q", b.Function)
		}
	}
	for _, l := range t.Lines {
		if err := checkTexts([]string{l.Program, l.File, l.Text}); err != nil {
			return err
		}
		if l.Line < 0 || l.Executed > t.Executed {
			return fmt.Errorf("impossible line %d of %.60q", l.Line, l.File)
		}
	}
	for _, a := range t.Annotated {
		if err := checkTexts([]string{a.Function, a.Text, a.Source}); err != nil {
			return err
		}
		if a.Function == "" || a.Times > t.Executed {
			return fmt.Errorf("impossible instruction in function %.60q", a.Function)
		}
	}
	return t.checkStacks()
}

func (t *LabTrace) checkStacks() error {
	left := t.Executed
	for _, s := range t.Stacks {
		if len(s.Frames) == 0 || len(s.Frames) > maxFrames {
			return fmt.Errorf("impossible chain of %d calls", len(s.Frames))
		}
		if err := checkTexts(append([]string{s.Stage}, s.Frames...)); err != nil {
			return err
		}
		if s.Executed > left || s.Entered > s.Executed {
			return fmt.Errorf("impossible count of a chain of calls in %.60q", s.Frames[len(s.Frames)-1])
		}
		left -= s.Executed
	}
	if left != 0 && len(t.Stacks) > 0 {
		return fmt.Errorf("%d instructions of a trace are in no chain of calls", left)
	}
	return nil
}

// LabTraceChange is where two traces differ. All numbers are instructions per packet.
type LabTraceChange struct {
	Old string `json:"old"` // the names of the rows
	New string `json:"new"`
	// Was and Is are those of a packet, Difference is the second less the first.
	Was        float64 `json:"old-instructions"`
	Is         float64 `json:"new-instructions"`
	Difference float64 `json:"difference"`
	// Functions are those that differ, by number or by name, the largest difference first.
	// Their differences add up to Difference. Same is how many others there are.
	Functions []LabTraceDifference `json:"functions"`
	Same      int                  `json:"same"`
	// Stages are all stages, in their order.
	Stages []LabTraceDifference `json:"stages"`
}

// LabTraceDifference is a function or a stage in two traces, in instructions per packet.
type LabTraceDifference struct {
	// Name is the function's; several with " + " where a kernel has one function for them.
	Name string `json:"name"`
	// Was is the name in the old kernel, if that was another; empty for a function that was
	// not executed there.
	Was string `json:"was,omitempty"`
	// Caller is the function from whose calls and jumps most of the difference comes; empty for an outermost one, and for a
	// stage.
	Caller     string  `json:"caller,omitempty"`
	Old        float64 `json:"old"`
	New        float64 `json:"new"`
	Difference float64 `json:"difference"`
}

// Shorten keeps at most so many functions of a difference, the first, and puts what the others have into one behind them,
// "and 12 more"; 0 keeps all.
func (c *LabTraceChange) Shorten(most int) {
	if most <= 0 || len(c.Functions) <= most+1 {
		return
	}
	rest := LabTraceDifference{Name: more(len(c.Functions) - most)}
	for _, d := range c.Functions[most:] {
		rest.Old, rest.New, rest.Difference = rest.Old+d.Old, rest.New+d.New, rest.Difference+d.Difference
	}
	c.Functions = append(slices.Clone(c.Functions[:most]), rest)
}

// more is the name of what a list leaves out.
func more(n int) string { return fmt.Sprintf("and %d more", n) }

func (c *LabTraceChange) check() error {
	if len(c.Functions) > MaxRows || len(c.Stages) > MaxRows || c.Same < 0 {
		return errors.New("a difference of too many functions")
	}
	if err := checkTexts([]string{c.Old, c.New}); err != nil {
		return err
	}
	sum := 0.0
	for i, d := range slices.Concat(c.Functions, c.Stages) {
		if err := checkTexts([]string{d.Name, d.Was, d.Caller}); err != nil {
			return err
		}
		if d.Name == "" || !possibleCount(d.Old) || !possibleCount(d.New) || !(math.Abs(d.Difference-(d.New-d.Old)) < 1e-6) {
			return fmt.Errorf("impossible difference of %.60q", d.Name)
		}
		if i < len(c.Functions) {
			sum += d.Difference
		}
	}
	if !(math.Abs(sum-c.Difference) < 1e-6) || !possibleCount(c.Was) || !possibleCount(c.Is) {
		return fmt.Errorf("differences of functions add up to %v, not to %v", sum, c.Difference)
	}
	return nil
}
