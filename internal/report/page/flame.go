package page

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math"
	"path/filepath"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// The script of a flame graph: a click on a frame fills the width with it, search
// marks frames, icicle turns the graph upside down. Without it the graph is a picture.
//
//go:embed flame.js
var flameScript string

// The style of a flame graph in a file of its own; page.css has that of one on a page.
//
//go:embed flame.css
var flameStyle string

// Sizes of the picture in pixels.
const (
	flameWide   = 1200.0
	flameMargin = 4.0
	flameRow    = 17.0
	flameChar   = 6.6 // of the font, about
	// flameLeast is the narrowest frame drawn.
	flameLeast = 0.3
	flameLine  = 16.0
)

// Flame writes a profile as a flame graph in SVG, the outermost functions at the
// bottom, as wide as their ns per packet. The file needs nothing else: no font, no link.
// Colors are stages, a diamond marks what an indirect branch enters. It ends with the
// error of ctx soon after ctx is done.
func Flame(ctx context.Context, w io.Writer, prof *record.Profile, name string) error {
	tree, err := newFlameTree(ctx, prof, indirectCallsOf(prof, nil))
	if err != nil {
		return fmt.Errorf("make flame graph: %w", err)
	}
	title := cells.Clean(name)
	if prof.Packet != nil {
		median, around := cells.Quantity(prof.Packet)
		title += fmt.Sprintf(": %s ns a packet %s", median, around)
	}
	return newFlameGraph(tree, sampledHow(prof)).file(ctx, w, title)
}

// SVG writes the flame graph of the one profile of a source, or the differential one of
// the two: red functions take more ns a packet in the second one, blue ones less. Of records
// of lab it is as [LabFlame], or, of more rows of several kernels, what a packet takes by kernel.
func SVG(ctx context.Context, w io.Writer, src Source) error {
	var profiles []*record.Saved
	var traced []*record.LabRow
	for _, s := range src.Records {
		traced = append(traced, tracedRows(s.Lab())...)
		if p := s.Stages(); p != nil && len(p.Stacks) > 0 {
			profiles = append(profiles, s)
		}
	}
	switch len(profiles) {
	case 0:
		if len(src.Kernels) > 0 && len(traced) != 1 && len(traced) != 2 {
			return kernelsFile(ctx, w, &src.Kernels[0])
		}
		if len(traced) > 0 {
			return LabFlame(ctx, w, traced)
		}
	case 1:
		return Flame(ctx, w, profiles[0].Stages(), profiled(profiles[0]))
	case 2:
		return flameDifferenceFile(ctx, w, profiles[0], profiles[1])
	}
	return fmt.Errorf("make flame graph: %s with call chains: it is of one profile, or of the difference of two",
		cells.Plural(len(profiles), "record"))
}

// flameDifferenceFile writes the differential flame graph of two profiles of one thing.
func flameDifferenceFile(ctx context.Context, w io.Writer, old, new *record.Saved) error {
	if a, b := profiled(old), profiled(new); a != b {
		return fmt.Errorf("make flame graph: one profile is of %s, the other of %s", a, b)
	}
	g, err := flameDifference(ctx, old.Stages(), new.Stages(), nil)
	if err != nil {
		return fmt.Errorf("make flame graph: %w", err)
	}
	return g.file(ctx, w, fmt.Sprintf("%s: from %s to %s", profiled(new), cells.Clean(filepath.Base(old.File)),
		cells.Clean(filepath.Base(new.File))))
}

// flameDifference is the differential graph of two profiles.
func flameDifference(ctx context.Context, old, new *record.Profile, found []record.SiteRow) (*flameGraph, error) {
	calls := indirectCallsOf(old, found)
	for caller, targets := range indirectCallsOf(new, nil) {
		for name := range targets {
			calls.add(caller, []string{name})
		}
	}
	tree, err := newFlameDifference(ctx, old, new, calls)
	if err != nil {
		return nil, err
	}
	g := newFlameGraph(tree, fmt.Sprintf("%d and %d samples of %s", old.Sampling.Samples, new.Sampling.Samples,
		cells.Clean(new.Sampling.Event)))
	g.differs = true
	g.most = tree.root.mostChange()
	return g, nil
}

// sampledHow says how many samples of what a profile has.
func sampledHow(p *record.Profile) string {
	return fmt.Sprintf("%d samples of %s", p.Sampling.Samples, cells.Clean(p.Sampling.Event))
}

// flameGraph is a flame graph under way.
type flameGraph struct {
	b    bytes.Buffer
	tree *flameTree
	root *flameFrame
	// sampled says how many samples of what the graph has.
	sampled string
	width   float64
	// lines are those that details of a frame have.
	lines int
	// head is where the frames begin, base the y of the lowest row.
	head, base float64
	// scale is pixels for a ns.
	scale float64
	// unit is what widths are of a packet.
	unit string
	// differs is set for two profiles; most is the most that the time of a function
	// itself differs.
	differs bool
	most    float64
	// frames are how many are drawn.
	frames int
	// room is the most bytes that b may have.
	room int
}

// maxFlameFile is the largest file of a flame graph in bytes.
const maxFlameFile = memory.MaxOutput / 2

var errFlameRoom = fmt.Errorf("it has more than %d MiB", maxFlameFile>>20)

func newFlameGraph(tree *flameTree, sampled string) *flameGraph {
	return &flameGraph{tree: tree, root: tree.root, sampled: sampled, width: flameWide, lines: 1, unit: "ns"}
}

// narrowed is the graph for a phone: of the poll that redirects alone, and less wide.
func (g *flameGraph) narrowed() *flameGraph {
	return &flameGraph{tree: g.tree, root: g.tree.root.redirect(), sampled: g.sampled, width: narrowDrawing, lines: 4,
		unit: g.unit, differs: g.differs, most: g.most}
}

// file writes the graph as a file of its own.
func (g *flameGraph) file(ctx context.Context, w io.Writer, title string) error {
	g.room = maxFlameFile
	height, err := g.draw(ctx, title, flameLeast)
	if err != nil {
		return fmt.Errorf("make flame graph: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="flame" width="100%%" `+
		`viewBox="0 0 %.0f %.0f" font-family="monospace" font-size="11" role="img" aria-labelledby="title">
<title id="title">%s</title>
<style>
%s</style>
<rect class="page" width="100%%" height="100%%"/>
`, g.width, height, escape(title), flameStyle)
	b.Write(g.b.Bytes())
	fmt.Fprintf(&b, "<script>//<![CDATA[\n%s//]]></script>\n</svg>\n", flameScript)
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write flame graph: %w", err)
	}
	return nil
}

// onPage is the graph for a page, of at most most bytes: frames that are too narrow for
// that are left out. It is empty when even the widest frames take more.
func (g *flameGraph) onPage(ctx context.Context, title, id string, most int) (template.HTML, error) {
	class := "wide"
	if g.width == narrowDrawing {
		class = "narrow"
	}
	id += class
	g.room = most
	for _, least := range []float64{flameLeast, 1, 3, 10, 40} {
		height, err := g.draw(ctx, "", least)
		if errors.Is(err, errFlameRoom) {
			continue
		}
		if err != nil {
			return "", err
		}
		svg := fmt.Sprintf(`<svg class="flame %s" viewBox="0 0 %.0f %.0f" font-family="monospace" font-size="11" `+
			`role="img" aria-labelledby="%st"><title id="%st">%s</title>%s</svg>`,
			class, g.width, height, id, id, escape(title), g.b.String())
		if len(svg) <= most {
			return template.HTML(svg), nil
		}
	}
	return "", nil
}

// draw draws title, legend, frames of at least least pixels, and the buttons that the
// script looks for. It returns the height of the picture.
func (g *flameGraph) draw(ctx context.Context, title string, least float64) (height float64, err error) {
	g.b.Reset()
	if g.root.width > 0 {
		g.scale = (g.width - 2*flameMargin) / g.root.width
	}
	y := 18.0
	g.buttons(y)
	if title != "" {
		g.text("title", flameMargin, y, fitFrame(title, (g.width-200)*11/15))
	}
	g.head = g.legend(y+20) + 10
	rows := 1
	if g.scale > 0 {
		rows = g.root.depth(least / g.scale)
	}
	g.base = g.head + float64(rows-1)*flameRow
	g.b.WriteString("<g>\n")
	if g.scale > 0 {
		err = g.frame(ctx, g.root, flameMargin, g.base, least)
	}
	g.b.WriteString("</g>\n")
	y = g.base + flameRow + 18
	fmt.Fprintf(&g.b, `<text class="details" x="%.0f" y="%.0f">`, flameMargin, y)
	said := []string{"Point at a frame to read its numbers, click it to zoom in."}
	if g.lines > 1 {
		said = []string{"Tap a frame to read its numbers and to", "zoom in; reset zooms out."}
	}
	for i := range g.lines {
		line := ""
		if i < len(said) {
			line = said[i]
		}
		fmt.Fprintf(&g.b, `<tspan x="%.0f" dy="%.0f">%s</tspan>`, flameMargin, flameLine*float64(min(i, 1)), line)
	}
	g.b.WriteString("</text>\n")
	y += flameLine * float64(g.lines)
	g.text("muted", flameMargin, y, g.sampled)
	return y + 8, err
}

// text writes as much of a line as fits.
func (g *flameGraph) text(class string, x, y float64, s string) {
	s = fitFrame(s, g.width-x)
	fmt.Fprintf(&g.b, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", class, x, y, escape(s))
}

// buttons writes search, icicle and reset.
func (g *flameGraph) buttons(y float64) {
	x := g.width - flameMargin
	for _, name := range []string{"reset", "icicle", "search"} {
		fmt.Fprintf(&g.b, "<text class=\"button %s\" x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\" tabindex=\"0\" "+
			"role=\"button\">%s</text>\n", name, x, y, name)
		x -= 62
	}
}

// frame writes a frame at x, y, and above it the frames that it calls, as far as they
// are at least least pixels wide.
func (g *flameGraph) frame(ctx context.Context, f *flameFrame, x, y, least float64) error {
	width := f.width * g.scale
	if width < least {
		return nil
	}
	if g.frames++; g.frames%1024 == 0 && ctx.Err() != nil {
		return ctx.Err()
	}
	if g.b.Len() > g.room {
		return errFlameRoom
	}
	label := g.label(f)
	fmt.Fprintf(&g.b, "<g class=\"f\" data-n=\"%s\" data-x=\"%.3f\" data-w=\"%.3f\"><title>%s</title>",
		escape(label), x, width, escape(g.details(f)))
	fmt.Fprintf(&g.b, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill=\"%s\"/>",
		x, y, width, flameRow-1, g.color(f))
	left := x + 3
	if f.indirect {
		fmt.Fprintf(&g.b, `<path class="mark" d="%s"/>`, flameMark(x, y, width))
		left += 10
	}
	fmt.Fprintf(&g.b, "<text x=\"%.2f\" y=\"%.1f\">%s</text></g>\n", left, y+flameRow-5,
		escape(fitFrame(label, x+width-left)))
	for _, c := range f.children {
		if err := g.frame(ctx, c, x, y-flameRow, least); err != nil {
			return err
		}
		x += c.width * g.scale
	}
	return nil
}

// flameMark is a diamond at the left of a frame.
func flameMark(x, y, width float64) string {
	return fmt.Sprintf("M%.2f %.1fl4 4l-4 4l-4 -4z", x+min(6, width/2), y+flameRow/2-4.5)
}

// label is what stands on a frame: its name, and how it changed.
func (g *flameGraph) label(f *flameFrame) string {
	name := cells.ShortName(cells.Clean(f.name))
	if d := f.own - f.oldOwn; g.differs && math.Abs(d) >= 0.05*g.most && g.most > 0 {
		name += " " + stat.Signed(d)
	}
	return name
}

// details say what a frame takes.
func (g *flameGraph) details(f *flameFrame) string {
	s := cells.ShortName(cells.Clean(f.name))
	if g.differs {
		s += fmt.Sprintf(": %s → %s %s a packet; the function itself %s → %s (%s)", stat.Number(f.old), stat.Number(f.ns), g.unit,
			stat.Number(f.oldOwn), stat.Number(f.own), stat.Signed(f.own-f.oldOwn))
	} else {
		s += fmt.Sprintf(": %s %s a packet, %s of itself", stat.Number(f.ns), g.unit, stat.Number(f.own))
		if f.samples > 0 {
			s += fmt.Sprintf(", %d samples", f.samples)
		}
		if whole := g.tree.root.ns; whole > 0 {
			s += fmt.Sprintf(", %.1f %% of what is drawn", 100*f.ns/whole)
		}
	}
	if f.at.stage != "" {
		s += ", stage " + string(f.at.stage)
	}
	if f.indirect {
		s += ", entered by an indirect call"
	}
	for i, name := range f.under {
		word := ", "
		if i == 0 {
			word = "; called through "
		}
		s += word + cells.ShortName(cells.Clean(name))
	}
	return s
}

// legend names the stages of the picture with their colors and ns, the largest first, in
// as many lines as that takes. It returns the y of the last.
func (g *flameGraph) legend(y float64) float64 {
	x := flameMargin
	entry := func(shape, text string) {
		width := 16 + flameChar*float64(utf8.RuneCountInString(text)) + 12
		if x > flameMargin && x+width > g.width {
			x, y = flameMargin, y+flameLine
		}
		if shape == "" {
			fmt.Fprintf(&g.b, `<path class="mark" d="%s"/>`, flameMark(x, y-12.5, 12))
		} else {
			fmt.Fprintf(&g.b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"11\" height=\"11\" fill=\"%s\"/>", x, y-9.5, shape)
		}
		g.text("key", x+15, y, text)
		x += width
	}
	entry("", "indirect call, thunk")
	if g.differs {
		for _, part := range []float64{-1, -0.5, 0, 0.5, 1} {
			entry(changeColor(part), stat.Signed(part*g.most)+" "+g.unit)
		}
	} else {
		for _, name := range g.tree.stagesByNs() {
			entry(flameColor(functions.Stage(name)), fmt.Sprintf("%s %s", cells.Clean(name), stat.Number(g.tree.stages[name])))
		}
	}
	return y
}

// color is that of the frame's stage, or of how it changed.
func (g *flameGraph) color(f *flameFrame) string {
	if !g.differs {
		return flameColor(f.at.stage)
	}
	if g.most <= 0 {
		return changeColor(0)
	}
	return changeColor((f.own - f.oldOwn) / g.most)
}

// changeColor is red for more and blue for less, the stronger the nearer part is to 1
// or to -1.
func changeColor(part float64) string {
	part = min(max(part, -1), 1)
	mix := func(from, to int) int { return from + int(math.Round(math.Abs(part)*float64(to-from))) }
	if part < 0 {
		return fmt.Sprintf("#%02x%02x%02x", mix(0xe9, 0x6a), mix(0xe6, 0xa6), mix(0xdf, 0xf5))
	}
	return fmt.Sprintf("#%02x%02x%02x", mix(0xe9, 0xff), mix(0xe6, 0x7b), mix(0xdf, 0x6b))
}

// mostChange is the most that the own time of a frame differs.
func (f *flameFrame) mostChange() float64 {
	most := math.Abs(f.own - f.oldOwn)
	for _, c := range f.children {
		most = max(most, c.mostChange())
	}
	return most
}

// fitFrame is as much of a name as fits into a frame.
func fitFrame(name string, width float64) string {
	room := int((width - 3) / flameChar)
	switch n := utf8.RuneCountInString(name); {
	case n <= room:
		return name
	case room < 3:
		return ""
	}
	return string([]rune(name)[:room-1]) + "…"
}
