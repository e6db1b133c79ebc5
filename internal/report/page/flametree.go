package page

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// flameFrame is a function with what it calls.
type flameFrame struct {
	name string
	at   flameStage
	// indirect is set when an indirect branch enters it, or it is a thunk.
	indirect bool
	// width is how much of the graph the frame takes, in ns a packet.
	width float64
	// ns is the time of the function and of what it calls, own that of itself, samples
	// those of ns: in a differential graph of the new profile.
	ns, own float64
	samples int
	// old and oldOwn are ns and own of the old profile, 0 without one.
	old, oldOwn float64
	// under are the functions that are not drawn beneath, the outermost first: each calls
	// just the next and takes no time itself.
	under    []string
	children []*flameFrame
	// index has the children of a frame that has more than a few: a map takes more than all else.
	index map[flameKey]*flameFrame
}

const (
	// maxFlameFrames is the most frames of a graph: that of a profile of this machine has 3000.
	// A record of 10 MB may have a million, which take 200 bytes each.
	maxFlameFrames = 500_000
	// unindexed is how many children are looked through one by one.
	unindexed = 8
)

var errFlameFrames = fmt.Errorf("the call chains have more than %d frames", maxFlameFrames)

// flameKey parts the functions that one calls. The polls of the redirect and of the sink
// have the same names.
type flameKey struct {
	name string
	sink bool
}

// flameTree is the stacks of one profile, or of two that are compared.
type flameTree struct {
	root *flameFrame
	// stages are ns by stage of what is in the graph, left those of what is not: samples
	// that are no packet's. In a differential graph both are of the new profile.
	stages, left map[string]float64
	// frames is how many there are.
	frames int
}

// indirectCalls are the functions that an indirect branch of a function was seen to call,
// by the caller's name.
type indirectCalls map[string]map[string]bool

func (c indirectCalls) add(caller string, targets []string) {
	if c[caller] == nil {
		c[caller] = make(map[string]bool)
	}
	for _, name := range targets {
		c[caller][name] = true
	}
}

// indirectCallsOf are those that samples of a profile, and xray on the same kernel, saw.
func indirectCallsOf(prof *record.Profile, found []record.SiteRow) indirectCalls {
	c := make(indirectCalls)
	if prof.Tax != nil {
		for i := range prof.Tax.Sites {
			c.add(prof.Tax.Sites[i].Function, prof.Tax.Sites[i].Targets)
		}
	}
	for i := range found {
		c.add(found[i].Function, found[i].Targets)
	}
	return c
}

// isThunk tells whether a function is an indirect thunk of the kernel.
func isThunk(name string) bool {
	return strings.HasPrefix(name, "__x86_indirect_") || strings.HasPrefix(name, "__pi___x86_indirect_")
}

// newFlameTree is the tree of a profile. What is in no packet's time is left out.
func newFlameTree(ctx context.Context, prof *record.Profile, calls indirectCalls) (*flameTree, error) {
	t := emptyFlameTree()
	err := t.addStacks(ctx, prof, calls, func(f *flameFrame, s *record.ProfileStack, last bool) {
		f.width += s.Ns
		f.addNew(s, last)
	})
	t.root.compress()
	return t, err
}

// newFlameDifference is the tree of two profiles, as wide as the mean of both.
func newFlameDifference(ctx context.Context, old, new *record.Profile, calls indirectCalls) (*flameTree, error) {
	t := emptyFlameTree()
	err := t.addStacks(ctx, old, calls, func(f *flameFrame, s *record.ProfileStack, last bool) {
		f.width += s.Ns / 2
		f.old += s.Ns
		if last {
			f.oldOwn += s.Ns
		}
	})
	if err != nil {
		return nil, err
	}
	clear(t.stages)
	clear(t.left)
	err = t.addStacks(ctx, new, calls, func(f *flameFrame, s *record.ProfileStack, last bool) {
		f.width += s.Ns / 2
		f.addNew(s, last)
	})
	t.root.compress()
	return t, err
}

func emptyFlameTree() *flameTree {
	return &flameTree{root: &flameFrame{name: "all"}, stages: make(map[string]float64), left: make(map[string]float64)}
}

func (f *flameFrame) addNew(s *record.ProfileStack, last bool) {
	f.ns += s.Ns
	f.samples += s.Samples
	if last {
		f.own += s.Ns
	}
}

// addStacks adds the stacks of a profile; add is called for each frame of each, last for
// the innermost.
func (t *flameTree) addStacks(ctx context.Context, prof *record.Profile, calls indirectCalls,
	add func(f *flameFrame, s *record.ProfileStack, last bool)) error {
	for i := range prof.Stacks {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		s := &prof.Stacks[i]
		if functions.Stage(s.Stage).Group() == functions.GroupRest {
			t.left[s.Stage] += s.Ns
			continue
		}
		t.stages[s.Stage] += s.Ns
		f := t.root
		add(f, s, false)
		for i, name := range s.Frames {
			f = t.child(f, name, s.Stage == string(functions.StageSink), calls)
			if t.frames > maxFlameFrames {
				return errFlameFrames
			}
			add(f, s, i == len(s.Frames)-1)
		}
	}
	return nil
}

// child is the function of that name that f calls.
func (t *flameTree) child(f *flameFrame, name string, sink bool, calls indirectCalls) *flameFrame {
	at := f.at.of(name, sink)
	key := flameKey{name, at.base == inSink}
	if c := f.find(key); c != nil {
		return c
	}
	c := &flameFrame{name: name, at: at, indirect: isThunk(name) || calls[f.name][name]}
	f.children = append(f.children, c)
	if f.index != nil {
		f.index[key] = c
	} else if len(f.children) > unindexed {
		f.index = make(map[flameKey]*flameFrame)
		for _, c := range f.children {
			f.index[c.key()] = c
		}
	}
	t.frames++
	return c
}

func (f *flameFrame) key() flameKey { return flameKey{f.name, f.at.base == inSink} }

// find is the child of that key; nil when there is none.
func (f *flameFrame) find(key flameKey) *flameFrame {
	if f.index != nil {
		return f.index[key]
	}
	for _, c := range f.children {
		if c.key() == key {
			return c
		}
	}
	return nil
}

// compress leaves out functions outside of all stages that do no more than call one
// other: the way from a system call to the packets takes six rows.
func (f *flameFrame) compress() {
	for i, c := range f.children {
		var under []string
		for c.at.base == outside && len(c.children) == 1 && c.own == 0 && c.oldOwn == 0 {
			under = append(under, c.name)
			c = c.children[0]
		}
		c.under = under
		f.children[i] = c
		c.compress()
	}
	slices.SortStableFunc(f.children, func(a, b *flameFrame) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.at.base, b.at.base))
	})
}

// depth is how many rows the frame and those above it take, of frames that are at least
// least wide.
func (f *flameFrame) depth(least float64) int {
	most := 0
	for _, c := range f.children {
		if c.width >= least {
			most = max(most, c.depth(least))
		}
	}
	return most + 1
}

// onPath is the ns of a frame that are on the redirect path.
func (f *flameFrame) onPath() float64 {
	sum := 0.0
	if f.at.stage.OnPath() {
		sum = f.width
		for _, c := range f.children {
			sum -= c.width
		}
	}
	for _, c := range f.children {
		sum += c.onPath()
	}
	return sum
}

// redirect is the innermost frame that has nearly all of the redirect path: the poll. It
// is f where the path is in several.
func (f *flameFrame) redirect() *flameFrame {
	const nearly = 0.95
	whole := f.onPath()
	if whole <= 0 {
		return f
	}
	for {
		i := slices.IndexFunc(f.children, func(c *flameFrame) bool { return c.onPath() >= nearly*whole })
		if i < 0 || f.at.base == inPoll {
			return f
		}
		f = f.children[i]
	}
}

// stagesByNs are the stages in a graph, the largest first.
func (t *flameTree) stagesByNs() []string {
	return slices.SortedFunc(maps.Keys(t.stages), func(a, b string) int {
		return cmp.Or(cmp.Compare(t.stages[b], t.stages[a]), strings.Compare(a, b))
	})
}

// leftOut says which samples are not in the graph; empty when all are.
func (t *flameTree) leftOut() string {
	var said []string
	for _, stage := range slices.Sorted(maps.Keys(t.left)) {
		if t.left[stage] >= 0.005 {
			said = append(said, cells.Clean(stage)+" "+stat.Number(t.left[stage]))
		}
	}
	if len(said) == 0 {
		return ""
	}
	return "Not drawn, as it is no packet's: " + strings.Join(said, ", ") + " ns a packet."
}
