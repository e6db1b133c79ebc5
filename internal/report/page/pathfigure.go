package page

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// pathFigure is the packet's path from top to bottom. The strip on top is one packet,
// stage by stage, as long as its ns; a diamond is an indirect branch.
func pathFigure(id, title string, stages []pathStage, packet *stat.Quantity) *figure {
	timed := packet != nil && packet.Median > 0
	longest := 0.0
	branches := 0
	for _, s := range stages {
		longest = max(longest, cells.Value(s.ns))
		branches += len(s.sites)
	}
	desc := fmt.Sprintf("%d stages from top to bottom", len(stages))
	var said []string
	for _, s := range stages {
		if s.ns != nil {
			said = append(said, fmt.Sprintf("%s %s ns", s.name, cells.Number(s.ns.Median)))
		}
	}
	if len(said) > 0 {
		desc += ": " + strings.Join(said, ", ")
	}
	desc += fmt.Sprintf(". %d indirect branches are marked. The table beneath says the same.", branches)
	caption := "The packet’s path, top to bottom. ◆ is an indirect branch."
	if timed {
		caption = "One packet, stage by stage: filled ● the redirect path, outlined □ what makes and takes the packets here and is another machine with NICs, hatched ○ what is beside the path. Bars are ns a packet with 95 % intervals; ◆ is an indirect branch, with how often it runs and what it takes."
	}
	return draws(id, title, desc, caption, func(d *drawing) {
		y := 0.0
		if timed {
			y = d.strip(stages, packet)
		}
		d.stages(stages, packet, longest, y+14, timed)
	})
}

// barClass is the look of a stage's bar: filled for the redirect path, outlined for
// what other machines do for a NIC, hatched for what is beside the path.
func barClass(name string) string {
	switch record.PartOf(name) {
	case record.PartPath:
		return "bar"
	case record.PartRig:
		return "bar rig"
	}
	return "bar side"
}

// strip is the packet as one bar. It returns where it ends.
func (d *drawing) strip(stages []pathStage, packet *stat.Quantity) float64 {
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
		if label := s.name; w > charSans*float64(len(label))+8 {
			class := "mid onbar"
			if !onPath(s.name) || record.PartOf(s.name) == record.PartRig {
				class = "mid"
			}
			if record.PartOf(s.name) == record.PartAround { // hatched
				d.rect("paper", x+w/2-charSans*float64(len(label))/2-2, top+6, charSans*float64(len(label))+4, 14)
			}
			d.text(class, x+w/2, top+17, label)
		}
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

// stages are the rows below the strip: the spine on the left, which the packet goes
// down, and a bar for each stage.
func (d *drawing) stages(stages []pathStage, packet *stat.Quantity, longest, y float64, timed bool) {
	spine, left, right := 128.0, 150.0, d.width-176
	if !d.wide() {
		spine, left, right = 7, 22, d.width-70
	}
	scale := axis{0, max(longest*1.15, 1e-9), left, right}
	lastOnPath := -1
	for i, s := range stages {
		if onPath(s.name) {
			lastOnPath = i
		}
	}
	from := 0.0
	type mark struct{ x, y float64 }
	var marks []mark // drawn last, on top of the spine
	for i, s := range stages {
		if i > 0 && lastOnPath == i-1 {
			y += 12
			d.text("soft", map[bool]float64{true: left, false: 0}[d.wide()], y+12, "beside the path")
			y += 20
		}
		mid := y + 13
		if i > 0 && i <= lastOnPath {
			d.arrow("spine fill", spine, mid-6)
			d.line("spine", spine, from, spine, mid-8)
		}
		from = mid + 6
		end := y + 26
		if d.wide() {
			d.fit("strong end", spine-16, mid+4, spine-16, s.name)
		} else {
			d.fit("strong", left, mid+4, right-left, s.name)
		}
		if s.ns != nil && timed {
			value, around := cells.Quantity(s.ns)
			share := cells.Percent(s.ns, packet)
			bar := mid - 6
			if !d.wide() {
				bar = y + 22
				d.text("end", d.width, mid+4, value+" ns "+share)
				end = bar + 16
			}
			d.rect(barClass(s.name), left, bar, scale.x(max(s.ns.Median, 0))-left, 12)
			if !math.IsNaN(s.ns.Low) && s.ns.High > 0 {
				d.line("whisker", scale.x(max(s.ns.Low, 0)), bar+6, scale.x(s.ns.High), bar+6)
			}
			if d.wide() {
				d.text("end", d.width-128, mid+4, value)
				d.text("soft", d.width-122, mid+4, around)
				d.text("end", d.width, mid+4, share)
			}
		}
		for _, site := range s.sites {
			end += 2
			marks = append(marks, mark{spine, end + 8})
			room := d.width - left
			if d.wide() {
				room -= 180
				d.text("soft end", d.width, end+12, cells.Join(" · ", site.per, site.ns))
			}
			d.fit("mono", left, end+12, room, site.what())
			end += 17
			if !d.wide() {
				d.fit("soft", left, end+10, d.width-left, cells.Join(" · ", site.per, site.ns))
				end += 15
			}
		}
		if len(s.sites) > 0 && i <= lastOnPath {
			if i == lastOnPath {
				d.line("spine", spine, from, spine, marks[len(marks)-1].y)
			}
			end += 4
		}
		switch record.PartOf(s.name) {
		case record.PartPath:
			d.circle("node", spine, mid, 5)
		case record.PartRig:
			d.square("node open", spine, mid, 4.5)
		default:
			d.circle("node open", spine, mid, 4.5)
		}
		y = end + 2
	}
	for _, m := range marks {
		d.diamond("mark", m.x, m.y, 5.5)
	}
	d.height = y + 4
}
