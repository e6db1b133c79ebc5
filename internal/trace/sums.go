package trace

import (
	"cmp"
	"context"
	"slices"
)

// Function is what a function executes in one stage.
type Function struct {
	Name, Stage string
	// Own are the instructions of the function itself, With those and what it calls and
	// jumps to.
	Own, With uint64
}

// Stack is a chain of calls with the instructions of its innermost function.
type Stack struct {
	Frames []string // the outermost first
	Stage  string
	// Own are its instructions, Entered is how often its first one was executed.
	Own, Entered uint64
}

// StageOf is the stage of a chain of calls, the innermost function first; sink is set in a
// poll that ran the sink.
type StageOf func(frames []string, sink bool) string

// Functions sums up the tree by function and stage, the most instructions first: the sum of
// all Own is [Tree.Instructions]. Stacks are the nodes that executed something. It ends with ctx.
func (t *Tree) Functions(ctx context.Context, stageOf StageOf) (functions []Function, stacks []Stack, err error) {
	type key struct{ name, stage string }
	sums := make(map[key]*Function)
	stages := make([]string, len(t.Nodes))
	for i := range t.Nodes {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		var frames []string
		for at := i; at >= 0; at = t.Nodes[at].Parent {
			frames = append(frames, t.Nodes[at].Function)
		}
		stages[i] = stageOf(frames, t.Nodes[i].Sink)
		seen := make(map[key]bool)
		for at := i; at >= 0; at = t.Nodes[at].Parent {
			k := key{t.Nodes[at].Function, stages[at]}
			if sums[k] == nil {
				sums[k] = &Function{Name: k.name, Stage: k.stage}
			}
			if at == i {
				sums[k].Own += t.Nodes[i].Own
			}
			if !seen[k] { // a recursion counts once
				sums[k].With += t.Nodes[i].Own
				seen[k] = true
			}
		}
		if t.Nodes[i].Own > 0 {
			slices.Reverse(frames)
			stacks = append(stacks, Stack{frames, stages[i], t.Nodes[i].Own, t.Nodes[i].Entered})
		}
	}
	for _, f := range sums {
		functions = append(functions, *f)
	}
	slices.SortFunc(functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(b.Own, a.Own), cmp.Compare(b.With, a.With), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Stage, b.Stage))
	})
	slices.SortFunc(stacks, func(a, b Stack) int {
		return cmp.Or(cmp.Compare(b.Own, a.Own), slices.Compare(a.Frames, b.Frames), cmp.Compare(a.Stage, b.Stage))
	})
	return functions, stacks, nil
}
