package record

import (
	"strings"
	"testing"
)

func goodTrace() *LabTrace {
	return &LabTrace{
		Packets: 2, Executed: 10,
		Functions: []LabTraceFunction{{Function: "f", Stage: "receive", Executed: 4, Inclusive: 10},
			{Function: "g", Stage: "redirect", Executed: 6, Inclusive: 6}},
		Branches:  []LabTraceBranch{{Function: "f", Target: "g", Times: 1}},
		Lines:     []LabTraceLine{{Program: "p", File: "x.c", Line: 1, Text: "f();", Executed: 4}},
		Annotated: []LabTraceInstruction{{Function: "f", Text: "call g", Times: 1}},
		Stacks: []LabTraceStack{{Frames: []string{"f"}, Stage: "receive", Executed: 4},
			{Frames: []string{"f", "g"}, Stage: "redirect", Executed: 6}},
	}
}

// What no guest executes is refused: counts that do not add up, names that no terminal shows.
func TestLabTraceCheck(t *testing.T) {
	t.Parallel()
	five, calls := 5.0, 0.0
	row := func(tr *LabTrace) *LabRow {
		return &LabRow{Name: "k/bulk=16", Instructions: &five, CallsPerPacket: &calls, Trace: tr}
	}
	if err := row(goodTrace()).Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(tr *LabTrace){
		"impossible trace of 0 packets":              func(tr *LabTrace) { tr.Packets = 0 },
		"impossible trace of 2 windows among 1":      func(tr *LabTrace) { tr.Windows, tr.Among = 2, 1 },
		"impossible trace of 3 windows among 4":      func(tr *LabTrace) { tr.Windows, tr.Among = 3, 4 },
		`impossible count of function "f" `:          func(tr *LabTrace) { tr.Functions[0].Spread = -1 },
		"another count of them":                      func(tr *LabTrace) { tr.Packets = 3 },
		"3 instructions of a trace are in no funct":  func(tr *LabTrace) { tr.Functions[1].Executed = 3 },
		`impossible count of function "g"`:           func(tr *LabTrace) { tr.Functions[1].Executed = 7 },
		`impossible count of function "f"`:           func(tr *LabTrace) { tr.Functions[0].Inclusive = 3 },
		"it has no name":                             func(tr *LabTrace) { tr.Functions[0].Function = "" },
		`impossible branch in function "f"`:          func(tr *LabTrace) { tr.Branches[0].Times = 11 },
		`impossible text "\x1b[2J"`:                  func(tr *LabTrace) { tr.Branches[0].Target = "\x1b[2J" },
		"impossible line -1":                         func(tr *LabTrace) { tr.Lines[0].Line = -1 },
		`impossible text "\a"`:                       func(tr *LabTrace) { tr.Lines[0].Text = "\a" },
		`impossible instruction in function "f"`:     func(tr *LabTrace) { tr.Annotated[0].Times = 11 },
		"impossible chain of 0 calls":                func(tr *LabTrace) { tr.Stacks[0].Frames = nil },
		"6 instructions of a trace are in no chain":  func(tr *LabTrace) { tr.Stacks = tr.Stacks[:1] },
		`impossible count of a chain of calls in "g`: func(tr *LabTrace) { tr.Stacks[1].Executed = 7 },
		"a trace of too many functions":              func(tr *LabTrace) { tr.Lines = make([]LabTraceLine, MaxRows+1) },
	} {
		tr := goodTrace()
		change(tr)
		if err := row(tr).Check(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := (&LabRow{Name: "k", CallsPerPacket: &calls, Trace: goodTrace()}).Check(); err == nil {
		t.Error("a trace of a row without a count of instructions")
	}
}

func TestLabTraceChangeCheck(t *testing.T) {
	t.Parallel()
	good := func() *LabTraceChange {
		return &LabTraceChange{Old: "a", New: "b", Was: 10, Is: 12.5, Difference: 2.5,
			Functions: []LabTraceDifference{{Name: "f", Old: 1, New: 4, Difference: 3}, {Name: "g", Was: "h", Old: 1, New: 0.5, Difference: -0.5}},
			Stages:    []LabTraceDifference{{Name: "receive", Old: 10, New: 12.5, Difference: 2.5}}}
	}
	if err := good().check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(c *LabTraceChange){
		"add up to 3.5, not to 2.5":        func(c *LabTraceChange) { c.Functions[1] = LabTraceDifference{Name: "g", New: 0.5, Difference: 0.5} },
		`impossible difference of "f"`:     func(c *LabTraceChange) { c.Functions[0].Difference = 2 },
		`impossible difference of "g"`:     func(c *LabTraceChange) { c.Functions[1].Old = -1 },
		"a difference of too many":         func(c *LabTraceChange) { c.Same = -1 },
		`impossible text "\n"`:             func(c *LabTraceChange) { c.Old = "\n" },
		`impossible difference of ""`:      func(c *LabTraceChange) { c.Stages[0].Name = "" },
		`impossible text "\x1b[2J"`:        func(c *LabTraceChange) { c.Functions[1].Was = "\x1b[2J" },
		"differences of functions add up ": func(c *LabTraceChange) { c.Functions = nil },
	} {
		c := good()
		change(c)
		if err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A trace has the branches that kprobes missed, and that of the time stamp, which is no packet's.
func TestBranches(t *testing.T) {
	t.Parallel()
	calls := 0.125
	row := LabRow{CallsPerPacket: &calls, Sites: []LabSite{{Function: "bq_xmit_all", Target: "veth_ndo_xdp_xmit", PerPacket: 0.125}}}
	xmit, action := LabBranch{"bq_xmit_all", "veth_ndo_xdp_xmit"}, LabBranch{"handle_softirqs", "net_rx_action"}
	if got := row.Branches(); len(got) != 1 || got[xmit] != 0.125 {
		t.Errorf("of kprobes: %v", got)
	}
	row.Trace = &LabTrace{Packets: 128, Branches: []LabTraceBranch{{Function: xmit.Function, Target: xmit.Target, Offset: 8, Times: 8},
		{Function: xmit.Function, Target: xmit.Target, Offset: 16, Times: 8}, {Function: action.Function, Target: action.Target, Times: 6},
		{Function: StampFunction, Target: "read_tsc", Times: 1}}}
	if got := row.Branches(); len(got) != 2 || got[xmit] != 0.125 || got[action] != 0.046875 {
		t.Errorf("of a trace: %v", got)
	}
	row.CallsPerPacket = nil
	if got := row.Branches(); got != nil {
		t.Errorf("of what was not counted: %v", got)
	}
}
