package page

import (
	"fmt"
	"slices"
	"strconv"
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

// onSpine tells whether a packet goes through a stage after the one before and before
// the next.
func onSpine(stage string) bool {
	group := functions.Stage(stage).Group()
	return group == functions.GroupPath || group == functions.GroupEnds
}

// sortStages brings stages into the order in which a packet goes through them.
func sortStages(stages []pathStage) {
	rank := func(name string) int {
		if i := slices.Index(pathOrder, functions.Stage(name)); i >= 0 {
			return i
		}
		return len(pathOrder)
	}
	slices.SortStableFunc(stages, func(a, b pathStage) int { return rank(a.name) - rank(b.name) })
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
				if row := listed[at]; row != nil && functions.Stage(name).Group() != functions.GroupEnds {
					name = row.Stage
				}
				site := pathSite{function: s.Function, offset: s.Offset, targets: cells.ShortNames(s.Targets)}
				if s.Calls != nil {
					site.calls = *s.Calls
				}
				if s.PerPacket != nil {
					site.per = stat.Number(s.PerPacket.Median) + " a packet"
				}
				if s.Thunk != nil || s.Landing != nil {
					site.ns = stat.Number(cells.Value(s.Thunk)+cells.Value(s.Landing)) + " ns"
				}
				stage(name).sites = append(stage(name).sites, site)
			}
		}
	}
	for _, row := range sites {
		if row.Per == "rare" || seen[place{row.Function, row.Offset}] {
			continue
		}
		site := pathSite{function: row.Function, offset: row.Offset, targets: cells.ShortNames(row.Targets),
			per: cells.HowOften(row)}
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
			function: s.Function, offset: s.Offset, calls: s.Calls, targets: cells.ShortName(s.Target),
			per: strconv.FormatFloat(s.PerPacket, 'g', 5, 64) + " a packet",
		})
	}
	stages = wholePath(stages)
	sortStages(stages)
	return stages
}
