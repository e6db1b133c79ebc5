package lab

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/redirect"
)

// DefaultScenario is what is counted when nothing else is asked for. Names of rows leave it out.
const DefaultScenario = string(redirect.Map)

// AllScenarios stands in a plan for all that its NICs have.
const AllScenarios = "all"

// generic is before the name of a scenario whose program runs in the network stack.
const generic = "generic-"

// Row is one of those that each guest counts.
type Row struct {
	Scenario string
	Bulk     int
}

// String is what ParseRow reads.
func (r Row) String() string { return fmt.Sprintf("%s:%d", r.Scenario, r.Bulk) }

// ParseRow reads a scenario and a bulk, "tx:16".
func ParseRow(s string) (r Row, err error) {
	name, bulk, _ := strings.Cut(s, ":")
	r.Scenario = name
	if r.Bulk, err = strconv.Atoi(bulk); err != nil {
		return r, fmt.Errorf("row %q is not SCENARIO:BULK", s)
	}
	if err := (redirect.Plan{Bulks: []int{r.Bulk}}).Validate(); err != nil {
		return r, err
	}
	_, err = findScenario(name)
	return r, err
}

// suffix is what a row's name has behind its guest's.
func (r Row) suffix() string {
	if r.Scenario == DefaultScenario {
		return fmt.Sprintf("/bulk=%d", r.Bulk)
	}
	return fmt.Sprintf("/%s/bulk=%d", r.Scenario, r.Bulk)
}

// need is what a kernel must have for a scenario: a member of a struct, which its BTF has if it does.
type need struct {
	feature, since     string
	structName, member string // no member: the struct itself
}

var (
	liveFrames = need{"live frames (BPF_F_TEST_XDP_LIVE_FRAMES)", "5.18", "xdp_test_data", ""}
	fragments  = need{"fragments in XDP", "5.18", "bpf_prog_aux", "xdp_has_frags"}
	cpumapGRO  = need{"GRO in a cpumap", "6.15", "bpf_cpu_map_entry", "gro"}

	// What tells kprobes apart, the cookie of an attachment, came with struct bpf_perf_link.
	cookies = need{"counting at kprobes (bpf_get_attach_cookie)", "5.15", "bpf_perf_link", ""}
)

// scenario is a way of a packet that guests count.
type scenario struct {
	chain redirect.Scenario
	mode  redirect.Mode
	needs []need
	// beyond says that it leaves the redirect path: what it goes through in the network stack and in the scheduler is
	// searched for indirect branches too.
	beyond bool
}

// Scenarios are the names of all that guests can count on veth.
func Scenarios() (names []string) {
	for _, s := range redirect.Scenarios() {
		names = append(names, string(s))
	}
	for _, s := range []redirect.Scenario{redirect.Egress, redirect.CPUPass, redirect.CPUGRO, redirect.SendXSK,
		redirect.SKBMap, redirect.SKBTX, redirect.SKBDrop, redirect.SKBPass,
		redirect.FragsMap, redirect.FragsTX, redirect.FragsDrop} {
		names = append(names, string(s))
	}
	for _, s := range []redirect.Scenario{redirect.Map, redirect.TX, redirect.Drop, redirect.Pass} {
		names = append(names, generic+string(s))
	}
	return names
}

// WireScenarios are the names of those that guests count on wires alone.
func WireScenarios() (names []string) {
	for _, s := range redirect.WorkerScenarios() {
		names = append(names, string(s))
	}
	return names
}

// scenariosOn are the names of all that guests can count on one of nics: where veth is one, those that can be counted on it.
func scenariosOn(nics []string) (names []string) {
	if slices.Contains(nics, Veth) {
		return Scenarios()
	}
	for _, s := range redirect.WireScenarios() {
		names = append(names, string(s))
	}
	return names
}

// findScenario is the scenario of a name.
func findScenario(name string) (s scenario, err error) {
	if all := append(Scenarios(), WireScenarios()...); !slices.Contains(all, name) {
		return s, fmt.Errorf("scenario %q is not one of %s", name, strings.Join(all, ", "))
	}
	s.mode, s.needs = redirect.Native, []need{liveFrames}
	if of, ok := strings.CutPrefix(name, generic); ok {
		s.chain, s.mode, s.beyond = redirect.Scenario(of), redirect.Generic, true
		return s, nil
	}
	s.chain = redirect.Scenario(name)
	switch s.chain {
	case redirect.CPUGRO:
		s.needs = append(s.needs, cpumapGRO)
	case redirect.SendXSK, redirect.SKBMap, redirect.SKBTX, redirect.SKBDrop, redirect.SKBPass:
		s.needs = nil
	case redirect.FragsMap, redirect.FragsTX, redirect.FragsDrop:
		s.needs = []need{fragments}
	}
	switch s.chain {
	case redirect.Map, redirect.MapHash, redirect.Plain, redirect.Multi, redirect.Egress, redirect.TX, redirect.Drop:
	default:
		s.beyond = true
	}
	return s, nil
}

// extra are the modules of filters at ingress, for scenarios that end in the network stack by one.
func (p Plan) extra() []string {
	for _, r := range p.Rows() {
		switch redirect.Scenario(r.Scenario) {
		case redirect.CPUPass, redirect.CPUGRO, redirect.Pass: // the last on wires
			return []string{"sch_ingress", "cls_bpf"}
		}
	}
	return nil
}

// check returns a [feature.Missing] when the running kernel lacks what a scenario needs.
func (s scenario) check(types *btf.Spec) error {
	for _, n := range s.needs {
		if err := n.check(types); err != nil {
			return err
		}
	}
	return nil
}

// check returns a [feature.Missing] when the running kernel lacks it.
func (n need) check(types *btf.Spec) error {
	var found *btf.Struct
	err := types.TypeByName(n.structName, &found)
	if err != nil && !errors.Is(err, btf.ErrNotFound) {
		return fmt.Errorf("find struct %s: %w", n.structName, err)
	}
	has := err == nil && (n.member == "" || slices.ContainsFunc(found.Members, func(m btf.Member) bool { return m.Name == n.member }))
	if !has {
		return &feature.Missing{Feature: n.feature, Since: n.since}
	}
	return nil
}
