package reporttest

import (
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// ProgXray is what was read of a program that has a place of each sort.
func ProgXray() *record.ProgXray {
	doc := &record.ProgXray{
		Document: record.Document[record.ProgSiteRow]{
			Head:     record.Head{Schema: record.Schema, Kind: "prog-xray", Run: "one", Settings: map[string]string{"target": "dev:eth0"}},
			Warnings: []record.Warning{{Text: "a warning"}},
		},
		Program: record.ProgXrayProgram{
			Name: "lb_main", ID: 42, Tag: "0123456789abcdef", Type: "xdp", Attached: []string{"eth0 (native)"}, BPFInstructions: 1234, Bytes: 5678,
		},
		Functions:  []record.ProgXrayFunction{{Name: "lb_main", Bytes: 5000}, {Name: "backend_of", Bytes: 678}},
		Maps:       []record.ProgXrayMap{{ID: 7, Name: "flow_map", Type: "LRUHash", MaxEntries: 65536}},
		Dispatcher: &record.ProgXrayDispatcher{Programs: 48, Slots: 48, Fallback: "call __x86_indirect_thunk_r8"},
		Returns:    map[string]int{"srso_return_thunk": 2}, PricesFrom: "tax.json of 2026-11-29",
	}
	price := func(ns float64) *stat.Quantity {
		return &stat.Quantity{Median: ns, Low: ns - 1, High: ns + 1, N: 15, Unit: "ns"}
	}
	line, offset := 100, uint64(0x20)
	add := func(name string, row record.ProgSiteRow, text string) {
		row.Name, row.Function = "lb_main/"+name, "lb_main"
		if text != "" {
			line += 7
			row.Source = &record.SourceLine{File: "src/lb.c", Line: line, Column: 5, Text: text}
		}
		if row.Made != "inline" && row.Made != "empty" {
			at := offset
			row.Offset = &at
			offset += 0x31
		}
		doc.Rows = append(doc.Rows, row)
	}
	index := int64(3)
	add("attached", record.ProgSiteRow{Kind: "attached", Made: "direct", Calls: "bpf_trampoline_6442"}, "")
	add("lookup flow_map", record.ProgSiteRow{Kind: "lookup", Made: "direct", Calls: "__htab_map_lookup_elem", Maps: []string{"flow_map"},
		Price: price(1.1), PriceOf: "direct-call"}, "f=bpf_map_lookup_elem(&flow_map,&key);")
	add("lookup a,b", record.ProgSiteRow{Kind: "lookup", Made: "direct", Calls: "bpf_map_lookup_elem", Maps: []string{"v4_map", "v6_map"},
		Generic: true, Within: 1, Price: price(18.25), PriceOf: "map-lookup/hash"}, "v=bpf_map_lookup_elem(map,&key);")
	add("lookup in pools", record.ProgSiteRow{Kind: "lookup", Made: "direct", Calls: "__htab_map_lookup_elem", Inner: []string{"pool_map"}},
		"p=bpf_map_lookup_elem(inner,&key);")
	add("lookup counters", record.ProgSiteRow{Kind: "lookup", Made: "inline", Maps: []string{"count_map"}}, "count(&count_map,1);")
	add("callback", record.ProgSiteRow{Kind: "callback", Made: "direct", Calls: "bpf_for_each_array_elem", Within: 1,
		Maps: []string{"backend_map"}, Price: price(9.5), PriceOf: "callback/for-each"}, "bpf_for_each_map_elem(&backend_map,add,&sum,0);")
	add("tail-call table", record.ProgSiteRow{Kind: "tail-call", Made: "retpoline", Indirect: true, Thunk: "__x86_indirect_thunk_rcx",
		Maps: []string{"table"}, Programs: []string{"v4", "v6"}, Price: price(12.5), PriceOf: "tail-call"}, "bpf_tail_call(ctx,&table,proto);")
	add("tail-call table#2", record.ProgSiteRow{Kind: "tail-call", Made: "empty", Maps: []string{"table"}, Index: &index},
		"bpf_tail_call(ctx,&table,3);")
	add("tail-call table#3", record.ProgSiteRow{Kind: "tail-call", Made: "direct", Maps: []string{"table"}, Index: &index, Calls: "v4",
		Programs: []string{"v4"}}, "bpf_tail_call(ctx,&table,0);")
	add("redirect ports", record.ProgSiteRow{Kind: "redirect", Made: "direct", Calls: "dev_map_redirect", Maps: []string{"port_map"}},
		"return bpf_redirect_map(&port_map,ctx->rx_queue_index,XDP_DROP);")
	add("subprogram", record.ProgSiteRow{Kind: "subprogram", Made: "direct", Calls: "backend_of"}, "")
	doc.Changes = []record.ProgXrayChange{
		{What: "constant-index", Rows: []string{"lb_main/tail-call table"}, Text: "lb.c:149: jump to table by a constant index",
			Saves: price(12.5)},
		{What: "observers", Text: "detach what observes redirects: dump_packets at xdp_redirect"},
	}
	return doc
}
