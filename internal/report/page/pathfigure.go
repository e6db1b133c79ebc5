package page

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// pathFigure is the packet's path from top to bottom. The strip on top is the redirect of
// one packet, stage by stage, as long as its ns; a diamond is an indirect branch. Stages
// of a path that is not timed have no times.
func pathFigure(id, title string, stages []pathStage, timed bool) *figure {
	branches, seen := 0, true
	var said []string
	for _, s := range stages {
		branches += len(s.marked())
		for _, site := range s.marked() {
			seen = seen && site.seen
		}
		if s.ns != nil {
			said = append(said, fmt.Sprintf("%s %s ns", s.name, stat.Number(s.ns.Median)))
		}
	}
	desc := fmt.Sprintf("%d stages from top to bottom", len(stages))
	if len(said) > 0 {
		desc += ": " + strings.Join(said, ", ")
	}
	desc += fmt.Sprintf(". %d indirect branches are marked. The table beneath says the same.", branches)
	caption := "The packet’s path, top to bottom. ◆ is an indirect branch."
	if timed {
		caption = "One redirect, stage by stage, in ns a packet with 95 % intervals: filled ● the redirect path, hatched " +
			"○ beside it, outlined □ what makes and takes the packets here."
		if branches > 0 {
			caption += " ◆ is an indirect branch, with how often it runs and what it takes."
		}
		if !seen {
			caption += " ◇ is one that xray finds and no sample saw."
		}
	}
	return newFigure(id, title, desc, caption, func(d *drawing) {
		y := 0.0
		if timed {
			y = d.packetStrip(stages)
		}
		d.stageRows(stages, timed, y+14)
	})
}

// barClass is the look of a stage's bar: filled for the redirect path, outlined for
// what other machines do for a NIC, hatched for what is beside the path.
func barClass(stage string) string {
	switch functions.Stage(stage).Group() {
	case functions.GroupPath:
		return "bar"
	case functions.GroupEnds:
		return "bar rig"
	}
	return "bar side"
}

// packetStrip draws the redirect of a packet as one bar, stage beside stage, first the
// path, then what is beside it. It returns the y at which the labels end.
func (d *drawing) packetStrip(stages []pathStage) float64 {
	total := redirectNs(stages).Median
	if total <= 0 {
		return 0
	}
	const top, height = 26.0, 26.0
	d.text("soft", 0, 14, "the redirect")
	d.text("end", d.width, 14, fmt.Sprintf("%s ns a packet", stat.Number(total)))
	x := 0.0
	var labels []stripLabel
	for _, group := range []functions.Group{functions.GroupPath, functions.GroupShared} {
		for _, s := range stages {
			w := max(cells.Value(s.ns), 0) / total * d.width
			if w <= 0 || functions.Stage(s.name).Group() != group {
				continue
			}
			d.rect(barClass(s.name)+" cut", x, top, w, height)
			if length := charSans * float64(len(s.name)); w > length+8 {
				d.nameInStrip(s.name, x+w/2, top+17, length)
			} else {
				labels = append(labels, stripLabel{name: s.name, at: x + w/2, width: length})
			}
			for i, site := range s.marked() {
				d.diamond(site.class(), x+w*float64(i+1)/float64(len(s.marked())+1), top-1, 5)
			}
			x += w
		}
	}
	return d.stripLabels(labels, top+height)
}

// nameInStrip is a stage's name on its share of the strip.
func (d *drawing) nameInStrip(stage string, x, y, length float64) {
	class := "mid onbar"
	if functions.Stage(stage).Group() != functions.GroupPath { // hatched
		class = "mid"
		d.rect("paper", x-length/2-2, y-11, length+4, 14)
	}
	d.text(class, x, y, stage)
}

// stripLabel is a stage's name that its share of the strip has no room for: it stands
// beneath.
type stripLabel struct {
	name      string
	at, width float64
	// x is where it begins, row how many rows beneath the strip.
	x   float64
	row int
}

// stripLabels draws labels beneath a strip that ends at y, with lines to their shares, in
// as many rows as they need. It returns the y at which they end.
func (d *drawing) stripLabels(labels []stripLabel, y float64) float64 {
	if len(labels) == 0 {
		return y
	}
	rows := 1
	for !placeLabels(labels, d.width, rows) && rows < 4 {
		rows++
	}
	const step = 15.0
	for _, l := range labels {
		bottom := y + 8 + step*float64(l.row)
		d.line("rule", l.at, y, min(max(l.at, l.x), l.x+l.width), bottom)
		d.text("", l.x, bottom+11, l.name)
	}
	return y + 10 + step*float64(rows)
}

// placeLabels puts labels into rows, each as near to its share as the others of its row
// let it. It returns false when they do not fit.
func placeLabels(labels []stripLabel, width float64, rows int) bool {
	const gap = 8
	fits := true
	for row := range rows {
		end := 0.0
		var of []*stripLabel
		for i := row; i < len(labels); i += rows {
			l := &labels[i]
			l.row, l.x = row, max(end, min(l.at-l.width/2, width-l.width))
			end = l.x + l.width + gap
			of = append(of, l)
		}
		limit := width
		for _, l := range slices.Backward(of) {
			l.x = min(l.x, limit-l.width)
			limit = l.x - gap
			fits = fits && l.x >= -0.5
		}
	}
	return fits
}

// class is the look of a branch's diamond: open where no sample saw it.
func (s pathSite) class() string {
	if s.seen {
		return "mark"
	}
	return "mark open"
}

// stageRows draws the rows of a path's stages.
type stageRows struct {
	*drawing
	// redirect is what shares are of, nil where stages have no times.
	redirect *stat.Quantity
	// spine is the x of the line that the packet goes down, left the x at which names
	// and bars begin.
	spine, left float64
	// ns are the bars.
	ns axis
	// from is the y from which the spine goes on.
	from float64
	// diamonds are the indirect branches: they are drawn last, on top of the spine.
	diamonds []pathDiamond
}

type pathDiamond struct {
	y     float64
	class string
}

// stageRows draws a row for each stage from y on: the spine on the left, a bar, and a
// line for each indirect branch.
func (d *drawing) stageRows(stages []pathStage, timed bool, y float64) {
	longest, lastOnSpine := 0.0, -1
	for i, s := range stages {
		longest = max(longest, cells.Value(s.ns))
		if onSpine(s.name) {
			lastOnSpine = i
		}
	}
	r := &stageRows{drawing: d, spine: 128, left: 150, ns: axis{high: max(longest*1.15, 1e-9), right: d.width - 176}}
	if !d.wide() {
		r.spine, r.left, r.ns.right = 7, 22, d.width-70
	}
	r.ns.left = r.left
	if timed {
		r.redirect = redirectNs(stages)
	}
	for i, s := range stages {
		if i > 0 && i == lastOnSpine+1 {
			x := 0.0
			if d.wide() {
				x = r.left
			}
			d.text("soft", x, y+24, "beside the path")
			y += 32
		}
		mid := y + 13
		if i > 0 && i <= lastOnSpine {
			d.arrow("spine fill", r.spine, mid-6)
			d.line("spine", r.spine, r.from, r.spine, mid-8)
		}
		r.from = mid + 6
		y = r.stage(s, y)
		if len(s.marked()) > 0 && i <= lastOnSpine {
			if i == lastOnSpine {
				d.line("spine", r.spine, r.from, r.spine, r.diamonds[len(r.diamonds)-1].y)
			}
			y += 4
		}
		r.node(s.name, mid)
		y += 2
	}
	for _, diamond := range r.diamonds {
		d.diamond(diamond.class, r.spine, diamond.y, 5.5)
	}
	d.height = y + 4
}

// stage draws a stage's name and bar at y, and its indirect branches beneath. It
// returns the y at which they end.
func (r *stageRows) stage(s pathStage, y float64) float64 {
	mid, end := y+13, y+26
	if r.wide() {
		r.fit("strong end", r.spine-16, mid+4, r.spine-16, s.name)
	} else {
		r.fit("strong", r.left, mid+4, r.ns.right-r.left, s.name)
	}
	if s.ns != nil && r.redirect != nil {
		value, around := cells.Quantity(s.ns)
		share := ""
		if functions.Stage(s.name).Group() != functions.GroupEnds {
			share = cells.Percent(s.ns, r.redirect)
		}
		bar := mid - 6
		if !r.wide() {
			bar = y + 22
			r.text("end", r.width, mid+4, value+" ns "+share)
			end = bar + 16
		}
		r.rect(barClass(s.name), r.left, bar, r.ns.x(max(s.ns.Median, 0))-r.left, 12)
		if !math.IsNaN(s.ns.Low) && s.ns.High > 0 {
			r.line("whisker", r.ns.x(max(s.ns.Low, 0)), bar+6, r.ns.x(s.ns.High), bar+6)
		}
		if r.wide() {
			r.text("end", r.width-128, mid+4, value)
			r.text("soft", r.width-122, mid+4, around)
			r.text("end", r.width, mid+4, share)
		}
	}
	for _, site := range s.marked() {
		end = r.branch(site, end+2)
	}
	return end
}

// branch is the line of an indirect branch at y: what it calls, how often it runs and
// what it takes. It returns the y at which the line ends.
func (r *stageRows) branch(site pathSite, y float64) float64 {
	r.diamonds = append(r.diamonds, pathDiamond{y + 8, site.class()})
	takes := cells.Join(" · ", site.per, site.ns)
	if r.wide() {
		r.text("soft end", r.width, y+12, takes)
		r.fit("mono", r.left, y+12, r.width-r.left-180, site.what())
		return y + 17
	}
	r.fit("mono", r.left, y+12, r.width-r.left, site.what())
	r.fit("soft", r.left, y+27, r.width-r.left, takes)
	return y + 32
}

// node marks a stage on the spine by its group.
func (r *stageRows) node(stage string, y float64) {
	switch functions.Stage(stage).Group() {
	case functions.GroupPath:
		r.circle("node", r.spine, y, 5)
	case functions.GroupEnds:
		r.square("node open", r.spine, y, 4.5)
	default:
		r.circle("node open", r.spine, y, 4.5)
	}
}
