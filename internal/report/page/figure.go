package page

import (
	"html/template"
	"math"

	"github.com/unthunk/unthunk/internal/stat"
)

// figure is a drawing in two widths. What it shows is in a table beside it too.
type figure struct {
	Wide, Narrow template.HTML
	// Caption is a sentence or a few.
	Caption string
	// Broad is set for one that takes more width than text, where there is some.
	Broad bool
}

// newFigure makes the two drawings of a figure; f sets the height.
func newFigure(id, title, desc, caption string, f func(d *drawing)) *figure {
	fig := &figure{Caption: caption}
	for _, width := range []float64{wideDrawing, narrowDrawing} {
		d := &drawing{width: width}
		f(d)
		svg := d.svg(id, title, desc)
		if d.wide() {
			fig.Wide = svg
		} else {
			fig.Narrow = svg
		}
	}
	return fig
}

// Most rows that a plot has place for; a table beneath may have more.
const maxPlotted = 80

// interval draws a dot and its interval at y.
func (d *drawing) interval(a axis, y float64, q *stat.Quantity, class string, dot func(x, y float64)) {
	if q == nil || math.IsNaN(q.Median) {
		return
	}
	if !math.IsNaN(q.Low) && !math.IsNaN(q.High) {
		d.line("whisker "+class, a.x(q.Low), y, a.x(q.High), y)
	}
	dot(a.x(q.Median), y)
}
