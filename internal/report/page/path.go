package page

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

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
	for _, s := range v.src.Records {
		if p := s.Stages(); p != nil && p.Packet != nil {
			profiles = append(profiles, v.profilePathBlock(s, p))
		}
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
	stages := profileStages(p, v.sitesFor(s))
	b := block{Heading: cells.Join(": ", v.heading(s), profiled(s))}
	if v.draw {
		b.Figure = pathFigure(v.id(), "The path of a packet of "+profiled(s), stages, p.Packet)
	}
	if s != v.first { // the title says it
		b.Text = []string{groupsText(p)}
	}
	if text := cells.IndirectBranches(&p.ProfileParts); text != "" {
		b.Text = append(b.Text, strings.ToUpper(text[:1])+text[1:])
	}
	b.Tables = append(b.Tables, v.stageTable(p, stages))
	for _, t := range []*table{siteTable(stages), functionTable(p)} {
		if t != nil {
			b.Tables = append(b.Tables, t)
		}
	}
	return b
}

// inventoryPathBlock is the path of a packet with its indirect branches alone.
func (v *viewer) inventoryPathBlock(s *record.Saved) block {
	stages := inventoryStages(s.Sites().Rows)
	b := block{
		Heading: cells.Join(": ", v.heading(s), "the path of "+inventoried(s)),
		Text:    []string{"No record here has a profile, so stages have no time."},
	}
	if v.draw {
		b.Figure = pathFigure(v.id(), "The path of a packet and its indirect branches", stages, nil)
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

// groupsText says what share of a packet each group of stages has.
func groupsText(p *record.Profile) string {
	groups := p.Groups()
	var said []string
	for _, g := range functions.Groups() {
		share := cells.Percent(&stat.Quantity{Median: groups[g]}, p.Packet)
		said = append(said, fmt.Sprintf("%s %s ns (%s)", g, stat.Number(groups[g]), share))
	}
	return "Of a packet: " + strings.Join(said, ", ") + "."
}

// stageTable has a row for each stage of a path.
func (v *viewer) stageTable(p *record.Profile, stages []pathStage) *table {
	t := &table{Caption: "Stages, ns a packet", Folded: v.draw, Columns: []column{
		{"stage", ""}, {"ns", "n"}, {"95 %", "i"}, {"share", "n"}, {"◆", "n"}, {"what it is", "t"},
	}}
	for _, s := range stages {
		ns, around := cells.Quantity(s.ns)
		t.add(s.name, cmp.Or(ns, "–"), around, cells.Percent(s.ns, p.Packet), strconv.Itoa(len(s.sites)),
			functions.Stage(s.name).Meaning())
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
	name := cmp.Or(set["scenario"], "redirect")
	if set["bulk"] != "" {
		name += "/bulk=" + set["bulk"]
	}
	if op := set["operation"]; op != "" && op != "none" {
		name += "/operation=" + op
	}
	return cells.Clean(name)
}
