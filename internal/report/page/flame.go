package page

import (
	"bytes"
	_ "embed"
	"encoding/xml"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// The script of a flame graph: a click on a frame fills the width with it, search
// marks frames. Without it the picture stands still.
//
//go:embed flame.js
var flameScript string

// flame is a node of a flame graph.
type flame struct {
	name     string
	ns       float64
	samples  int
	stages   map[string]float64
	children []*flame
}

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
// bottom, as wide as their ns per packet. It stands alone: no font, no link. Colors
// are stages.
func Flame(w io.Writer, prof *record.Profile, name string) error {
	root := flameOf(prof)
	height := root.height()
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="flame" width="100%%" viewBox="0 0 %.0f %.0f" font-family="monospace" font-size="11" role="img" aria-labelledby="title">
<title id="title">%s</title>
<style>
svg{background:#fff;color:#111}text{fill:#111;pointer-events:none}rect.page{fill:#fff}.muted,.muted text{fill:#555}
g.f rect{stroke:#fff;stroke-width:.6}g.f:hover rect,g.hit rect{stroke:#000;stroke-width:1.6}g.f{cursor:pointer}.button{cursor:pointer;text-decoration:underline;pointer-events:all}
@media (prefers-color-scheme:dark){rect.page{fill:#16181d}svg{background:#16181d}text{fill:#eee}.muted{fill:#aaa}g.f text{fill:#111}g.f rect{stroke:#16181d}g.f:hover rect,g.hit rect{stroke:#fff}}
</style>
<rect class="page" width="100%%" height="100%%"/>
`, flameWidth, height, escape(title(prof, name)))
	root.body(&b, prof, name, height, flameLeast)
	fmt.Fprintf(&b, "<script>//<![CDATA[\n%s//]]></script>\n</svg>\n", flameScript)
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write flame graph: %w", err)
	}
	return nil
}

func flameOf(prof *record.Profile) *flame {
	root := &flame{name: "all", stages: make(map[string]float64)}
	for _, s := range prof.Stacks {
		root.add(s, s.Frames)
	}
	return root
}

func (f *flame) height() float64 { return flameHead + float64(f.depth())*flameRow + flameFoot }

// body writes title, legend, frames of at least so many pixels, and the buttons the
// script looks for.
func (f *flame) body(b *bytes.Buffer, prof *record.Profile, name string, height, least float64) {
	fmt.Fprintf(b, "<text x=\"%.0f\" y=\"20\" font-size=\"15\">%s</text>\n", flameMargin, escape(title(prof, name)))
	b.WriteString(legend(f))
	fmt.Fprintf(b, "<g>\n")
	if f.ns > 0 {
		scale := (flameWidth - 2*flameMargin) / f.ns
		f.draw(b, prof, flameMargin, scale, height-flameFoot-flameRow, least)
	}
	fmt.Fprintf(b, "</g>\n<text class=\"details\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", flameMargin, height-26, "Point at a frame, or click it to zoom.")
	fmt.Fprintf(b, "<text class=\"button search\" x=\"%.0f\" y=\"20\" text-anchor=\"end\" tabindex=\"0\" role=\"button\">search</text>\n", flameWidth-flameMargin-60)
	fmt.Fprintf(b, "<text class=\"button reset\" x=\"%.0f\" y=\"20\" text-anchor=\"end\" tabindex=\"0\" role=\"button\">reset</text>\n", flameWidth-flameMargin)
	fmt.Fprintf(b, "<text class=\"muted\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", flameMargin, height-10, escape(fmt.Sprintf("%d samples of %s; width is ns per packet, height is calls", prof.Sampling.Samples, cells.Clean(prof.Sampling.Event))))
}

func title(prof *record.Profile, name string) string {
	if prof.Packet == nil {
		return cells.Clean(name)
	}
	median, around := cells.Quantity(prof.Packet)
	return fmt.Sprintf("%s: %s ns a packet %s", cells.Clean(name), median, around)
}

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
		f.children = append(f.children, &flame{name: frames[0], stages: make(map[string]float64)})
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

// draw writes a frame at x, y and what it calls above it, frames of at least so many
// pixels.
func (f *flame) draw(b *bytes.Buffer, prof *record.Profile, x, scale, y, least float64) {
	width := f.ns * scale
	if width < least {
		return
	}
	name := cells.ShortName(cells.Clean(f.name))
	details := fmt.Sprintf("%s: %s ns a packet, %d samples, %s", name, cells.Number(f.ns), f.samples, f.stage())
	if prof.Packet != nil && prof.Packet.Median > 0 {
		details += fmt.Sprintf(", %.1f %% of the packet", 100*f.ns/prof.Packet.Median)
	}
	fmt.Fprintf(b, "<g class=\"f\" data-n=\"%s\" data-x=\"%.3f\" data-w=\"%.3f\"><title>%s</title><rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill=\"%s\"/>",
		escape(name), x, width, escape(details), x, y, width, flameRow-1, f.color())
	fmt.Fprintf(b, "<text x=\"%.2f\" y=\"%.1f\">%s</text></g>\n", x+3, y+flameRow-5, escape(fitting(name, width)))
	slices.SortStableFunc(f.children, func(a, b *flame) int { return strings.Compare(a.name, b.name) })
	for _, c := range f.children {
		c.draw(b, prof, x, scale, y-flameRow, least)
		x += c.ns * scale
	}
}

// fitting is as much of a name as fits into a frame.
func fitting(name string, width float64) string {
	room := int((width - 6) / flameChar)
	switch n := utf8.RuneCountInString(name); {
	case n <= room:
		return name
	case room < 3:
		return ""
	}
	return string([]rune(name)[:room-1]) + "…"
}

// color is that of the stage, lighter or darker by the name so that neighbours can be
// told apart.
func (f *flame) color() string {
	h := fnv.New32a()
	io.WriteString(h, f.name)
	hue, ok := flameColors[f.stage()]
	if !ok {
		hue = "0,0%"
	}
	return fmt.Sprintf("hsl(%s,%d%%)", hue, 66+h.Sum32()%14)
}

// legend names the stages of the picture with their colors.
func legend(root *flame) string {
	var names []string
	for name := range root.stages {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if root.stages[a] != root.stages[b] {
			if root.stages[a] > root.stages[b] {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	x := flameMargin
	for _, name := range names {
		text := fmt.Sprintf("%s %s", cells.Clean(name), cells.Number(root.stages[name]))
		f := flame{name: name, stages: map[string]float64{name: 1}}
		width := 16 + flameChar*float64(utf8.RuneCountInString(text)) + 12
		if x+width > flameWidth {
			break
		}
		fmt.Fprintf(&b, "<rect x=\"%.1f\" y=\"33\" width=\"11\" height=\"11\" fill=\"%s\"/><text x=\"%.1f\" y=\"43\">%s</text>\n", x, f.color(), x+15, escape(text))
		x += width
	}
	return b.String()
}

// escape makes text safe in XML, in attributes too.
func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}
