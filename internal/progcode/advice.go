package progcode

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Rows of tax that prices are from.
const (
	priceThunk    = "bpf-prog"
	priceTailCall = "tail-call"
	priceEach     = "callback/for-each"
	priceLoop     = "callback/loop"
	priceCall     = "direct-call"
	priceObserver = "tracepoint/1"
	lookupPrices  = "map-lookup/"
)

// lookupOf is the row of tax that prices a lookup by the map's own function, by the type of
// the map; "" where none does. What looks up a per-CPU or LRU hash is made as for a hash.
func lookupOf(types []string) string {
	rows := map[string]string{
		ebpf.Hash.String(): "hash", ebpf.LRUHash.String(): "hash", ebpf.PerCPUHash.String(): "hash", ebpf.LRUCPUHash.String(): "hash",
		ebpf.Array.String(): "array", ebpf.PerCPUArray.String(): "array", ebpf.LPMTrie.String(): "lpm",
	}
	for _, t := range types {
		if row := rows[t]; row != "" {
			return lookupPrices + row
		}
	}
	return ""
}

// priceOf is the row of tax that prices a row, "" for what none prices: an inlined lookup, a
// trampoline, a jump to a known program.
func priceOf(doc *record.ProgXray, row *record.ProgSiteRow) string {
	switch kind := Kind(row.Kind); {
	case row.Made == Inline, kind == KindAttached, kind == KindReplaced:
		return ""
	case kind == KindTailCall && row.Indirect:
		return priceTailCall
	case row.Indirect:
		return priceThunk
	case kind == KindTailCall:
		return ""
	case kind == KindCallback && strings.Contains(row.Calls, "for_each"):
		return priceEach
	case kind == KindCallback && row.Calls == "bpf_loop":
		return priceLoop
	case row.Generic && kind == KindLookup:
		return lookupOf(typesOf(doc, row))
	case row.Generic:
		return ""
	}
	return priceCall
}

// typesOf are the types of the maps that a row may look into.
func typesOf(doc *record.ProgXray, row *record.ProgSiteRow) (out []string) {
	for _, m := range doc.Maps {
		if slices.Contains(row.Maps, m.Name) {
			out = append(out, m.Type)
		}
	}
	return out
}

// Pairs are the rows of tax that price what a record has, for a run that measures them.
// observed tells whether programs are at the tracepoints of redirects.
func Pairs(doc *record.ProgXray, observed bool) (out []string) {
	add := func(pair string) {
		if pair != "" && !slices.Contains(out, pair) {
			out = append(out, pair)
		}
	}
	for i := range doc.Rows {
		add(priceOf(doc, &doc.Rows[i]))
	}
	if outside(doc) {
		add(priceThunk)
	}
	if observed {
		add(priceObserver)
	}
	slices.Sort(out)
	return out
}

// outside tells whether the program is attached and not in the BPF dispatcher.
func outside(doc *record.ProgXray) bool {
	return doc.Dispatcher != nil && !doc.Dispatcher.In && len(doc.Program.Attached) > 0
}

// Price adds prices to the rows of a record; from says where they are from.
func Price(doc *record.ProgXray, prices []record.TaxRow, from string) {
	doc.PricesFrom = record.Sentence(from) // it has the name of a file
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if of := priceOf(doc, row); of != "" {
			if row.Price = priced(prices, of); row.Price != nil {
				row.PriceOf = of
			}
		}
	}
}

// priced is the price of a row of tax, nil for none.
func priced(prices []record.TaxRow, name string) *stat.Quantity {
	for i := range prices {
		if prices[i].Name == name {
			return prices[i].Price
		}
	}
	return nil
}

// Advise adds what to change: only what the code, the dispatcher and the observers of this
// machine call for. observers are the programs at the tracepoints of redirects.
func Advise(doc *record.ProgXray, prices []record.TaxRow, observers []string) {
	add := func(what string, rows []string, saves *stat.Quantity, format string, args ...any) {
		doc.Changes = append(doc.Changes, record.ProgXrayChange{What: what, Rows: rows, Text: fmt.Sprintf(format, args...), Saves: saves})
	}
	redirects := false
	for i := range doc.Rows {
		row := &doc.Rows[i]
		rows, at := []string{row.Name}, place(row)
		redirects = redirects || Kind(row.Kind) == KindRedirect
		switch kind := Kind(row.Kind); {
		case kind == KindTailCall && doc.Host.CallSites == host.ARM64CallSites: // whose JIT always jumps through a register
		case kind == KindTailCall && row.Indirect && row.Index != nil:
			if h := doc.Host.BPFHarden; h != "" && h != "off" {
				add("constant-index", rows, row.Price, "%s: the index is %d, and the jump is indirect as constants are blinded "+
					"(net.core.bpf_jit_harden)", at, *row.Index)
			}
		case kind == KindTailCall && row.Indirect:
			add("constant-index", rows, row.Price, "%s: jump to %s by a constant index: a switch over the index, with libbpf's "+
				"bpf_tail_call_static in each case, jumps directly; of plain bpf_tail_call the compiler makes one call again",
				at, one(row.Maps, "the next program"))
		case kind == KindLookup && row.Generic && len(row.Maps) > 1:
			add("known-map", rows, row.Price, "%s: look into %s in a branch each, with asm volatile(\"\") behind one lookup: the "+
				"compiler makes one of two that are alike, and the verifier makes one of a known map inline or direct",
				at, strings.Join(row.Maps, " and "))
		case kind == KindLookup && row.Generic:
			add("known-map", rows, row.Price, "%s: name the map: the verifier makes a lookup of a known map inline or direct", at)
		case kind == KindCallback && row.Calls == "bpf_loop":
			add("inline-loop", rows, row.Price, "%s: give bpf_loop flags that are 0 and one callback, both known when it is loaded: "+
				"then the loop is inlined", at)
		case kind == KindCallback && strings.Contains(row.Calls, "for_each_array"):
			add("inline-loop", rows, row.Price, "%s: go over the array by bpf_loop or a bounded loop: "+
				"bpf_for_each_map_elem calls back indirectly for each element", at)
		case kind == KindAttached:
			add("trampoline", rows, nil, "detach what runs at the entry of %s (fentry or fexit), if nobody needs it", row.Function)
		}
	}
	if d := doc.Dispatcher; outside(doc) {
		text := "attach the program again: there is room in the BPF dispatcher now"
		if d.Programs >= d.Slots {
			text = fmt.Sprintf("have it be one of the %d programs in the BPF dispatcher: detach another one, then attach it again", d.Slots)
		}
		add("dispatcher", nil, priced(prices, priceThunk), "%s", text)
	}
	if redirects && len(observers) > 0 {
		add("observers", nil, priced(prices, priceObserver), "detach what observes redirects: %s", strings.Join(observers, ", "))
	}
}

// place is where a row stands: its line, or its function.
func place(row *record.ProgSiteRow) string {
	if row.Source == nil {
		if row.Offset == nil {
			return row.Function
		}
		return fmt.Sprintf("%s+%#x", row.Function, *row.Offset)
	}
	file := row.Source.File
	return fmt.Sprintf("%s:%d", file[strings.LastIndexByte(file, '/')+1:], row.Source.Line)
}

// one is the only name of a list.
func one(names []string, otherwise string) string {
	if len(names) == 1 {
		return names[0]
	}
	return otherwise
}
