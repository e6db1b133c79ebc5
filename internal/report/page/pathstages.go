package page

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

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
	// seen is set where samples or counts saw it run; the others stand in the code.
	seen bool
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

// pathOrder is the order in which a packet goes through the stages; others follow.
var pathOrder = []functions.Stage{
	functions.StageGenerator, functions.StageReceive, functions.StageProgram, functions.StageRedirect,
	functions.StageBulkQueue, functions.StageDMA, functions.StageTransmit, functions.StageSink,
	functions.StageCompletion, functions.StageReturn, functions.StagePagePool, functions.StageSoftirq,
	functions.StageLocks, functions.StageStack, functions.StageObserver, functions.StageOther, functions.StageIdle,
	functions.StageUnattributed,
}

// onSpine tells whether a stage is one that a packet goes through in order, not one that
// runs beside others.
func onSpine(stage string) bool {
	group := functions.Stage(stage).Group()
	return group == functions.GroupPath || group == functions.GroupEnds
}

// packetPath is the stages of a packet's path under way.
type packetPath struct{ stages []pathStage }

// stage returns the stage of that name, and adds it when the path does not have it.
func (p *packetPath) stage(name string) *pathStage {
	i := slices.IndexFunc(p.stages, func(s pathStage) bool { return s.name == name })
	if i < 0 {
		i = len(p.stages)
		p.stages = append(p.stages, pathStage{name: name})
	}
	return &p.stages[i]
}

func (p *packetPath) has(name string) bool {
	return slices.ContainsFunc(p.stages, func(s pathStage) bool { return s.name == name })
}

// add adds an indirect branch to a stage.
func (p *packetPath) add(stage string, site pathSite) {
	s := p.stage(stage)
	s.sites = append(s.sites, site)
}

// whole adds the stages that any redirected packet goes through, so that a path
// without times is one.
func (p *packetPath) whole() {
	for _, stage := range []functions.Stage{
		functions.StageReceive, functions.StageProgram, functions.StageRedirect, functions.StageBulkQueue,
		functions.StageTransmit, functions.StageReturn,
	} {
		p.stage(string(stage))
	}
}

// sorted are the stages in the order in which a packet goes through them.
func (p *packetPath) sorted() []pathStage {
	rank := func(s pathStage) int {
		if i := slices.Index(pathOrder, functions.Stage(s.name)); i >= 0 {
			return i
		}
		return len(pathOrder)
	}
	slices.SortStableFunc(p.stages, func(a, b pathStage) int { return rank(a) - rank(b) })
	return p.stages
}

// hasTime tells whether a stage takes time that two digits show.
func (s *pathStage) hasTime() bool { return math.Abs(cells.Value(s.ns)) >= 0.005 }

// isPackets tells whether the time of a stage is a packet's.
func isPackets(stage string) bool { return functions.Stage(stage).Group() != functions.GroupRest }

// marked are the branches that the figure of a path marks: those of the generator and
// of the sink are not the redirect's.
func (s *pathStage) marked() []pathSite {
	if functions.Stage(s.name).Group() == functions.GroupEnds {
		return nil
	}
	return s.sites
}

// profileStages are the stages of a profile that are a packet's and take time, with the
// indirect branches that samples saw in them and those that xray found on the same kernel
// beside them. unseen are how many xray found where no time was.
func profileStages(p *record.Profile, found []record.SiteRow) (stages []pathStage, unseen int) {
	var path packetPath
	for _, row := range p.Rows {
		if s := (pathStage{name: row.Name, ns: row.Ns}); isPackets(row.Name) && s.hasTime() {
			*path.stage(row.Name) = s
		}
	}
	sampled := make(map[string]bool)
	if p.Tax != nil {
		for i := range p.Tax.Sites {
			s := &p.Tax.Sites[i]
			site := sampledSite(s)
			sampled[site.where()] = true
			stage := s.Stage // where it took most
			if functions.Stage(stage).Group() != functions.GroupEnds {
				for _, row := range found {
					if row.Function == s.Function && row.Offset == s.Offset {
						stage = row.Stage
					}
				}
			}
			if isPackets(stage) {
				path.add(stage, site)
			}
		}
	}
	for i := range found {
		site := foundSite(&found[i])
		switch {
		case found[i].Aside() || found[i].CannotRun != "" || sampled[site.where()]:
		case path.has(found[i].Stage):
			path.add(found[i].Stage, site)
		default:
			unseen++
		}
	}
	return path.sorted(), unseen
}

// inventoryStages are the stages of the indirect branches that xray found.
func inventoryStages(found []record.SiteRow) []pathStage {
	var path packetPath
	for i := range found {
		if !found[i].Aside() && found[i].CannotRun == "" {
			path.add(found[i].Stage, foundSite(&found[i]))
		}
	}
	path.whole()
	return path.sorted()
}

// labStages are the stages of the indirect branches that were counted in one guest.
func labStages(row *record.LabRow) []pathStage {
	var path packetPath
	for _, s := range row.Sites {
		path.add(s.Stage, pathSite{
			function: s.Function, offset: s.Offset, calls: s.Pointer, targets: cells.ShortName(s.Target),
			per: cells.PerPackets(s.PerPacket, "", ""), seen: true,
		})
	}
	path.whole()
	return path.sorted()
}

// sampledSite is an indirect branch of a profile.
func sampledSite(s *record.ProfileSite) pathSite {
	site := pathSite{function: s.Function, offset: s.Offset, targets: cells.ShortNames(s.Targets), seen: true}
	if s.Pointer != nil {
		site.calls = *s.Pointer
	}
	if s.PerPacket != nil {
		site.per = stat.Number(s.PerPacket.Median) + " a packet"
	}
	if s.Thunk != nil || s.TargetEntry != nil {
		site.ns = stat.Number(cells.Value(s.Thunk)+cells.Value(s.TargetEntry)) + " ns"
	}
	return site
}

// foundSite is an indirect branch of an inventory.
func foundSite(row *record.SiteRow) pathSite {
	site := pathSite{function: row.Function, offset: row.Offset, targets: cells.ShortNames(row.Targets)}
	site.per = cells.HowOften(*row)
	if row.Pointer != nil {
		site.calls = *row.Pointer
	}
	return site
}
