package page

import (
	"bytes"
	"fmt"
	"html/template"

	"github.com/unthunk/unthunk/internal/record"
)

// maxFlames is the most that flame graphs of a page may take, in bytes.
const maxFlames = 900 << 10

func (v *viewer) flames() []block {
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
		p := s.Stages()
		svg := flameInline(p, profiled(s), v.id(), maxFlames/len(profiles))
		if svg == "" {
			continue
		}
		out = append(out, block{Heading: v.heading(s), Figure: &figure{
			Wide: svg, Broad: true,
			Caption: "Width is ns a packet, height is calls, colors are stages, which each frame names. A click on a frame fills the width with it. The functions that take most are in a table above.",
		}})
	}
	return out
}

// flameInline is a flame graph for a page, of at most so many bytes: frames that are
// too narrow for that are left out. It is empty when none fits.
func flameInline(p *record.Profile, name, id string, most int) template.HTML {
	root := flameOf(p)
	height := root.height()
	for _, least := range []float64{flameLeast, 1, 3, 10, 40} {
		var b bytes.Buffer
		fmt.Fprintf(&b, `<svg class="flame" viewBox="0 0 %.0f %.0f" font-family="monospace" font-size="11" role="img" aria-labelledby="%st"><title id="%st">Flame graph of %s</title>`,
			flameWidth, height, id, id, escape(title(p, name)))
		root.body(&b, p, name, height, least)
		b.WriteString("</svg>")
		if b.Len() <= most {
			return template.HTML(b.String())
		}
	}
	return ""
}
