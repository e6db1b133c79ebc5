package page

import "github.com/unthunk/unthunk/internal/record"

// maxFlames is the most that flame graphs of a page may take, in bytes.
const maxFlames = 900 << 10

// flameBlocks are the flame graphs of profiles with stacks.
func (v *viewer) flameBlocks() []block {
	if !v.draw {
		return nil
	}
	var profiles []*record.Saved
	for _, s := range v.src.Records {
		if p := s.Stages(); p != nil && len(p.Stacks) > 0 {
			profiles = append(profiles, s)
		}
	}
	var out []block
	for _, s := range profiles {
		svg := flameOnPage(s.Stages(), profiled(s), v.id(), maxFlames/len(profiles))
		if svg == "" {
			continue
		}
		out = append(out, block{Heading: v.heading(s), Figure: &figure{
			Wide: svg, Broad: true,
			Caption: "Width is ns a packet, height is calls, colors are stages, which each frame names. A click on " +
				"a frame fills the width with it. The functions that take most are in a table above.",
		}})
	}
	return out
}
