package profile

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/xdppath"
)

// site is an indirect branch that samples speak of.
type site struct {
	function string
	offset   uint64
	stage    functions.Stage
	targets  []string
	// thunk is the time in the thunk, targetEntry that on the first instructions of what is called, in ns per packet
	// by round.
	thunk, targetEntry []float64
}

// tax is what samples say of indirect branches. price is that of one in ns.
//
// The time in a thunk is that of its site. A mispredicted branch shows on the first instructions of what it enters, so
// what these take is compared with what the first instructions of functions take that are entered directly, once for a
// packet.
func (v view) tax(price *stat.Quantity) *record.ProfileTax {
	b := v.branches()
	tax := &record.ProfileTax{Returns: v.mean(b.returns), Sites: []record.ProfileSite{}}
	if returnsThroughThunk(v.Path) {
		tax.ReturnEntries = v.mean(b.returned)
	}
	direct := v.direct()
	if direct != nil {
		tax.Direct = v.mean(direct)
	}
	var (
		thunks, targetEntries, both, hop = v.zero(), v.zero(), v.zero(), v.zero()
		estimate                         float64
	)
	for _, of := range b.sites {
		calls, known, what := v.calls(of)
		for i := range of.targetEntry {
			if direct != nil && known {
				of.targetEntry[i] -= calls * direct[i]
			}
			thunks[i] += of.thunk[i]
			targetEntries[i] += of.targetEntry[i]
			both[i] += of.thunk[i] + of.targetEntry[i]
			if known {
				hop[i] += of.thunk[i] + of.targetEntry[i]
			}
		}
		row := v.siteRow(of, what)
		if known {
			row.PerPacket = &stat.Quantity{Median: calls, Low: calls, High: calls, N: 1, Unit: "calls"}
			estimate += calls
		}
		tax.Sites = append(tax.Sites, row)
	}
	slices.SortFunc(tax.Sites, func(a, b record.ProfileSite) int {
		return cmp.Or(
			cmp.Compare(b.Thunk.Median+b.TargetEntry.Median, a.Thunk.Median+a.TargetEntry.Median),
			cmp.Compare(a.Function, b.Function), cmp.Compare(a.Offset, b.Offset),
		)
	})
	tax.Thunks, tax.TargetEntries = v.mean(thunks), v.mean(targetEntries)
	tax.Total, tax.Hop = v.mean(both), v.mean(hop)
	if price != nil && estimate > 0 {
		tax.Estimate = price.Times(estimate)
		tax.Agree = agree(tax.Hop, tax.Estimate)
	}
	return tax
}

// branches is the time of stacks that an indirect branch or a return shows in, in ns per packet by round.
type branches struct {
	sites []*site
	// returns is the time in return thunks, returned that of instructions of the redirect path that a return thunk
	// goes back to: generator and sink have others, which no redirect pays for.
	returns, returned []float64
}

// branches gathers stacks by the branch that they show.
func (v view) branches() branches {
	b := branches{returns: v.zero(), returned: v.zero()}
	sites := make(map[Frame]*site)
	for _, s := range v.own {
		name := s.innermost()
		if returnThunk(name) && s.target == "" {
			v.add(b.returns, s)
			continue
		}
		if s.returned {
			if s.Stage.OnPath() {
				v.add(b.returned, s)
			}
			continue
		}
		thunk := indirectThunk(name) || s.target != ""
		if s.entry.kind != indirectly || !thunk && !s.atTargetEntry {
			continue
		}
		at := Frame{Function: s.entry.site.Function, Offset: s.entry.site.Offset}
		// A generator's branches are others than those of the hop, though they are at the same place.
		if s.Stage == functions.StageGenerator {
			at.Addr = 1
		}
		of := sites[at]
		if of == nil {
			of = &site{function: at.Function, offset: at.Offset, stage: s.Stage, thunk: v.zero(), targetEntry: v.zero()}
			sites[at] = of
			b.sites = append(b.sites, of)
		}
		target := name
		if thunk {
			v.add(of.thunk, s)
			target = s.target
		} else {
			v.add(of.targetEntry, s)
		}
		if target != "" && !slices.Contains(of.targets, target) {
			of.targets = append(of.targets, target)
		}
	}
	return b
}

// siteRow is the row of a site; what is what its code calls.
func (v view) siteRow(of *site, what *string) record.ProfileSite {
	slices.Sort(of.targets)
	return record.ProfileSite{
		Function: of.function, Offset: of.offset, Stage: string(of.stage), Pointer: what,
		Targets: of.targets, Thunk: v.mean(of.thunk), TargetEntry: v.mean(of.targetEntry),
	}
}

// zero is no time in each round.
func (v view) zero() []float64 { return make([]float64, len(v.Rounds)) }

// returnsThroughThunk tells whether functions of the path return through a thunk.
func returnsThroughThunk(inv *xdppath.Inventory) bool {
	for name, n := range inv.Returns {
		if name != "ret" && n > 0 {
			return true
		}
	}
	return false
}

// The words on whether samples and prices agree.
const (
	Agree      = "agree"
	Disagree   = "disagree"
	CannotTell = "cannot tell"
)

// agree tells whether two independent figures agree: their difference is within the
// uncertainty of both. When that is as large as what was estimated, agreement would
// mean nothing.
func agree(seen, estimate *stat.Quantity) string {
	half := math.Hypot((seen.High-seen.Low)/2, (estimate.High-estimate.Low)/2)
	switch off := math.Abs(seen.Median - estimate.Median); {
	case math.IsNaN(half):
		return CannotTell
	case off > half:
		return Disagree
	case half >= math.Abs(estimate.Median):
		return CannotTell
	}
	return Agree
}

// direct is what the first instructions of a function take that each packet enters
// directly, in ns per call and round; nil when no such function was seen.
func (v view) direct() []float64 {
	each := make(map[string]bool)
	for _, f := range v.Path.Functions {
		if f.Per == functions.PerPacket {
			each[f.Name] = true
		}
	}
	seen := make(map[string]bool)
	var entries []*Stack
	for _, s := range v.own {
		if s.entry.kind == directly && s.Stage != functions.StageGenerator && each[s.innermost()] {
			seen[s.innermost()] = true
			if s.atTargetEntry {
				entries = append(entries, s)
			}
		}
	}
	if len(seen) == 0 {
		return nil
	}
	out := v.sum(entries)
	for i := range out {
		out[i] /= float64(len(seen))
	}
	return out
}

// calls is how often a site of the hop runs for a packet, and what it calls, by what
// the path's code says. The generator is not on that path.
func (v view) calls(of *site) (n float64, known bool, what *string) {
	for i := range v.Path.Sites {
		s := &v.Path.Sites[i]
		// The dispatcher has many ways out, of which one is listed.
		dispatcher := strings.HasPrefix(of.function, "bpf_dispatcher_")
		if s.Function != of.function || s.Offset != of.offset && !dispatcher {
			continue
		}
		if s.Pointer != "" {
			what = &s.Pointer
		}
		switch s.Per {
		case functions.PerPacket:
			n = 1
		case functions.PerBulk:
			n = v.Calls.Xmits
		case functions.PerPoll:
			n = v.Calls.Polls
		}
		hop := of.stage != functions.StageGenerator && of.stage != functions.StageOther
		return n, n > 0 && hop, what
	}
	return 0, false, nil
}
