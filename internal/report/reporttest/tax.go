package reporttest

import (
	"math/rand/v2"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// CallRow is a call priced at ns.
func CallRow(r *rand.Rand, name string, ns float64) record.TaxRow {
	row := record.TaxRow{Name: name}
	var with, without []float64
	for i := range 15 {
		without = append(without, 8+0.1*r.NormFloat64())
		with = append(with, without[i]+ns+0.1*r.NormFloat64())
		row.Samples, row.Rounds = append(row.Samples, with[i]-without[i]), append(row.Rounds, i)
	}
	w, o, p := stat.Summarize(with, "ns"), stat.Summarize(without, "ns"), stat.Shift(with, without, "ns")
	row.With, row.Without, row.Price = &w, &o, &p
	return row
}

// Calls is a record of tax: calls whose prices are factor times those of factor 1.
func Calls(run string, seed uint64, factor float64) *record.Document[record.TaxRow] {
	bench := Bench(run, seed, 1)
	doc := &record.Document[record.TaxRow]{
		Head:     record.Head{Schema: record.Schema, Kind: "tax", Run: run, Time: bench.Time, Host: bench.Host},
		Warnings: []record.Warning{},
	}
	r := rand.New(rand.NewPCG(seed, 8))
	for _, call := range []struct {
		name string
		ns   float64
	}{
		{"control", 0}, {"map-lookup/array", 0.9}, {"map-lookup/hash", 3.1}, {"napi-poll", 9},
		{"ndo-xdp-xmit/bulk=1", 12.4},
		{"ndo-xdp-xmit/bulk=16", 12.5}, {"dispatcher/of-one-program/without-its-trampoline", 4},
		{"packet/redirect-map", 31},
	} {
		if call.ns != 9 {
			call.ns *= factor
		}
		doc.Rows = append(doc.Rows, CallRow(r, call.name, call.ns))
	}
	return doc
}

// Tax is a record of tax with a row of each sort.
func Tax() *record.Document[record.TaxRow] {
	doc := Calls("one", 1, 1)
	doc.Settings = map[string]string{"core-clock": "3.93 GHz (3.77 to 4.03)"}
	doc.Rows = doc.Rows[:4]
	label := func(row *record.TaxRow, calls string) *record.TaxRow {
		family, variant, _ := strings.Cut(row.Name, "/")
		row.Labels, row.Target = map[string]string{"pair": family, "variant": variant}, calls
		return row
	}
	r := rand.New(rand.NewPCG(3, 3))
	add := func(name, calls string, ns float64) *record.TaxRow {
		doc.Rows = append(doc.Rows, CallRow(r, name, ns))
		return label(&doc.Rows[len(doc.Rows)-1], calls)
	}
	count := func(row *record.TaxRow, n float64) {
		cycles, ns := *row.Price, *row.Price
		cycles.Median, cycles.Unit = cycles.Median*2.6, "cycles"
		ns.Median, ns.Low, ns.High = ns.Median*n, ns.Low*n, ns.High*n
		row.Cycles, row.NsPerPacket = &cycles, &ns
		row.PerPacket = &stat.Quantity{Median: n, Low: n, High: n, N: 1, Unit: "calls"}
	}
	label(&doc.Rows[0], "nothing: two loads of one program")
	doc.Rows[0].Premise = "no indirect branch on either side that the other does not have"
	const lookup = "map->ops->map_lookup_elem: of a map the verifier cannot know, against one it knows"
	for i := range doc.Rows[1:4] {
		count(label(&doc.Rows[1+i], lookup), 0)
		doc.Rows[1+i].Premise = "bpf_map_lookup_elem+0xd: jmp __x86_indirect_thunk_rax"
	}
	doc.Rows[2].Note = "one indirect branch, and a direct call with its return"
	refused := label(&doc.Rows[3], doc.Rows[3].Target)
	refused.Refused = "already direct here: the code of both sides makes the same indirect branches"
	refused.Price, refused.With, refused.Without, refused.Cycles = nil, nil, nil, nil
	refused.PerPacket, refused.NsPerPacket = nil, nil
	refused.Premise = ""
	hop := add("ndo-xdp-xmit/bulk=64", "netdev_ops->ndo_xdp_xmit: the hop at bulk 1 against a larger bulk, a packet", 280)
	count(hop, 0.94)
	hop.NsPerPacket = &stat.Quantity{Median: 11.3, Low: 10.9, High: 12, N: 16, Unit: "ns"} // of the calls alone
	count(add("tracepoint/2", "observers at xdp_redirect: one or two against none, a hit", 131), 1)
	count(add("packet/bulk=16", "all indirect calls of a redirected packet", 1.5), 0.13)
	doc.Warnings = append(doc.Warnings, record.Warning{Row: "control", Text: "the control is not 0"},
		record.Warning{Text: "9 of 15 rounds fitted into the duration"})
	return doc
}
