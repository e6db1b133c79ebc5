package watch

import (
	"cmp"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/profile"
	"github.com/unthunk/unthunk/internal/record"
)

// stackTotal is how many samples a call chain had, and the time they stand for in ns.
type stackTotal struct {
	stage   functions.Stage
	samples int
	ns      float64
}

// chains are the call chains of a watch.
type chains struct {
	// stacks are by place, byName by the names of functions, the outermost first. pending are
	// those of the second under way, by place.
	pending, stacks map[*profile.Known]*stackTotal
	byName          map[string]*stackTotal
	// events and frames are samples of the second under way and the frames of their chains;
	// taken is how often the perf events came, of the whole watch.
	events, frames int
	taken          uint64
}

func newChains() chains {
	return chains{
		pending: make(map[*profile.Known]*stackTotal), stacks: make(map[*profile.Known]*stackTotal), byName: make(map[string]*stackTotal),
	}
}

// maxStacks is how many call chains a record has. Samples of more go to "[others]".
const maxStacks = 20_000

// addStack counts a sample's call chain in the second under way.
func (c *chains) addStack(known *profile.Known, stage functions.Stage, ns float64) {
	total := c.pending[known]
	if total == nil {
		total = &stackTotal{stage: stage}
		c.pending[known] = total
	}
	total.samples++
	total.ns += ns
}

// keepStacks ends a second whose packets count: those of others would make ns a packet too many.
func (c *chains) keepStacks() {
	for known, total := range c.pending {
		if at := c.stacks[known]; at != nil {
			at.samples, at.ns = at.samples+total.samples, at.ns+total.ns
		} else {
			c.stacks[known] = total
		}
	}
	clear(c.pending)
}

// foldStacks names what was gathered, so that what is kept does not grow with time.
func (c *chains) foldStacks() {
	for known, total := range c.stacks {
		var names []string
		for _, f := range slices.Backward(known.Frames) {
			names = append(names, cmp.Or(f.Function, "[unknown]"))
		}
		key := string(total.stage) + "\n" + strings.Join(names, "\n")
		at := c.byName[key]
		if at == nil {
			if len(c.byName) >= maxStacks {
				key = string(total.stage) + "\n[others]"
			}
			if at = c.byName[key]; at == nil {
				at = &stackTotal{stage: total.stage}
				c.byName[key] = at
			}
		}
		at.samples += total.samples
		at.ns += total.ns
	}
	clear(c.stacks)
}

// record are the call chains in ns a packet, the longest time first.
func (c *chains) record(packets uint64) []record.ProfileStack {
	c.foldStacks()
	out := []record.ProfileStack{}
	for key, total := range c.byName {
		frames := strings.Split(key, "\n")
		stack := record.ProfileStack{Frames: frames[1:], Stage: string(total.stage), Samples: total.samples}
		if packets > 0 {
			stack.Ns = total.ns / float64(packets)
		}
		out = append(out, stack)
	}
	slices.SortFunc(out, func(a, b record.ProfileStack) int {
		return cmp.Or(cmp.Compare(b.Ns, a.Ns), cmp.Compare(b.Samples, a.Samples), slices.Compare(a.Frames, b.Frames))
	})
	return out
}
