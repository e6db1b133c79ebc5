package redirect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/traffic"
)

// ChainSpec is what a chain is built for. Rows that differ only in their
// bulk share a chain.
type ChainSpec struct {
	Scenario  Scenario
	Operation Operation
	Mode      Mode
	Size      int // bytes, without the frame check sequence
	Layout    CoreLayout
	// Target is what runs in the scenario [Prog], and whose packets are sent without it too. Nil in the others.
	Target *Target
}

// Row is one measured row.
type Row struct {
	ChainSpec
	// Bulk is how many frames the generator makes between two flushes: 1 … [traffic.MaxBatch]. On one core all of
	// them wait for the NAPI poll, which takes 64 at a time (NAPI_POLL_WEIGHT).
	Bulk int
}

// DefaultSize is a frame's size in bytes: 64 on the wire.
const DefaultSize = 60

// DefaultBulks is the bulk ladder.
func DefaultBulks() []int { return []int{1, 2, 4, 8, 16, 32, 64} }

// Name is the row's stable name: scenario, bulk, and what is not default.
func (r Row) Name() string {
	if r.Scenario == Prog {
		return fmt.Sprintf("%s/%s/bulk=%d", Prog, r.Target.Name, r.Bulk)
	}
	s := fmt.Sprintf("%s/bulk=%d", r.Scenario, r.Bulk)
	if r.Operation != (Operation{}) {
		s += "/operation=" + r.Operation.String()
	}
	if r.Mode != Native {
		s += "/mode=" + string(r.Mode)
	}
	if r.Size != DefaultSize {
		s += fmt.Sprintf("/size=%d", r.Size)
	}
	if r.Layout != OneCore {
		s += "/place=" + string(r.Layout)
	}
	return s
}

// Labels are the row's coordinates, by option name.
func (r Row) Labels() map[string]string {
	if t := r.Target; t != nil {
		labels := map[string]string{
			"scenario": string(r.Scenario), "bulk": strconv.Itoa(r.Bulk), "prog": t.Name, "object": t.Object, "tag": t.Tag,
		}
		if t.Source != "" {
			labels["packets"] = t.Source
		} else {
			labels["size"] = strconv.Itoa(r.Size)
		}
		return labels
	}
	return map[string]string{
		"scenario":  string(r.Scenario),
		"bulk":      strconv.Itoa(r.Bulk),
		"operation": r.Operation.String(),
		"mode":      string(r.Mode),
		"size":      strconv.Itoa(r.Size),
		"place":     string(r.Layout),
	}
}

// Plan is a run. Its zero value measures redirect-map up the bulk ladder.
type Plan struct {
	Scenarios  []Scenario
	Bulks      []int
	Operations []Operation
	Mode       Mode
	Size       int // bytes, without the frame check sequence
	Layout     CoreLayout
	// Target runs in the place of scenarios and operations: a program of the user's. It may be nil.
	Target *Target
	// Sparing says to disturb nobody else: it takes [SparingSlots] entries of the BPF dispatcher, attaches nothing to
	// tracepoints, leaves the caches that CPUs share alone, does not price the counting, and builds its chains once. So its
	// intervals do not hold what differs from one build to the next. Of [Map] only.
	Sparing bool
	// Built is called in a sparing run with its XDP programs, all of which are attached. It may be nil.
	Built func([]*ebpf.Program) error
	// CPU is the core under test.
	CPU rounds.CPU
	rounds.Schedule
}

// Sizes of a default run.
const (
	DefaultRounds   = 15
	DefaultDuration = 20 * time.Second
)

// maxChains keeps a run's programs inside the BPF dispatcher, which holds 48
// (BPF_DISPATCHER_MAX in include/linux/bpf.h): three of each chain are
// attached, and one that does not fit is called through a thunk.
const maxChains = 14

func (p Plan) withDefaults() Plan {
	if p.Target != nil {
		p.Scenarios = []Scenario{Prog}
	}
	if len(p.Scenarios) == 0 {
		p.Scenarios = []Scenario{Map}
	}
	if len(p.Bulks) == 0 {
		p.Bulks = DefaultBulks()
	}
	if len(p.Operations) == 0 {
		p.Operations = []Operation{{}}
	}
	if p.Mode == "" {
		p.Mode = Native
	}
	if p.Size == 0 {
		p.Size = DefaultSize
	}
	if p.Layout == "" {
		p.Layout = OneCore
	}
	p.Schedule = p.Schedule.Or(rounds.Schedule{Rounds: DefaultRounds, Duration: DefaultDuration})
	return p
}

// Validate returns an error in one line when the plan cannot be meant.
func (p Plan) Validate() error {
	p = p.withDefaults()
	if p.Target != nil && (p.Mode != Native || p.Layout != OneCore || len(p.Operations) != 1 || p.Operations[0] != (Operation{})) {
		return fmt.Errorf("a program of yours runs in native mode, on one core, without --operation: the driver counts its verdicts")
	}
	if p.Sparing {
		if err := p.validSparing(); err != nil {
			return err
		}
	}
	for _, s := range p.Scenarios {
		if p.Target == nil && !slices.Contains(Scenarios(), s) {
			return fmt.Errorf("scenario %q is not one of %s", s, names(Scenarios()))
		}
	}
	for _, b := range p.Bulks {
		if b < 1 || b > traffic.MaxBatch {
			return fmt.Errorf("bulk %d is not within 1 … %d, what one live-frames batch can hold", b, traffic.MaxBatch)
		}
	}
	if p.Mode != Native && p.Mode != Generic {
		return fmt.Errorf("mode %q is not native or generic", p.Mode)
	}
	if p.Layout != OneCore && p.Layout != TwoCore {
		return fmt.Errorf("place %q is not one-core or two-core", p.Layout)
	}
	if err := p.Schedule.Validate(); err != nil {
		return err
	}
	if _, err := traffic.UDPFrame(p.Size); err != nil {
		return err
	}
	if n := len(p.chains()); n > maxChains {
		return fmt.Errorf("%d chains are more than the %d whose programs fit into the BPF dispatcher: "+
			"measure fewer scenarios or operations at a time", n, maxChains)
	}
	return nil
}

// Rows lists the plan's rows: operations within scenarios, bulks within both.
func (p Plan) Rows() []Row {
	p = p.withDefaults()
	var rows []Row
	seen := map[Row]bool{}
	for _, s := range p.Scenarios {
		for _, op := range p.Operations {
			for _, b := range p.Bulks {
				r := Row{ChainSpec{s, op, p.Mode, p.Size, p.Layout, p.Target}, b}
				if !seen[r] {
					seen[r] = true
					rows = append(rows, r)
				}
			}
		}
	}
	return rows
}

// without is the same chain without the redirect.
func (c ChainSpec) without() ChainSpec {
	c.Scenario = Drop
	return c
}

// paced says whether the generator waits for frames to arrive, because they do
// so on another CPU. Such a chain cannot do without counting.
func (c ChainSpec) paced() bool { return c.Layout == TwoCore || c.Scenario == CPU }

// hasHop says whether the time of the chain, less that of the chain without the redirect, is the price of a redirect. It
// is not when another core may be the one that is waited for.
func (c ChainSpec) hasHop() bool { return c.Scenario.redirects() && !c.paced() }

// chains lists the distinct chains that a plan needs, those without the redirect included, in a fixed order.
func (p Plan) chains() []ChainSpec {
	var specs []ChainSpec
	add := func(s ChainSpec) {
		if !slices.Contains(specs, s) {
			specs = append(specs, s)
		}
	}
	for _, r := range p.Rows() {
		add(r.ChainSpec)
		if r.hasHop() {
			add(r.without())
		}
	}
	return specs
}

// names lists scenarios for an error.
func names(scenarios []Scenario) string {
	var list []string
	for _, s := range scenarios {
		list = append(list, string(s))
	}
	return strings.Join(list, ", ")
}
