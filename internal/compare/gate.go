package compare

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// GateOptions are the choices of [Gate].
type GateOptions struct {
	// Kernel is the one that was counted, as it was asked for.
	Kernel string
	// Max are what a packet may take more; what they do not name may take nothing more.
	Max []Allowance
	// Unlike are the parts of a build, of [BuildParts], that may differ.
	Unlike []string
	// BehaviorMayChange lets packets come out of a program otherwise than in the base.
	BehaviorMayChange bool
	// Price is that of one indirect call in ns, on the machine PricedOn, which is named by PriceOf; it may be nil.
	Price    *stat.Quantity
	PricedOn host.Fingerprint
	PriceOf  string
}

// buildPart is a part of a build that counts depend on besides the kernel's source.
type buildPart struct {
	name string
	of   func(*record.LabBuild, *record.LabProgram) string
}

// buildParts are what two builds must agree in.
func buildParts() []buildPart {
	return []buildPart{
		{"compiler", func(b *record.LabBuild, _ *record.LabProgram) string { return b.Compiler }},
		{"config", func(b *record.LabBuild, _ *record.LabProgram) string { return b.Config }},
		{"boot", func(b *record.LabBuild, _ *record.LabProgram) string { return b.CommandLine }},
		{"arch", func(b *record.LabBuild, _ *record.LabProgram) string { return cmp.Or(b.Arch, "amd64") }},
		{"cpu", func(b *record.LabBuild, _ *record.LabProgram) string { return b.CPU }},
		{"qemu", func(b *record.LabBuild, _ *record.LabProgram) string { return b.QEMU }},
		{"unthunk", func(b *record.LabBuild, _ *record.LabProgram) string { return b.Unthunk }},
		{"packets", func(_ *record.LabBuild, p *record.LabProgram) string { return p.Source.Hash }},
	}
}

// BuildParts are the names of what two builds must agree in.
func BuildParts() []string {
	var names []string
	for _, p := range buildParts() {
		names = append(names, p.name)
	}
	return names
}

// CheckBase returns why a record cannot be a base; nil when it can.
func CheckBase(base *record.Lab) error {
	kernels, counted := make(map[string]bool), false
	for i := range base.Rows {
		kernels[base.Rows[i].Labels["kernel"]] = true
		counted = counted || base.Rows[i].Refused == ""
	}
	switch {
	case base.Incomplete:
		return errors.New("the run that made it was stopped before its end")
	case len(base.Rows) == 0:
		return errors.New("it has no row")
	case len(kernels) > 1:
		return fmt.Errorf("it has rows of %d kernels: a base is of one", len(kernels))
	case !counted:
		return fmt.Errorf("no row of it has a number: %s", base.Rows[0].Refused)
	}
	return nil
}

// Gate says whether a packet takes more in the rows of now than the rows of base allow. Rows are matched by
// [record.LabRow.Place]. A row of the base that was not counted cannot be told, and neither can builds that are
// unlike. A row that has no number in the base is left out, with a warning: its kernel lacks what is counted. Of a row
// without instructions on both sides a warning says so, and it cannot be told where a packet takes more of the DMA API. A row
// that is not beyond cannot be told where one side alone has indirect branches, or neither and an allowance is for them. It
// returns an error when an option names a row that the base does not have, the base is none, or two rows of one side are of
// one place.
func Gate(base, now *record.Lab, opts GateOptions) (*record.Gate, error) {
	if err := CheckBase(base); err != nil {
		return nil, err
	}
	g := &record.Gate{Kernel: opts.Kernel, Price: opts.Price, PriceOf: record.Sentence(opts.PriceOf)}
	if opts.Price != nil {
		g.PriceThunk = record.Sentence(opts.PricedOn.IndirectThunk)
	}
	g.Head, g.Compared = headOf(&base.Head, &now.Head)
	g.Kind, g.Rows, g.Warnings = "gate", []record.GateRow{}, []record.Warning{}
	place, noNs := placesOf(base), make(map[string]bool)
	if err := knownRows(opts.Max, base, place); err != nil {
		return nil, err
	}
	if _, err := byPlace(base, place); err != nil {
		return nil, err
	}
	counted, err := byPlace(now, place)
	if err != nil {
		return nil, fmt.Errorf("what is compared with it: %w", err)
	}
	addDoubts(g, base.Warnings, now.Warnings)
	for i := range base.Rows {
		was := &base.Rows[i]
		is := counted[place(was)]
		if was.Refused != "" {
			g.Warn(place(was), record.Sentence("left out, as the base has no number: "+was.Refused))
			continue
		}
		g.OldRelease = cmp.Or(g.OldRelease, was.Release)
		row := gateRow(place(was), was, is, opts)
		g.Rows = append(g.Rows, row)
		if is != nil && is.Refused == "" && row.Missing == "" && oneSided(was, is) {
			side := "now"
			if was.CallsPerPacket == nil {
				side = "the base"
			}
			g.Warn(place(was), record.Sentence("indirect branches are not compared: "+side+" has none counted"))
		}
		if why := unpriced(was, is, opts); why != "" && was.CallsPerPacket != nil && is.CallsPerPacket != nil {
			noNs[why] = true
		}
		if is != nil && is.Refused == "" && was.Instructions == nil && is.Instructions == nil {
			g.Warn(place(was), "it has no instructions: indirect branches alone are compared, and that no more is done of the DMA API")
		}
		if is != nil && redirectsUnknown(was.Program, is.Program) {
			g.Warn(place(was), "where redirects go was not compared: it is not known of both sides")
		}
		if is != nil {
			g.NewRelease = cmp.Or(g.NewRelease, is.Release)
			addUnlike(g, was, is, opts.Unlike)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(noNs)) {
		g.Warn("", "no ns: "+why)
	}
	for i := range g.Unlike {
		if u := &g.Unlike[i]; u.Name == "config" {
			u.Options = optionChanges(optionsOf(base), optionsOf(now))
		}
	}
	judge(g)
	return g, nil
}

// optionsOf are the options of the kernel that a record has counted, by name.
func optionsOf(l *record.Lab) map[string]string {
	for i := range l.Rows {
		b := l.Rows[i].Build
		if b == nil || len(b.Options) == 0 {
			continue
		}
		values := make(map[string]string)
		for _, o := range b.Options {
			name, value, _ := strings.Cut(o, "=")
			values[name] = value
		}
		return values
	}
	return nil
}

// optionChanges are the options that two kernels differ in; none where one side has not kept any.
func optionChanges(old, new map[string]string) (changes []string) {
	if old == nil || new == nil {
		return nil
	}
	all := maps.Clone(old)
	maps.Copy(all, new)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if old[name] != new[name] {
			changes = append(changes, fmt.Sprintf("%s: %s → %s", name, cmp.Or(old[name], "off"), cmp.Or(new[name], "off")))
		}
	}
	return changes
}

// addDoubts adds the warnings of both sides; those that both have once.
func addDoubts(g *record.Gate, base, now []record.Warning) {
	texts := func(list []record.Warning) map[string]bool {
		set := make(map[string]bool)
		for _, w := range list {
			set[w.Text] = true
		}
		return set
	}
	before, after := texts(base), texts(now)
	for _, w := range base {
		if !after[w.Text] {
			g.Warn(w.Row, record.Sentence("base: "+w.Text))
		}
	}
	for _, w := range now {
		if before[w.Text] {
			g.Warn(w.Row, w.Text)
		} else {
			g.Warn(w.Row, record.Sentence("now: "+w.Text))
		}
	}
}

// CanTrace tells whether a trace of now would say where the rows of a verdict are beyond: the base has traces of such
// rows.
func CanTrace(g *record.Gate, base *record.Lab) bool {
	beyond, place := make(map[string]bool), placesOf(base)
	for i := range g.Rows {
		beyond[g.Rows[i].Name] = g.Rows[i].Verdict == record.GateBeyond
	}
	return slices.ContainsFunc(base.Rows, func(r record.LabRow) bool { return r.Trace != nil && beyond[place(&r)] })
}

// AddTraces adds to rows that are beyond in which functions their instructions differ, by the traces of the base and of
// a second count. It warns of rows that the second count counted otherwise.
func AddTraces(g *record.Gate, base, traced *record.Lab) {
	place := placesOf(base)
	was, is := make(map[string]*record.LabRow), make(map[string]*record.LabRow)
	for i := range base.Rows {
		was[place(&base.Rows[i])] = &base.Rows[i]
	}
	for i := range traced.Rows {
		is[place(&traced.Rows[i])] = &traced.Rows[i]
	}
	for i := range g.Rows {
		r := &g.Rows[i]
		old, now := was[r.Name], is[r.Name]
		if r.Verdict != record.GateBeyond || old == nil || now == nil {
			continue
		}
		switch {
		case now.Refused != "":
			g.Warn(r.Name, record.Sentence("not traced: "+now.Refused))
		case r.Instructions == nil || now.Instructions == nil || math.Abs(*now.Instructions-r.Instructions.New) > r.Instructions.Spread:
			g.Warn(r.Name, "not traced: the guest that was traced counted otherwise")
		default:
			r.Trace = LabTrace(old, now)
		}
	}
}

// placesOf tells rows apart as those of base are: by CPU model and command line only where it has several.
func placesOf(base *record.Lab) func(*record.LabRow) string {
	boots := make(map[[2]string]bool)
	for i := range base.Rows {
		boots[[2]string{base.Rows[i].Labels["cpu"], base.Rows[i].Labels["append"]}] = true
	}
	return func(r *record.LabRow) string { return r.Place(len(boots) > 1) }
}

// byPlace are rows by their place. It returns an error when two are of one: which of them counts, nobody could say.
func byPlace(l *record.Lab, place func(*record.LabRow) string) (map[string]*record.LabRow, error) {
	rows := make(map[string]*record.LabRow)
	for i := range l.Rows {
		at := place(&l.Rows[i])
		if first := rows[at]; first != nil {
			return nil, fmt.Errorf("rows %q and %q are both of %s", first.Name, l.Rows[i].Name, at)
		}
		rows[at] = &l.Rows[i]
	}
	return rows, nil
}

// gateRow is what became of a row of the base; is may be nil.
func gateRow(name string, was, is *record.LabRow, opts GateOptions) record.GateRow {
	r := record.GateRow{Name: name, Labels: maps.Clone(was.Labels), Verdict: record.GateCannotTell}
	switch {
	case is == nil:
		r.Missing = "it was not counted"
		return r
	case is.Refused != "":
		r.Missing = record.Sentence(is.Refused)
		return r
	case (was.Instructions == nil) != (is.Instructions == nil):
		r.Missing = "only one side has instructions"
	}
	if was.Instructions != nil && is.Instructions != nil {
		r.Instructions = &record.GateCount{Old: *was.Instructions, New: *is.Instructions,
			Allowed: allowed(opts.Max, name, "instructions", *was.Instructions), Spread: spread(was, is)}
	}
	if was.CallsPerPacket != nil && is.CallsPerPacket != nil {
		r.Indirect = &record.GateCount{Old: *was.CallsPerPacket, New: *is.CallsPerPacket,
			Allowed: allowed(opts.Max, name, "indirect", *was.CallsPerPacket)}
	}
	price := opts.Price
	if unpriced(was, is, opts) != "" {
		price = nil
	}
	if r.Indirect != nil {
		r.Ns = times(price, r.Indirect.Difference())
	}
	r.Sites = siteChanges(was, is, price)
	r.Functions = functionChanges(was, is)
	if r.Missing != "" {
		return r
	}
	r.Verdict = record.GateWithin
	for _, c := range []*record.GateCount{r.Instructions, r.Indirect} {
		if c != nil && c.Verdict() == record.GateBeyond {
			r.Verdict = record.GateBeyond
		}
	}
	nic := was.Labels["nic"]
	if nic != "" && nic != "veth" && (was.Spread == nil || is.Spread == nil) && r.Verdict == record.GateBeyond &&
		(r.Indirect == nil || r.Indirect.Verdict() != record.GateBeyond) {
		r.Verdict = record.GateCannotTell
		r.Missing = "on wires two boots differ in some instructions, and nothing says how many"
	}
	if more := moreDMA(was, is); more != "" && r.Instructions == nil && r.Verdict == record.GateWithin {
		r.Verdict, r.Missing = record.GateCannotTell, "it has no instructions, and a packet takes more "+more
	}
	if was.Program != nil && is.Program != nil && was.Program.Source.Hash == is.Program.Source.Hash &&
		(was.Program.Outcome != is.Program.Outcome || redirectsDiffer(was.Program, is.Program)) {
		r.Behavior = behavior(was.Program, is.Program)
		if !opts.BehaviorMayChange {
			r.Verdict = record.GateBeyond
		}
	}
	if why := noIndirect(name, was, is, opts.Max); why != "" && r.Verdict == record.GateWithin {
		r.Verdict, r.Missing = record.GateCannotTell, why
	}
	return r
}

// unpriced says why a price says nothing of what comes and goes between two rows; empty where it does, and where there is none. Where CFI
// tested what went, that was another call.
func unpriced(was, is *record.LabRow, opts GateOptions) string {
	if opts.Price == nil || is == nil {
		return ""
	}
	if why := is.Unpriced(opts.PricedOn); why != "" || was.Tested() == "" {
		return why
	}
	return "the price is of a retpoline whose target CFI does not test, and in the base it does (" + was.Tested() + ")"
}

// noIndirect says why the indirect branches of a row cannot be told: one side alone has them, or neither and an allowance is for
// them, as of a program that was not traced. It is empty where they can, and where nobody asks.
func noIndirect(name string, was, is *record.LabRow, max []Allowance) string {
	switch {
	case oneSided(was, is):
		return "only one side has indirect branches"
	case was.CallsPerPacket == nil && slices.ContainsFunc(max, func(a Allowance) bool {
		return a.Count == "indirect" && (a.Row == "" || a.Row == name)
	}):
		return "neither side has indirect branches, which --max is of"
	}
	return ""
}

// oneSided tells whether one of two rows alone has indirect branches counted.
func oneSided(was, is *record.LabRow) bool {
	return (was.CallsPerPacket == nil) != (is.CallsPerPacket == nil)
}

// moreDMA names what a packet takes more of the DMA API, with both counts; empty where it takes nothing more. What fills a ring
// ahead makes two boots differ: by 512 descriptors in 4096 packets.
func moreDMA(was, is *record.LabRow) string {
	const boots = 512. / 4096
	old, now := was.SumDMA(), is.SumDMA()
	var none float64
	var more []string
	for _, n := range []struct {
		what     string
		old, now float64
	}{
		{"maps", old.Map, now.Map}, {"unmaps", old.Unmap, now.Unmap}, {"syncs", old.Sync, now.Sync},
		{"bounces", old.Bounce, now.Bounce}, {"flushes", old.Flush, now.Flush},
		{"copies", *cmp.Or(old.Copy, now.Copy, &none), *cmp.Or(now.Copy, old.Copy, &none)}, // where one side has not counted them
	} {
		if n.now-n.old > boots {
			more = append(more, fmt.Sprintf("%s (%s → %s)", n.what, stat.Exact(n.old), stat.Exact(n.now)))
		}
	}
	return strings.Join(more, ", ")
}

// spread is how many instructions two boots may differ in: what either side says.
func spread(rows ...*record.LabRow) (most float64) {
	for _, r := range rows {
		if r.Spread != nil {
			most = max(most, *r.Spread)
		}
	}
	return most
}

// redirectsDiffer says whether two programs redirect the same packets to other places, where both are known.
func redirectsDiffer(was, is *record.LabProgram) bool {
	return was.Redirects != is.Redirects && was.Redirects != "" && is.Redirects != ""
}

// redirectsUnknown says whether two programs redirect, and where to is not known of both.
func redirectsUnknown(was, is *record.LabProgram) bool {
	return was != nil && is != nil && was.Verdicts["redirect"] > 0 && is.Verdicts["redirect"] > 0 &&
		(was.Redirects == "" || is.Redirects == "")
}

// behavior says how packets come out of a program otherwise.
func behavior(was, is *record.LabProgram) string {
	if was.Outcome == is.Outcome {
		return "packets are redirected to another place than by the base's program"
	}
	if maps.Equal(was.Verdicts, is.Verdicts) {
		return "packets come out otherwise than of the base's program"
	}
	return record.Sentence(fmt.Sprintf("packets come out otherwise than of the base's program: %s, which were %s", byVerdict(is.Verdicts),
		byVerdict(was.Verdicts)))
}

// byVerdict is how many packets have each, by name.
func byVerdict(of map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, of[name]))
	}
	return strings.Join(parts, ", ")
}

// times is a price that is paid some number of times more, or fewer; nil where there is nothing to pay.
func times(price *stat.Quantity, n float64) *stat.Quantity {
	if price == nil || n == 0 {
		return nil
	}
	a, b := price.Low*n, price.High*n
	return &stat.Quantity{Median: price.Median * n, Low: min(a, b), High: max(a, b), N: price.N, Unit: "ns"}
}

// siteKey is an indirect branch in two kernels: its offset moves with every build.
type siteKey struct{ function, target, part string }

// siteChanges are the indirect branches that two rows differ in. There are none where one side alone was counted: what the other
// lacks is not gone.
func siteChanges(was, is *record.LabRow, price *stat.Quantity) []record.GateChange {
	if oneSided(was, is) {
		return nil
	}
	name := untagged(was, is)
	count := func(r *record.LabRow) map[siteKey]float64 {
		n := make(map[siteKey]float64)
		for _, s := range r.Sites {
			n[siteKey{name(s.Function), name(cmp.Or(s.Target, s.Pointer)), s.Part}] += s.PerPacket
		}
		return n
	}
	changes := countChanges(count(was), count(is))
	for i := range changes {
		changes[i].Ns = times(price, changes[i].Difference())
	}
	return changes
}

// untagged gives a symbol of a BPF program the program's own name: the tag is of its instructions, and every edit makes another.
// Where one side has two programs of a name, those keep their tags.
func untagged(was, is *record.LabRow) func(symbol string) string {
	twice := map[string]bool{}
	for _, r := range []*record.LabRow{was, is} {
		symbols := map[string]string{}
		note := func(symbol string) {
			if own := functions.Program(symbol); own != "" {
				twice[own] = twice[own] || cmp.Or(symbols[own], symbol) != symbol
				symbols[own] = symbol
			}
		}
		for _, s := range r.Sites {
			note(s.Function)
			note(s.Target)
		}
		for _, f := range r.Functions {
			note(f.Function)
		}
	}
	return func(symbol string) string {
		if own := functions.Program(symbol); own != "" && !twice[own] {
			return own + " [bpf]"
		}
		return symbol
	}
}

func functionChanges(was, is *record.LabRow) []record.GateChange {
	name := untagged(was, is)
	count := func(r *record.LabRow) map[siteKey]float64 {
		n := make(map[siteKey]float64)
		for _, f := range r.Functions {
			n[siteKey{function: name(f.Function), part: f.Part}] += f.PerPacket
		}
		return n
	}
	return countChanges(count(was), count(is))
}

// countChanges are the entries in which two differ, what grew most first.
func countChanges(old, new map[siteKey]float64) (changes []record.GateChange) {
	keys := maps.Clone(old)
	maps.Copy(keys, new)
	for k := range keys {
		if old[k] != new[k] {
			changes = append(changes, record.GateChange{Function: k.function, Target: k.target, Part: k.part, Old: old[k], New: new[k]})
		}
	}
	slices.SortFunc(changes, func(a, b record.GateChange) int {
		return cmp.Or(cmp.Compare(b.Difference(), a.Difference()), strings.Compare(a.Part, b.Part),
			strings.Compare(a.Function, b.Function), strings.Compare(a.Target, b.Target))
	})
	return changes
}

// addUnlike adds what two builds differ in, each part once.
func addUnlike(g *record.Gate, was, is *record.LabRow, allow []string) {
	if is.Refused != "" || was.Refused != "" {
		return
	}
	var none record.LabBuild
	old, now := cmp.Or(was.Build, &none), cmp.Or(is.Build, &none)
	var noProgram record.LabProgram
	oldProgram, nowProgram := cmp.Or(was.Program, &noProgram), cmp.Or(is.Program, &noProgram)
	for _, part := range buildParts() {
		a, b := part.of(old, oldProgram), part.of(now, nowProgram)
		known := a != "" || part.name == "packets" // which redirects have not
		if a == b && known || slices.ContainsFunc(g.Unlike, func(u record.GateUnlike) bool { return u.Name == part.name }) {
			continue
		}
		g.Unlike = append(g.Unlike, record.GateUnlike{Name: part.name, Old: a, New: b, Allowed: slices.Contains(allow, part.name)})
	}
}

// judge gives the verdict of all rows together.
func judge(g *record.Gate) {
	var refused []string
	for _, u := range g.Unlike {
		if !u.Allowed {
			refused = append(refused, u.Name)
		}
	}
	if len(refused) > 0 {
		names := strings.Join(refused, ",")
		g.Verdict = record.GateCannotTell
		g.Why = record.Sentence(fmt.Sprintf("the builds are unlike in %s: --unlike %s compares them all the same",
			strings.Join(refused, ", "), names))
		for i := range g.Rows {
			r := &g.Rows[i]
			r.Verdict, r.Missing = record.GateCannotTell, cmp.Or(r.Missing, "the builds are unlike")
		}
		return
	}
	g.Verdict = record.GateWithin
	var first *record.GateRow
	untold := 0
	for i := range g.Rows {
		switch r := &g.Rows[i]; r.Verdict {
		case record.GateBeyond:
			g.Verdict = record.GateBeyond
			return
		case record.GateCannotTell:
			first, untold = cmp.Or(first, r), untold+1
		}
	}
	if first == nil {
		return
	}
	name := first.Name
	if untold > 1 {
		name += fmt.Sprintf(" and %d more", untold-1)
	}
	g.Verdict, g.Why = record.GateCannotTell, record.Sentence(name+": "+first.Missing)
}
