package record

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/stat"
)

// What [Gate.Verdict] may be.
const (
	GateWithin     = "within"
	GateBeyond     = "beyond"
	GateCannotTell = "cannot tell"
)

// Gate is a record of `gate`: whether a packet takes more on a kernel than a base allows. Its host is the
// machine that booted the guest.
type Gate struct {
	Document[GateRow]
	// Compared are the base and what was counted now.
	Compared
	// Verdict is [GateWithin], [GateBeyond] or [GateCannotTell]; Why says why it cannot be told.
	Verdict string `json:"verdict"`
	Why     string `json:"why,omitempty"`
	// Kernel is the one that was counted, as it was asked for; OldRelease and NewRelease are what the kernels of
	// the base and of now call themselves.
	Kernel     string `json:"kernel"`
	OldRelease string `json:"old-release,omitempty"`
	NewRelease string `json:"new-release,omitempty"`
	// Unlike is what the two builds differ in.
	Unlike []GateUnlike `json:"unlike,omitempty"`
	// Price is that of one indirect call in ns, on the machine of PriceOf; nil without one. PriceThunk is what an indirect call goes
	// through in that machine's memory, as of its fingerprint; empty where that is not known.
	Price      *stat.Quantity `json:"price,omitempty"`
	PriceOf    string         `json:"price-of,omitempty"`
	PriceThunk string         `json:"price-thunk,omitempty"`
	// Console are the last lines of a guest that did not come to its end.
	Console []string `json:"console,omitempty"`
}

// GateUnlike is what two builds differ in: a field of [LabBuild].
type GateUnlike struct {
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
	// Options are those that two configurations differ in, "HZ: 250 → 1000", as far as both records have them.
	Options []string `json:"options,omitempty"`
	// Allowed is set when it was asked to compare such builds all the same.
	Allowed bool `json:"allowed,omitempty"`
}

// GateRow is a row of the base, and what was counted in its place.
type GateRow struct {
	// Name is that of the row without its kernel: "redirect-map/bulk=16".
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	// Verdict is in the words of [Gate.Verdict]; Missing says why it cannot be told.
	Verdict string `json:"verdict"`
	Missing string `json:"missing,omitempty"`
	// Behavior says how packets come out of a program of the user's otherwise; empty where they do not, and for a redirect.
	Behavior string `json:"behavior,omitempty"`
	// Instructions and Indirect branches per packet. Nil where one side has none.
	Instructions *GateCount `json:"instructions"`
	Indirect     *GateCount `json:"indirect"`
	// Ns is an estimate of what the change of Indirect takes of a packet, in ns: its number by the price of one. Nil
	// without a price, and without a change.
	Ns *stat.Quantity `json:"ns,omitempty"`
	// Sites are the indirect branches that the two differ in, Functions the functions that are entered another
	// number of times. The two are empty where nothing differs.
	Sites     []GateChange `json:"sites,omitempty"`
	Functions []GateChange `json:"functions,omitempty"`
	// Trace says in which functions the instructions differ; nil unless the row is beyond and both sides were traced.
	Trace *LabTraceChange `json:"trace,omitempty"`
}

// Shorten keeps at most so many functions of each row, and as many indirect branches: those that changed most. What the
// others have is put into one behind them; 0 keeps all.
func (g *Gate) Shorten(most int) {
	if most <= 0 {
		return
	}
	for i := range g.Rows {
		r := &g.Rows[i]
		r.Sites, r.Functions = shortened(r.Sites, most), shortened(r.Functions, most)
		if r.Trace != nil {
			r.Trace.Shorten(most)
		}
	}
}

// shortened are the changes that are largest, in their order, and one of all others.
func shortened(changes []GateChange, most int) []GateChange {
	if len(changes) <= most+1 {
		return changes
	}
	places := make([]int, len(changes))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int {
		return cmp.Compare(math.Abs(changes[b].Difference()), math.Abs(changes[a].Difference()))
	})
	keep := places[:most]
	slices.Sort(keep)
	var kept []GateChange
	var rest GateChange
	for i, c := range changes {
		if slices.Contains(keep, i) {
			kept = append(kept, c)
			continue
		}
		rest.Old, rest.New = rest.Old+c.Old, rest.New+c.New
	}
	rest.Function = more(len(changes) - len(kept))
	return append(kept, rest)
}

// GateCount is a count of the base, and what it is now.
type GateCount struct {
	Old float64 `json:"old"`
	New float64 `json:"new"`
	// Allowed is how much more than Old is within, Spread how much of a difference may be that of two boots: 0 where
	// counts are exact.
	Allowed float64 `json:"allowed"`
	Spread  float64 `json:"spread,omitempty"`
}

// Difference is how much more it is now.
func (c *GateCount) Difference() float64 { return c.New - c.Old }

// Verdict of one count: a difference that may be one of two boots is within.
func (c *GateCount) Verdict() string {
	if c.Difference()-c.Spread > c.Allowed {
		return GateBeyond
	}
	return GateWithin
}

// GateChange is an indirect branch, or a function, that is executed another number of times for a packet.
type GateChange struct {
	// Function it is in, or that is entered; Target is what a branch calls, or the pointer that it calls by.
	Function string  `json:"function"`
	Target   string  `json:"target,omitempty"`
	Part     string  `json:"part,omitempty"` // as of [LabFunction]
	Old      float64 `json:"old"`
	New      float64 `json:"new"`
	// Ns is an estimate in ns: the difference by the price of one. Of functions, and without a price, it is nil.
	Ns *stat.Quantity `json:"ns,omitempty"`
}

// Difference is how much more often it is executed now.
func (c *GateChange) Difference() float64 { return c.New - c.Old }

// Regressed implements [Changes].
func (g *Gate) Regressed() bool { return g.Verdict == GateBeyond }

// Nothing implements [Changes].
func (g *Gate) Nothing() string {
	if g.Verdict == GateCannotTell {
		return g.Why
	}
	return ""
}

func (g *Gate) check() error {
	if err := checkVerdict(g.Verdict, g.Why); err != nil {
		return err
	}
	if n := len(g.Unlike) + len(g.Console); n > maxNames {
		return errTooMany(n)
	}
	texts := append([]string{g.Why, g.Kernel, g.OldRelease, g.NewRelease, g.PriceOf, g.PriceThunk}, g.Console...)
	if err := checkTexts(texts); err != nil {
		return err
	}
	for _, u := range g.Unlike {
		for _, line := range []string{u.Old, u.New} {
			if err := (&LabBuild{CommandLine: line}).check(); err != nil {
				return err
			}
		}
		if n := len(u.Options); n > 2*MaxOptions {
			return errTooMany(n)
		}
		if err := checkTexts(append([]string{u.Name}, u.Options...)); err != nil {
			return err
		}
	}
	if err := checkQuantities([]quantity{{"price", "ns", g.Price, true}}); err != nil {
		return err
	}
	return checkRows(g.Rows, nil)
}

func checkVerdict(verdict, why string) error {
	switch verdict {
	case GateWithin, GateBeyond:
		return nil
	case GateCannotTell:
		if why == "" {
			return errors.New("a verdict that cannot be told, without a reason")
		}
		return nil
	}
	return fmt.Errorf("impossible verdict %.60q", verdict)
}

func (r *GateRow) rowName() string { return r.Name }

func (r *GateRow) check() error {
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	if err := checkVerdict(r.Verdict, r.Missing); err != nil {
		return err
	}
	if err := checkTexts([]string{r.Missing, r.Behavior}); err != nil {
		return err
	}
	for _, c := range []*GateCount{r.Instructions, r.Indirect} {
		// A program of the user's may take less than one that only passes.
		if c != nil && !(possibleCount(math.Abs(c.Old)) && possibleCount(math.Abs(c.New)) && possibleCount(c.Allowed) &&
			possibleCount(c.Spread)) {
			return fmt.Errorf("impossible count %v → %v", c.Old, c.New)
		}
	}
	if r.Missing == "" && r.Indirect == nil && r.Instructions == nil {
		return errNeither
	}
	if err := checkQuantities([]quantity{{"ns", "ns", r.Ns, true}}); err != nil {
		return err
	}
	if r.Trace != nil {
		if err := r.Trace.check(); err != nil {
			return fmt.Errorf("trace: %w", err)
		}
	}
	for _, changes := range [][]GateChange{r.Sites, r.Functions} {
		if n := len(changes); n > MaxRows {
			return errTooMany(n)
		}
		if err := checkEach("change", changes); err != nil {
			return err
		}
	}
	return nil
}

func (c *GateChange) check() error {
	if c.Function == "" || !possibleCount(c.Old) || !possibleCount(c.New) {
		return fmt.Errorf("impossible count of function %.60q", c.Function)
	}
	if err := checkTexts([]string{c.Function, c.Target, c.Part}); err != nil {
		return err
	}
	return checkQuantities([]quantity{{"ns", "ns", c.Ns, true}})
}

// Gate is a record of gate.
func (s *Saved) Gate() *Gate { return as[*Gate](s) }

// Place is what a row of lab counts, whichever kernel it counts it on: "redirect-map/bulk=16",
// "nic=igb/dma=direct/redirect-map/bulk=16". boot adds the CPU model and the command line.
func (r *LabRow) Place(boot bool) string {
	var parts []string
	add := func(names ...string) {
		for _, name := range names {
			if value := r.Labels[name]; value != "" {
				parts = append(parts, name+"="+value)
			}
		}
	}
	if nic := r.Labels["nic"]; nic != "" && nic != "veth" {
		add("nic", "dma")
	}
	if boot {
		add("cpu", "append")
	}
	if r.Labels["prog"] != "" {
		// The packets may have another file: what they are is compared with the counts.
		return strings.Join(append(parts, "prog="+r.Labels["prog"], r.Labels["class"]), "/")
	}
	parts = append(parts, cmp.Or(r.Labels["scenario"], DefaultLabScenario))
	for _, name := range slices.Sorted(maps.Keys(r.Labels)) {
		if !slices.Contains([]string{"kernel", "cpu", "append", "nic", "dma", "scenario", "bulk"}, name) {
			add(name)
		}
	}
	add("bulk")
	return strings.Join(parts, "/")
}

// DefaultLabScenario is that of rows of lab whose labels name none.
const DefaultLabScenario = "redirect-map"
