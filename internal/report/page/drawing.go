package page

import (
	"encoding/xml"
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/report/cells"
)

// drawing is an SVG under way, in pixels. Strings get into it through clean and
// escape only.
type drawing struct {
	b      strings.Builder
	width  float64
	height float64
}

// Widths of the two drawings of a figure: one for pages that are wide enough, one
// for phones. The style sheet shows the one that fits.
const (
	wideDrawing   = 720
	narrowDrawing = 340
)

// wide tells the two drawings apart.
func (d *drawing) wide() bool { return d.width > narrowDrawing }

// Widths of a character of the page's fonts at 12 pixels, about.
const (
	charSans   = 6.9
	charMono   = 6.7
	charStrong = 7.8
)

func coord(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		x = 0
	}
	return strconv.FormatFloat(x, 'f', -1, 32)
}

func at(x float64) string { return coord(math.Round(10*x)/10 + 0) } // no -0

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&d.b, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`, class, at(x1), at(y1), at(x2), at(y2))
}

func (d *drawing) rect(class string, x, y, w, h float64) {
	fmt.Fprintf(&d.b, `<rect class="%s" x="%s" y="%s" width="%s" height="%s"/>`, class, at(x), at(y), at(max(w, 0)),
		at(h))
}

func (d *drawing) circle(class string, x, y, r float64) {
	fmt.Fprintf(&d.b, `<circle class="%s" cx="%s" cy="%s" r="%s"/>`, class, at(x), at(y), at(r))
}

func (d *drawing) square(class string, x, y, r float64) { d.rect(class, x-r, y-r, 2*r, 2*r) }

// diamond marks an indirect branch.
func (d *drawing) diamond(class string, x, y, r float64) {
	fmt.Fprintf(&d.b, `<path class="%s" d="M%s %sl%s %sl%s %sl%s %sz"/>`, class, at(x), at(y-r), at(r), at(r), at(-r),
		at(r), at(-r), at(-r))
}

// arrow is a head that points down to x, y.
func (d *drawing) arrow(class string, x, y float64) {
	fmt.Fprintf(&d.b, `<path class="%s" d="M%s %sl-4 -7h8z"/>`, class, at(x), at(y))
}

// text writes s at x, y, its baseline. class may name the font and the anchor:
// "end" and "mid", "mono", "soft", "strong".
func (d *drawing) text(class string, x, y float64, s string) {
	fmt.Fprintf(&d.b, `<text class="%s" x="%s" y="%s">%s</text>`, class, at(x), at(y), escape(cells.Clean(s)))
}

// fit writes as much of s as room has place for, all of it in a title.
func (d *drawing) fit(class string, x, y, room float64, s string) {
	char := charSans
	switch {
	case strings.Contains(class, "mono"):
		char = charMono
	case strings.Contains(class, "strong"):
		char = charStrong
	}
	s = cells.Clean(s)
	n := int(room / char)
	if utf8.RuneCountInString(s) <= n {
		d.text(class, x, y, s)
		return
	}
	cut := ""
	if n >= 2 {
		cut = string([]rune(s)[:n-1]) + "…"
	}
	fmt.Fprintf(&d.b, `<text class="%s" x="%s" y="%s"><title>%s</title>%s</text>`, class, at(x), at(y), escape(s),
		escape(cut))
}

// svg ends the drawing. title and desc are what it says in words; id tells it from
// others of the page.
func (d *drawing) svg(id, title, desc string) template.HTML {
	class, suffix := "wide", "w"
	if !d.wide() {
		class, suffix = "narrow", "n"
	}
	id += suffix
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="fig %s" viewBox="0 0 %s %s" width="%s" height="%s" role="img" `+
		`aria-labelledby="%st %sd"><title id="%st">%s</title><desc id="%sd">%s</desc>`,
		class, at(d.width), at(d.height), at(d.width), at(d.height), id, id, id, escape(cells.Clean(title)), id,
		escape(cells.Clean(desc)))
	b.WriteString(d.b.String())
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// escape makes text safe in XML, in attributes too.
func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}
