package page

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// pathFigure is the packet's path from top to bottom. The strip on top is one packet,
// stage by stage, as long as its ns; a diamond is an indirect branch. Without packet
// stages have no times.
func pathFigure(id, title string, stages []pathStage, packet *stat.Quantity) *figure {
	timed := packet != nil && packet.Median > 0
	branches := 0
	var said []string
	for _, s := range stages {
		branches += len(s.sites)
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
		caption = "One packet, stage by stage: filled ● the redirect path, outlined □ what makes and takes the " +
			"packets here and is another machine with NICs, hatched ○ what is beside the path. Bars are ns a packet " +
			"with 95 % intervals; ◆ is an indirect branch, with how often it runs and what it takes."
	}
	return newFigure(id, title, desc, caption, func(d *drawing) {
		y := 0.0
		if timed {
			y = d.packetStrip(stages, packet)
		}
		d.stageRows(stages, packet, y+14)
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

// packetStrip draws the packet as one bar, stage beside stage. It returns the y at
// which the bar ends.
func (d *drawing) packetStrip(stages []pathStage, packet *stat.Quantity) float64 {
	total := 0.0
	for _, s := range stages {
		total += max(cells.Value(s.ns), 0)
	}
	if total <= 0 {
		return 0
	}
	const top, height = 26.0, 26.0
	x := 0.0
	for _, s := range stages {
		w := max(cells.Value(s.ns), 0) / total * d.width
		if w <= 0 {
			continue
		}
		d.rect(barClass(s.name)+" cut", x, top, w, height)
		d.stripLabel(s.name, x, top, w)
		for i := range s.sites {
			d.diamond("mark", x+w*float64(i+1)/float64(len(s.sites)+1), top-1, 5)
		}
		x += w
	}
	d.text("soft", 0, 14, "0")
	median, around := cells.Quantity(packet)
	d.text("end", d.width, 14, strings.TrimSuffix(fmt.Sprintf("%s ns a packet %s", median, around), " [?]"))
	return top + height
}

// stripLabel is a stage's name on its share of the strip, where there is room for it.
func (d *drawing) stripLabel(stage string, x, top, width float64) {
	length := charSans * float64(len(stage))
	if width <= length+8 {
		return
	}
	class := "mid"
	switch functions.Stage(stage).Group() {
	case functions.GroupPath:
		class = "mid onbar"
	case functions.GroupShared: // hatched
		d.rect("paper", x+width/2-length/2-2, top+6, length+4, 14)
	}
	d.text(class, x+width/2, top+17, stage)
}

// stageRows draws the rows of a path's stages.
type stageRows struct {
	*drawing
	// packet is nil where stages have no times.
	packet *stat.Quantity
	// spine is the x of the line that the packet goes down, left the x at which names
	// and bars begin.
	spine, left float64
	// ns are the bars.
	ns axis
	// from is the y from which the spine goes on.
	from float64
	// diamonds are the y of the indirect branches: they are drawn last, on top of the
	// spine.
	diamonds []float64
}

// stageRows draws a row for each stage from y on: the spine on the left, a bar, and a
// line for each indirect branch.
func (d *drawing) stageRows(stages []pathStage, packet *stat.Quantity, y float64) {
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
	if packet != nil && packet.Median > 0 {
		r.packet = packet
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
		if len(s.sites) > 0 && i <= lastOnSpine {
			if i == lastOnSpine {
				d.line("spine", r.spine, r.from, r.spine, r.diamonds[len(r.diamonds)-1])
			}
			y += 4
		}
		r.node(s.name, mid)
		y += 2
	}
	for _, y := range r.diamonds {
		d.diamond("mark", r.spine, y, 5.5)
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
	if s.ns != nil && r.packet != nil {
		value, around := cells.Quantity(s.ns)
		share := cells.Percent(s.ns, r.packet)
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
	for _, site := range s.sites {
		end = r.branch(site, end+2)
	}
	return end
}

// branch is the line of an indirect branch at y: what it calls, how often it runs and
// what it takes. It returns the y at which the line ends.
func (r *stageRows) branch(site pathSite, y float64) float64 {
	r.diamonds = append(r.diamonds, y+8)
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
