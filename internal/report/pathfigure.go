package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
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

// draws makes the two drawings of a figure; f sets the height.
func draws(id, title, desc, caption string, f func(d *drawing)) *figure {
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

// pathStage is a stage of the packet's path with the indirect branches in it.
type pathStage struct {
	name  string
	ns    *stat.Quantity // nil when no profile gave it a time
	sites []pathSite
}

// pathSite is an indirect branch on the path.
type pathSite struct {
	function string
	offset   uint64
	// calls is what is called, targets what that is now; either may be empty.
	calls, targets string
	// per is how often: "0.062 a packet", "per bulk", "per poll, maybe".
	per string
	// ns is what it takes of a packet, empty when not known.
	ns string
}

func (s pathSite) where() string { return fmt.Sprintf("%s+%#x", s.function, s.offset) }

// what is called, as far as it is known.
func (s pathSite) what() string {
	what := lastMember(s.calls)
	switch {
	case what == "" && s.targets == "":
		return s.where()
	case what == "":
		return s.targets
	case s.targets == "":
		return what
	}
	return what + " = " + s.targets
}

// lastMember is the last step of a chain of members, without its struct.
func lastMember(chain string) string {
	steps := strings.Split(chain, " → ")
	last := steps[len(steps)-1]
	if of, member, ok := strings.Cut(last, "."); ok && !strings.Contains(of, " ") {
		return member
	}
	return last
}

// pathOrder is the order in which a packet comes by the stages; others follow.
var pathOrder = []string{
	"generator", "receive", "program", "redirect", "bulk-queue", "dma", "transmit", "sink", "completion", "return", "page-pool",
	"softirq", "locks", "stack", "observer", "other", "idle", "unattributed",
}

// onPath are the stages a packet goes through one after the other.
func onPath(name string) bool {
	part := record.PartOf(name)
	return part == record.PartPath || part == record.PartRig
}

func sortStages(stages []pathStage) {
	rank := func(name string) int {
		if i := slices.Index(pathOrder, name); i >= 0 {
			return i
		}
		return len(pathOrder)
	}
	slices.SortStableFunc(stages, func(a, b pathStage) int { return rank(a.name) - rank(b.name) })
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

// pathFigure is the packet's path from top to bottom. The strip on top is one packet,
// stage by stage, as long as its ns; a diamond is an indirect branch.
func pathFigure(id, title string, stages []pathStage, packet *stat.Quantity) *figure {
	timed := packet != nil && packet.Median > 0
	longest := 0.0
	branches := 0
	for _, s := range stages {
		longest = max(longest, median(s.ns))
		branches += len(s.sites)
	}
	desc := fmt.Sprintf("%d stages from top to bottom", len(stages))
	var said []string
	for _, s := range stages {
		if s.ns != nil {
			said = append(said, fmt.Sprintf("%s %s ns", s.name, number(s.ns.Median)))
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

// strip is the packet as one bar. It returns where it ends.
func (d *drawing) strip(stages []pathStage, packet *stat.Quantity) float64 {
	total := 0.0
	for _, s := range stages {
		total += max(median(s.ns), 0)
	}
	if total <= 0 {
		return 0
	}
	const top, height = 26.0, 26.0
	x := 0.0
	for _, s := range stages {
		w := max(median(s.ns), 0) / total * d.width
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
	median, around := quantity(packet)
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
			value, around := quantity(s.ns)
			share := percentOf(s.ns, packet)
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
				d.text("soft end", d.width, end+12, joinedBy(" · ", site.per, site.ns))
			}
			d.fit("mono", left, end+12, room, site.what())
			end += 17
			if !d.wide() {
				d.fit("soft", left, end+10, d.width-left, joinedBy(" · ", site.per, site.ns))
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

func joinedBy(with string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), with)
}

// pathStages are the stages of a profile with its indirect branches, and those that
// sites add: what xray found on the same kernel.
func pathStages(p *record.Profile, sites []record.SiteRow) []pathStage {
	var stages []pathStage
	byName := make(map[string]int)
	stage := func(name string) *pathStage {
		i, ok := byName[name]
		if !ok {
			i = len(stages)
			byName[name] = i
			stages = append(stages, pathStage{name: name})
		}
		return &stages[i]
	}
	type place struct {
		function string
		offset   uint64
	}
	listed := make(map[place]*record.SiteRow)
	for i := range sites {
		listed[place{sites[i].Function, sites[i].Offset}] = &sites[i]
	}
	seen := make(map[place]bool)
	if p != nil {
		for _, row := range p.Rows {
			stage(row.Name).ns = row.Ns
		}
		if p.Tax != nil {
			for _, s := range p.Tax.Sites {
				at := place{s.Function, s.Offset}
				seen[at] = true
				name := s.Stage // where it took most
				if row := listed[at]; row != nil && record.PartOf(name) != record.PartRig {
					name = row.Stage
				}
				site := pathSite{function: s.Function, offset: s.Offset, targets: shortened(s.Targets)}
				if s.Calls != nil {
					site.calls = *s.Calls
				}
				if s.PerPacket != nil {
					site.per = number(s.PerPacket.Median) + " a packet"
				}
				if s.Thunk != nil || s.Landing != nil {
					site.ns = number(median(s.Thunk)+median(s.Landing)) + " ns"
				}
				stage(name).sites = append(stage(name).sites, site)
			}
		}
	}
	for _, row := range sites {
		if row.Per == "rare" || seen[place{row.Function, row.Offset}] {
			continue
		}
		site := pathSite{function: row.Function, offset: row.Offset, targets: shortened(row.Targets), per: often(row)}
		if row.Calls != nil {
			site.calls = *row.Calls
		}
		stage(row.Stage).sites = append(stage(row.Stage).sites, site)
	}
	if p == nil {
		stages = wholePath(stages)
	}
	sortStages(stages)
	return stages
}

// wholePath adds the stages that any redirected packet comes by, so that a path
// without times is one.
func wholePath(stages []pathStage) []pathStage {
	for _, name := range []string{"receive", "program", "redirect", "bulk-queue", "transmit", "return"} {
		if !slices.ContainsFunc(stages, func(s pathStage) bool { return s.name == name }) {
			stages = append(stages, pathStage{name: name})
		}
	}
	return stages
}

// often is how often a branch runs.
func often(row record.SiteRow) string {
	if row.Per == "unknown" {
		return "how often is not known"
	}
	if row.Always {
		return "1 a " + row.Per
	}
	return "at most 1 a " + row.Per
}

// labStages are the indirect branches that were counted in one guest.
func labStages(row *record.LabRow) []pathStage {
	var stages []pathStage
	for _, s := range row.Sites {
		i := slices.IndexFunc(stages, func(st pathStage) bool { return st.name == s.Stage })
		if i < 0 {
			i = len(stages)
			stages = append(stages, pathStage{name: s.Stage})
		}
		stages[i].sites = append(stages[i].sites, pathSite{
			function: s.Function, offset: s.Offset, calls: s.Calls, targets: shortName(s.Target),
			per: strconv.FormatFloat(s.PerPacket, 'g', 5, 64) + " a packet",
		})
	}
	stages = wholePath(stages)
	sortStages(stages)
	return stages
}
