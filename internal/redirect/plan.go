package redirect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/traffic"
)

// Scenario is a way of a frame, by the verdict of the program under test.
type Scenario string

// The scenarios.
const (
	Map     Scenario = "redirect-map"      // bpf_redirect_map, DEVMAP
	MapHash Scenario = "redirect-map-hash" // bpf_redirect_map, DEVMAP_HASH
	Plain   Scenario = "redirect"          // bpf_redirect
	Multi   Scenario = "redirect-multi"    // broadcast to two ports of a DEVMAP
	CPU     Scenario = "redirect-cpu"      // CPUMAP, dropped by a program on the other CPU
	XSK     Scenario = "redirect-xsk"      // XSKMAP, into an AF_XDP socket in copy mode
	TX      Scenario = "tx"                // XDP_TX
	Drop    Scenario = "drop"              // XDP_DROP
	Pass    Scenario = "pass"              // XDP_PASS, dropped by the network stack
)

// Scenarios lists all of them.
func Scenarios() []Scenario {
	return []Scenario{Map, MapHash, Plain, Multi, CPU, XSK, TX, Drop, Pass}
}

// program is the name of the program under test.
func (s Scenario) program() string { return strings.ReplaceAll(string(s), "-", "_") }

// redirects says whether the scenario has a redirect hop that [Drop] lacks.
func (s Scenario) redirects() bool { return s != Drop && s != Pass }

// copies is how many frames arrive for one that is redirected.
func (s Scenario) copies() uint64 {
	if s == Multi {
		return 2
	}
	return 1
}

// Operation is what the program under test does to a frame before its
// verdict. The zero value does nothing.
type Operation struct {
	op    chain.Operation
	spins uint32
}

const maxSpins = 10000

// ParseOperation reads none, read, swap-macs, parse, or spin:N, a loop of N
// turns: a known slowdown. spin:0 is none by another name, for an A/A
// comparison.
func ParseOperation(s string) (Operation, error) {
	for _, op := range []chain.Operation{chain.None, chain.Read, chain.SwapMACs, chain.Parse} {
		if (Operation{op: op}).String() == s {
			return Operation{op: op}, nil
		}
	}
	if n, ok := strings.CutPrefix(s, "spin:"); ok {
		if n, err := strconv.ParseUint(n, 10, 32); err == nil && n <= maxSpins {
			return Operation{op: chain.Spin, spins: uint32(n)}, nil
		}
	}
	return Operation{}, fmt.Errorf("operation %q is not none, read, swap-macs, parse or spin:N with N from 0 to %d", s, maxSpins)
}

// String is what ParseOperation reads.
func (o Operation) String() string {
	switch o.op {
	case chain.Read:
		return "read"
	case chain.SwapMACs:
		return "swap-macs"
	case chain.Parse:
		return "parse"
	case chain.Spin:
		return fmt.Sprintf("spin:%d", o.spins)
	}
	return "none"
}

// Mode is where the program under test is attached.
type Mode string

// The modes.
const (
	Native  Mode = "native"  // in the driver
	Generic Mode = "generic" // in the network stack, on sk_buffs
)

// Place says which CPU does what.
type Place string

// The places.
const (
	// OneCore has generator, redirect and sink on one CPU.
	OneCore Place = "one-core"
	// TwoCore has the generator on one CPU; the NAPI poll that redirects,
	// and the sink, run in a kernel thread on another.
	TwoCore Place = "two-core"
)

// chainSpec is what a chain is built for. Rows that differ only in their
// bulk share a chain.
type chainSpec struct {
	Scenario  Scenario
	Operation Operation
	Mode      Mode
	Size      int // bytes, without the frame check sequence
	Place     Place
}

// Row is one measured row.
type Row struct {
	chainSpec
	// Bulk is how many frames the generator makes between two flushes: 1 …
	// [traffic.MaxBatch]. On one core so many wait for the NAPI poll, which
	// takes 64 at a time (NAPI_POLL_WEIGHT).
	Bulk int
}

// DefaultSize is a frame's size in bytes: 64 on the wire.
const DefaultSize = 60

// DefaultBulks is the bulk ladder.
func DefaultBulks() []int { return []int{1, 2, 4, 8, 16, 32, 64} }

// Name is the row's stable name: scenario, bulk, and what is not default.
func (r Row) Name() string {
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
	if r.Place != OneCore {
		s += "/place=" + string(r.Place)
	}
	return s
}

// Labels are the row's coordinates, by option name.
func (r Row) Labels() map[string]string {
	return map[string]string{
		"scenario":  string(r.Scenario),
		"bulk":      strconv.Itoa(r.Bulk),
		"operation": r.Operation.String(),
		"mode":      string(r.Mode),
		"size":      strconv.Itoa(r.Size),
		"place":     string(r.Place),
	}
}

// Plan is a run. Its zero value measures redirect-map up the bulk ladder.
type Plan struct {
	Scenarios  []Scenario
	Bulks      []int
	Operations []Operation
	Mode       Mode
	Size       int // bytes, without the frame check sequence
	Place      Place
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
	if p.Place == "" {
		p.Place = OneCore
	}
	p.Schedule = p.Schedule.Or(rounds.Schedule{Rounds: DefaultRounds, Duration: DefaultDuration})
	return p
}

// Validate returns an error in one line when the plan cannot be meant.
func (p Plan) Validate() error {
	p = p.withDefaults()
	for _, s := range p.Scenarios {
		if !slices.Contains(Scenarios(), s) {
			return fmt.Errorf("scenario %q is not one of %v", s, Scenarios())
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
	if p.Place != OneCore && p.Place != TwoCore {
		return fmt.Errorf("place %q is not one-core or two-core", p.Place)
	}
	if err := p.Schedule.Validate(); err != nil {
		return err
	}
	if _, err := traffic.UDPFrame(p.Size); err != nil {
		return err
	}
	if n := len(p.chains()); n > maxChains {
		return fmt.Errorf("%d chains are more than the %d whose programs fit into the BPF dispatcher: measure fewer scenarios or operations at a time", n, maxChains)
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
				r := Row{chainSpec{s, op, p.Mode, p.Size, p.Place}, b}
				if !seen[r] {
					seen[r] = true
					rows = append(rows, r)
				}
			}
		}
	}
	return rows
}

// without is the same chain with no redirect hop.
func (c chainSpec) without() chainSpec {
	c.Scenario = Drop
	return c
}

// paced says whether the generator waits for frames to arrive, because they do
// so on another CPU. Such a chain cannot do without counting.
func (c chainSpec) paced() bool { return c.Place == TwoCore || c.Scenario == CPU }

// hasHop says whether the chain less the chain without the redirect is the
// price of a redirect. It is not where another core may be the one that is
// waited for.
func (c chainSpec) hasHop() bool { return c.Scenario.redirects() && !c.paced() }

// chains lists the distinct chains a plan needs, those without the redirect
// hop included, in a fixed order.
func (p Plan) chains() []chainSpec {
	var specs []chainSpec
	add := func(s chainSpec) {
		if !slices.Contains(specs, s) {
			specs = append(specs, s)
		}
	}
	for _, r := range p.Rows() {
		add(r.chainSpec)
		if r.hasHop() {
			add(r.without())
		}
	}
	return specs
}
