package page

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// pathTitle is that of the section: what it has of a packet's path.
func (v *viewer) pathTitle() string {
	if slices.ContainsFunc(v.src.Records, func(s *record.Saved) bool { return s.Stages() != nil }) {
		return "Where a packet’s nanoseconds go"
	}
	return "The path of a packet"
}

// pathBlocks are the stages of profiles; of xray alone when there is no profile.
func (v *viewer) pathBlocks() []block {
	var profiles, inventories []block
	for _, s := range v.profiles() {
		b := v.profilePathBlock(s, s.Stages())
		b.Folded = v.draw && len(profiles) > 0
		profiles = append(profiles, b)
	}
	if len(profiles) > 0 {
		return profiles
	}
	for _, s := range v.src.Records {
		if s.Sites() != nil {
			inventories = append(inventories, v.inventoryPathBlock(s))
		}
	}
	return inventories
}

// profilePathBlock is the path of a packet with its ns.
func (v *viewer) profilePathBlock(s *record.Saved, p *record.Profile) block {
	stages, unseen := profileStages(p, v.sitesFor(s))
	b := block{Heading: cells.Join(": ", v.heading(s), profiled(s))}
	b.addText(v.mergedText(s, profilePart))
	if v.draw {
		b.Figure = pathFigure(v.id(), "The path of a packet of "+profiled(s), stages, true)
	}
	b.addText(pathText(p))
	if p.CannotTell != "" {
		b.addText("That is no answer: " + cells.Clean(p.CannotTell) + ".")
	}
	b.Tables = append(b.Tables, v.stageTable(p, stages))
	for _, t := range []*table{siteTable(stages), functionTable(p)} {
		if t != nil {
			b.Tables = append(b.Tables, t)
		}
	}
	v.addFootnotes(&b, s, profilePart)
	b.addList("How they add up, and what indirect branches take of them by samples", profileNotes(p, unseen))
	return b
}

// profileNotes say how the stages of a profile add up, what else the CPU did, and what
// samples show of indirect branches.
func profileNotes(p *record.Profile, unseen int) []note {
	said := []string{conclusion.ProfileBridge(&p.ProfileParts), conclusion.ProfileOutside(&p.ProfileParts)}
	if text := cells.IndirectBranches(&p.ProfileParts); text != "" {
		said = append(said, strings.ToUpper(text[:1])+text[1:])
	}
	if unseen > 0 {
		said = append(said, fmt.Sprintf("xray finds %d more indirect branches in stages that took no time here.", unseen))
	}
	var out []note
	for _, text := range said {
		if text != "" {
			out = append(out, note{"", cells.Clean(text)})
		}
	}
	return out
}

// inventoryPathBlock is the path of a packet with its indirect branches alone.
func (v *viewer) inventoryPathBlock(s *record.Saved) block {
	stages := inventoryStages(s.Sites().Rows)
	b := block{
		Heading: cells.Join(": ", v.heading(s), "the path of "+inventoried(s)),
		Text:    []string{"No record here has a profile, so stages have no time."},
	}
	if v.draw {
		b.Figure = pathFigure(v.id(), "The path of a packet and its indirect branches", stages, false)
	} else if t := siteTable(stages); t != nil {
		b.Tables = append(b.Tables, t)
	}
	return b
}

// inventoried is what an inventory of indirect branches is of.
func inventoried(s *record.Saved) string { return cells.Clean(cmp.Or(s.Settings["path"], "a veth")) }

// sitesFor are the branches that xray found on the kernel s is of.
func (v *viewer) sitesFor(s *record.Saved) []record.SiteRow {
	if s.Settings["in"] != "" { // another device's path
		return nil
	}
	for _, other := range v.src.Records {
		if other.Sites() != nil && other.Host.Kernel != "" && other.Host.Kernel == s.Host.Kernel &&
			other.Host.KernelBuild == s.Host.KernelBuild && other.Settings["path"] == "veth" {
			return other.Sites().Rows
		}
	}
	return nil
}

// pathText says how much of a packet's time the redirect has, and what of the time of a
// profile is no packet's.
func pathText(p *record.Profile) string {
	groups := p.Groups()
	said := fmt.Sprintf("The redirect path takes %s ns a packet, softirq and locks %s beside it; generator and sink, which "+
		"other machines are for a NIC, %s.", stat.Number(groups[functions.GroupPath]),
		stat.Number(groups[functions.GroupShared]), stat.Number(groups[functions.GroupEnds]))
	var rest []string
	for i := range p.Rows {
		row := pathStage{name: p.Rows[i].Name, ns: p.Rows[i].Ns}
		// What samples do not account for is noise around 0 in most runs.
		if !isPackets(row.name) && row.hasTime() && !(row.ns.Low <= 0) {
			rest = append(rest, fmt.Sprintf("%s %s", cells.Clean(row.name), stat.Number(row.ns.Median)))
		}
	}
	if len(rest) > 0 {
		said += " Not the packet's, and left out: " + strings.Join(rest, ", ") + " ns."
	}
	return said
}

// redirectNs is the time of the stages of the redirect path and of what runs beside it.
func redirectNs(stages []pathStage) *stat.Quantity {
	sum := 0.0
	for i := range stages {
		if g := functions.Stage(stages[i].name).Group(); g == functions.GroupPath || g == functions.GroupShared {
			sum += max(cells.Value(stages[i].ns), 0)
		}
	}
	return &stat.Quantity{Median: sum, Low: math.NaN(), High: math.NaN(), Unit: "ns"}
}

// stageTable has a row for each stage of a path, and for those that are no packet's.
func (v *viewer) stageTable(p *record.Profile, stages []pathStage) *table {
	t := &table{Caption: "Stages, ns a packet; share of the redirect path with softirq and locks", Folded: v.draw,
		Columns: []column{
			{"stage", ""}, {"ns", "n"}, {"95 %", "i"}, {"share", "n"}, {"◆", "n"}, {"what it is", "t"},
		}}
	whole := redirectNs(stages)
	for i := range stages {
		s := &stages[i]
		ns, around := cells.Quantity(s.ns)
		share := ""
		if g := functions.Stage(s.name).Group(); g == functions.GroupPath || g == functions.GroupShared {
			share = cells.Percent(s.ns, whole)
		}
		t.add(s.name, cmp.Or(ns, "–"), around, share, strconv.Itoa(len(s.sites)), functions.Stage(s.name).Meaning())
	}
	for _, row := range p.Rows {
		if !isPackets(row.Name) {
			ns, around := cells.Quantity(row.Ns)
			t.add(row.Name, ns, around, "", "", functions.Stage(row.Name).Meaning())
		}
	}
	return t
}

// siteTable has a row for each indirect branch of a path, nil when there is none.
func siteTable(stages []pathStage) *table {
	t := &table{Caption: "Indirect branches on the path", Folded: true, Columns: []column{
		{"branch", "m"}, {"stage", ""}, {"calls", "m"}, {"how often", ""}, {"takes", "n"},
	}}
	for _, s := range stages {
		for _, site := range s.sites {
			t.add(site.where(), s.name, site.what(), site.per, site.ns)
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return t
}

// functionTable has a row for each of the functions that take most.
func functionTable(p *record.Profile) *table {
	const most = 25
	if len(p.Functions) == 0 {
		return nil
	}
	t := &table{Caption: "Functions that take most", Folded: true, Columns: []column{
		{"function", "m"}, {"ns", "n"}, {"95 %", "i"}, {"share", "n"}, {"stage", ""},
	}}
	for _, f := range p.Functions[:min(most, len(p.Functions))] {
		ns, around := cells.Quantity(f.Ns)
		t.add(cells.ShortName(cells.Clean(f.Name)), ns, around, cells.Percent(f.Ns, p.Packet), f.Stage)
	}
	if n := len(p.Functions) - most; n > 0 {
		t.Remark = fmt.Sprintf("%d more are in the record.", n)
	}
	return t
}

// profiled is what a profile is of.
func profiled(s *record.Saved) string {
	if of := s.Settings["profiled"]; of != "" {
		return cells.Clean(of)
	}
	if s.Kind == "run" {
		return "the chain of the run"
	}
	set := s.Settings
	if set["in"] != "" {
		return cells.Clean(set["in"] + " to " + set["out"])
	}
	name := cmp.Or(set["prog"], set["scenario"], "redirect")
	if set["bulk"] != "" {
		name += "/bulk=" + set["bulk"]
	}
	if op := set["operation"]; op != "" && op != "none" {
		name += "/operation=" + op
	}
	return cells.Clean(name)
}
