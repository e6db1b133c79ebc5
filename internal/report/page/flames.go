package page

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// maxFlames is the most that flame graphs of a page may take, in bytes.
const maxFlames = 900 << 10

// flameBlocks are the differential flame graph of two profiles of one thing, and the
// flame graph of each profile with stacks; only the first block is open.
func (v *viewer) flameBlocks() []block {
	if !v.draw {
		return nil
	}
	var profiles []*record.Saved
	for _, s := range v.profiles() {
		if len(s.Stages().Stacks) > 0 {
			profiles = append(profiles, s)
		}
	}
	if len(profiles) == 0 {
		return nil
	}
	most := maxFlames / (2*len(profiles) + 2)
	var out []block
	if old, new := twoProfiles(profiles); old != nil {
		out = v.addFlames(out, v.flameDifferenceBlock(old, new, most))
	}
	for _, s := range profiles {
		out = v.addFlames(out, v.flameBlock(s, most))
	}
	return out
}

// addFlames adds a block that has a figure.
func (v *viewer) addFlames(blocks []block, b block) []block {
	if b.Figure == nil {
		return blocks
	}
	b.Folded = len(blocks) > 0
	return append(blocks, b)
}

// twoProfiles are the first and the last of the profiles that are of the same thing, if
// there are two: what a differential graph is of.
func twoProfiles(profiles []*record.Saved) (old, new *record.Saved) {
	first := make(map[string]*record.Saved)
	for _, s := range profiles {
		of := profiled(s)
		if first[of] == nil {
			first[of] = s
		} else if old == nil || first[of] == old {
			old, new = first[of], s
		}
	}
	return old, new
}

// flameBlock is the flame graph of one profile.
func (v *viewer) flameBlock(s *record.Saved, most int) block {
	p := s.Stages()
	b := block{Heading: cells.Join(": ", v.heading(s), profiled(s))}
	tree, err := newFlameTree(v.ctx, p, indirectCallsOf(p, v.sitesFor(s)))
	if err != nil {
		v.fail(err)
		return b
	}
	caption := "Width is ns a packet, height is calls, a color is the stage of the function, ◆ marks what an indirect " +
		"call enters."
	b.Figure = v.flameFigure(newFlameGraph(tree, sampledHow(p)), "Flame graph of "+profiled(s), most,
		cells.Join(" ", caption, tree.leftOut()))
	return b
}

// flameDifferenceBlock is the differential flame graph of two profiles.
func (v *viewer) flameDifferenceBlock(old, new *record.Saved, most int) block {
	b := block{Heading: fmt.Sprintf("What changed from %s to %s: %s", v.labels[old], v.labels[new], profiled(new))}
	g, err := flameDifference(v.ctx, old.Stages(), new.Stages(), v.sitesFor(new))
	if err != nil {
		v.fail(err)
		return b
	}
	b.Figure = v.flameFigure(g, b.Heading, most, "Red functions take more ns a packet themselves in "+v.labels[new]+
		", blue ones less; the numbers say how much. Width is the mean of both. unthunk compare says which stages "+
		"differ by more than noise.")
	return b
}

// flameFigure is a graph in two widths, nil when there is no room for it.
func (v *viewer) flameFigure(g *flameGraph, title string, most int, caption string) *figure {
	fig := &figure{Caption: caption, Broad: true}
	id := v.id()
	var err error
	if fig.Wide, err = g.onPage(v.ctx, title, id, most); err != nil {
		v.fail(err)
		return nil
	}
	if fig.Narrow, err = g.narrowed().onPage(v.ctx, title, id, most); err != nil {
		v.fail(err)
		return nil
	}
	if fig.Wide == "" {
		return nil
	}
	return fig
}
