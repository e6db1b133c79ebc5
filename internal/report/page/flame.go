package page

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"hash/fnv"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// The script of a flame graph: a click on a frame fills the width with it, search
// marks frames. Without it the graph is a picture.
//
//go:embed flame.js
var flameScript string

// The style of a flame graph in a file of its own; page.css has that of one on a page.
//
//go:embed flame.css
var flameStyle string

// Sizes of the picture in pixels.
const (
	flameWidth  = 1200.0
	flameMargin = 10.0
	flameRow    = 17.0
	flameChar   = 6.6 // of the font, about
	flameHead   = 62.0
	flameFoot   = 48.0
	// flameLeast is the narrowest frame drawn.
	flameLeast = 0.3
)

// flameColors are hue and saturation by stage; stages are named too wherever they
// are meant.
var flameColors = map[string]string{
	"generator": "0,0%", "receive": "205,70%", "program": "130,45%", "redirect": "28,85%", "bulk-queue": "46,85%",
	"transmit": "14,70%", "completion": "190,50%", "return": "280,40%", "dma": "330,60%", "softirq": "230,45%",
	"locks": "355,65%", "sink": "170,35%", "stack": "85,45%", "observer": "300,15%",
}

// Flame writes a profile as a flame graph in SVG, the outermost functions at the
// bottom, as wide as their ns per packet. The file needs nothing else: no font, no link. Colors
// are stages.
func Flame(w io.Writer, prof *record.Profile, name string) error {
	g := newFlameGraph(prof, name)
	fmt.Fprintf(&g.b, `<svg xmlns="http://www.w3.org/2000/svg" class="flame" width="100%%" `+
		`viewBox="0 0 %.0f %.0f" font-family="monospace" font-size="11" role="img" aria-labelledby="title">
<title id="title">%s</title>
<style>
%s</style>
<rect class="page" width="100%%" height="100%%"/>
`, flameWidth, g.height, escape(g.title), flameStyle)
	g.write(flameLeast)
	fmt.Fprintf(&g.b, "<script>//<![CDATA[\n%s//]]></script>\n</svg>\n", flameScript)
	if _, err := w.Write(g.b.Bytes()); err != nil {
		return fmt.Errorf("write flame graph: %w", err)
	}
	return nil
}

// flameOnPage is a flame graph for a page, of at most most bytes: frames that are too
// narrow for that are left out. It is empty when even the widest frames take more.
func flameOnPage(prof *record.Profile, name, id string, most int) template.HTML {
	g := newFlameGraph(prof, name)
	for _, least := range []float64{flameLeast, 1, 3, 10, 40} {
		g.b.Reset()
		fmt.Fprintf(&g.b, `<svg class="flame" viewBox="0 0 %.0f %.0f" font-family="monospace" font-size="11" `+
			`role="img" aria-labelledby="%st"><title id="%st">Flame graph of %s</title>`,
			flameWidth, g.height, id, id, escape(g.title))
		g.write(least)
		g.b.WriteString("</svg>")
		if g.b.Len() <= most {
			return template.HTML(g.b.String())
		}
	}
	return ""
}

// flameGraph is a flame graph under way.
type flameGraph struct {
	b      bytes.Buffer
	prof   *record.Profile
	root   *flame
	title  string
	height float64
	// scale is pixels for a ns.
	scale float64
}

func newFlameGraph(prof *record.Profile, name string) *flameGraph {
	g := &flameGraph{prof: prof, root: newFlame("all"), title: cells.Clean(name)}
	if prof.Packet != nil {
		median, around := cells.Quantity(prof.Packet)
		g.title += fmt.Sprintf(": %s ns a packet %s", median, around)
	}
	for _, s := range prof.Stacks {
		g.root.add(s, s.Frames)
	}
	g.height = flameHead + float64(g.root.depth())*flameRow + flameFoot
	if g.root.ns > 0 {
		g.scale = (flameWidth - 2*flameMargin) / g.root.ns
	}
	return g
}

// write writes title, legend, frames of at least least pixels, and the buttons that the
// script looks for.
func (g *flameGraph) write(least float64) {
	fmt.Fprintf(&g.b, "<text x=\"%.0f\" y=\"20\" font-size=\"15\">%s</text>\n", flameMargin, escape(g.title))
	g.writeLegend()
	g.b.WriteString("<g>\n")
	if g.root.ns > 0 {
		g.writeFrame(g.root, flameMargin, g.height-flameFoot-flameRow, least)
	}
	fmt.Fprintf(&g.b, "</g>\n<text class=\"details\" x=\"%.0f\" y=\"%.0f\">Point at a frame, or click it to zoom."+
		"</text>\n",
		flameMargin, g.height-26)
	g.writeButton("search", flameWidth-flameMargin-60)
	g.writeButton("reset", flameWidth-flameMargin)
	sampled := fmt.Sprintf("%d samples of %s; width is ns per packet, height is calls",
		g.prof.Sampling.Samples, cells.Clean(g.prof.Sampling.Event))
	fmt.Fprintf(&g.b, "<text class=\"muted\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", flameMargin, g.height-10,
		escape(sampled))
}

// writeButton writes a button that ends at x.
func (g *flameGraph) writeButton(name string, x float64) {
	fmt.Fprintf(&g.b, "<text class=\"button %s\" x=\"%.0f\" y=\"20\" text-anchor=\"end\" tabindex=\"0\" "+
		"role=\"button\">%s</text>\n",
		name, x, name)
}

// writeFrame writes a frame at x, y, and above it the frames that it calls, as far as
// they are at least least pixels wide.
func (g *flameGraph) writeFrame(f *flame, x, y, least float64) {
	width := f.ns * g.scale
	if width < least {
		return
	}
	name := cells.ShortName(cells.Clean(f.name))
	details := fmt.Sprintf("%s: %s ns a packet, %d samples, %s", name, stat.Number(f.ns), f.samples, f.stage())
	if packet := g.prof.Packet; packet != nil && packet.Median > 0 {
		details += fmt.Sprintf(", %.1f %% of the packet", 100*f.ns/packet.Median)
	}
	fmt.Fprintf(&g.b, "<g class=\"f\" data-n=\"%s\" data-x=\"%.3f\" data-w=\"%.3f\"><title>%s</title>",
		escape(name), x, width, escape(details))
	fmt.Fprintf(&g.b, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill=\"%s\"/>",
		x, y, width, flameRow-1, flameColor(f.stage(), f.name))
	fmt.Fprintf(&g.b, "<text x=\"%.2f\" y=\"%.1f\">%s</text></g>\n", x+3, y+flameRow-5, escape(fitFrame(name, width)))
	slices.SortStableFunc(f.children, func(a, b *flame) int { return strings.Compare(a.name, b.name) })
	for _, c := range f.children {
		g.writeFrame(c, x, y-flameRow, least)
		x += c.ns * g.scale
	}
}

// writeLegend names the stages of the picture with their colors and ns, the largest
// first, as far as there is room.
func (g *flameGraph) writeLegend() {
	ns := g.root.stages
	names := slices.SortedFunc(maps.Keys(ns), func(a, b string) int {
		return cmp.Or(cmp.Compare(ns[b], ns[a]), strings.Compare(a, b))
	})
	x := flameMargin
	for _, name := range names {
		text := fmt.Sprintf("%s %s", cells.Clean(name), stat.Number(ns[name]))
		width := 16 + flameChar*float64(utf8.RuneCountInString(text)) + 12
		if x+width > flameWidth {
			break
		}
		fmt.Fprintf(&g.b, "<rect x=\"%.1f\" y=\"33\" width=\"11\" height=\"11\" fill=\"%s\"/>", x,
			flameColor(name, name))
		fmt.Fprintf(&g.b, "<text x=\"%.1f\" y=\"43\">%s</text>\n", x+15, escape(text))
		x += width
	}
}

// flameColor is that of the stage, lighter or darker by the function's name so that
// neighbors can be told apart.
func flameColor(stage, name string) string {
	h := fnv.New32a()
	io.WriteString(h, name)
	hue, ok := flameColors[stage]
	if !ok {
		hue = "0,0%"
	}
	return fmt.Sprintf("hsl(%s,%d%%)", hue, 66+h.Sum32()%14)
}

// fitFrame is as much of a name as fits into a frame.
func fitFrame(name string, width float64) string {
	room := int((width - 6) / flameChar)
	switch n := utf8.RuneCountInString(name); {
	case n <= room:
		return name
	case room < 3:
		return ""
	}
	return string([]rune(name)[:room-1]) + "…"
}

// flame is a function with what it calls.
type flame struct {
	name    string
	ns      float64
	samples int
	// stages are ns by stage.
	stages   map[string]float64
	children []*flame
}

func newFlame(name string) *flame { return &flame{name: name, stages: make(map[string]float64)} }

// add adds a stack of which frames are what this function calls.
func (f *flame) add(s record.ProfileStack, frames []string) {
	f.ns += s.Ns
	f.samples += s.Samples
	f.stages[s.Stage] += s.Ns
	if len(frames) == 0 {
		return
	}
	i := slices.IndexFunc(f.children, func(c *flame) bool { return c.name == frames[0] })
	if i < 0 {
		i = len(f.children)
		f.children = append(f.children, newFlame(frames[0]))
	}
	f.children[i].add(s, frames[1:])
}

func (f *flame) depth() int {
	most := 0
	for _, c := range f.children {
		most = max(most, c.depth())
	}
	return most + 1
}

// stage is where a frame takes most.
func (f *flame) stage() (best string) {
	for name, ns := range f.stages {
		if best == "" || ns > f.stages[best] || ns == f.stages[best] && name < best {
			best = name
		}
	}
	return best
}
