package conclusion

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Prices are what costs of programs are taken from.
type Prices struct {
	rows []record.TaxRow
	// Source says where they are from.
	Source string
}

// PricesOf are the prices of a record of tax or run, from a file.
func PricesOf(file string, s *record.Saved) (Prices, error) {
	rows, err := s.CarriedPrices()
	if err != nil {
		return Prices{}, fmt.Errorf("%s %w", file, err)
	}
	return Prices{rows, record.Sentence(file)}, nil
}

// DocumentedSource is where [DocumentedPrices] are from.
const DocumentedSource = "docs/tax.md, of another machine"

// DocumentedPrices are those of docs/tax.md, of a virtual machine on an EPYC of Zen 5 with
// Linux 6.18. They say which cost is large and which is small, not how large it is here.
func DocumentedPrices() Prices {
	p := Prices{Source: DocumentedSource}
	for _, row := range []struct {
		name             string
		price, low, high float64
	}{
		{"bpf-prog", 11.2, 10.6, 11.8},
		{"tail-call", 12.1, 11.7, 12.6},
		{"devmap-prog", 24.3, 22.7, 25.7},
		{"tracepoint/1", 53.1, 49.3, 57.6},
		{"tracepoint/2", 131, 126, 141},
	} {
		p.rows = append(p.rows, record.TaxRow{
			Name: row.name, Price: &stat.Quantity{Median: row.price, Low: row.low, High: row.high, Unit: "ns"},
		})
	}
	return p
}

// statisticsPrice is what timing a run of a BPF program took where docs/prog.md says, for
// prices that lack it: those of run do.
var statisticsPrice = stat.Quantity{Median: 69.8, Low: 66, High: 73.6, N: 7, Unit: "ns"}

// ProgramCosts are what the programs of a list, their maps and what observes them make
// packets pay beside the programs' own instructions.
func ProgramCosts(rows []record.ProgramRow, parts *record.ProgramListParts, prices Prices) []record.ProgramCost {
	c := costs{prices: prices, parts: parts}
	for i := range rows {
		c.program(&rows[i])
	}
	for i := range parts.Maps {
		c.entries(&parts.Maps[i])
	}
	c.observers()
	c.statistics()
	if c.all == nil {
		return []record.ProgramCost{}
	}
	return c.all
}

type costs struct {
	prices Prices
	parts  *record.ProgramListParts
	all    []record.ProgramCost
}

// add adds a cost with the price of a row of tax; none for "".
func (c *costs) add(row string, cost record.ProgramCost) {
	if found := priceRow(c.prices.rows, row); found != nil {
		cost.Row, cost.Ns, cost.Source = row, found.Price, c.prices.Source
	} else if row != "" {
		cost.Row = row
		cost.Note = strings.TrimPrefix(cost.Note+"; "+c.prices.Source+" has no price of it", "; ")
	}
	// The names of many programs, or of a file, may be in it.
	cost.What, cost.Each, cost.Note = record.Sentence(cost.What), record.Sentence(cost.Each), record.Sentence(cost.Note)
	c.all = append(c.all, cost)
}

// program adds what a program on a device costs by how it is called and what is around it.
func (c *costs) program(p *record.ProgramRow) {
	on := devicesOf(p.Attached, 3)
	if p.Dispatcher == record.OutOfDispatcher && p.JitedBytes > 0 {
		c.add("bpf-prog", record.ProgramCost{
			What: p.Title() + " is not in the BPF dispatcher: called indirectly", Each: "packet of " + on,
			Note: "attach it again when fewer than 48 programs are attached",
		})
	}
	if len(p.Attached) > 0 && p.Type != "" && p.JitedBytes == 0 {
		c.add("", record.ProgramCost{
			What: p.Title() + " is interpreted", Each: "packet of " + on, Note: "no price: sysctl net.core.bpf_jit_enable=1",
		})
	}
	if generic := slices.DeleteFunc(slices.Clone(p.Attached), func(a record.Attachment) bool {
		return a.Mode != record.GenericMode
	}); len(generic) > 0 {
		c.add("", record.ProgramCost{
			What: p.Title() + " is attached in generic mode: the kernel makes an skb first",
			Each: "packet of " + devicesOf(generic, 3),
			Note: "no price: it depends on the driver",
		})
	}
	if n := len(p.Parts); n > 0 {
		c.add("", record.ProgramCost{
			What: fmt.Sprintf("%s is a libxdp dispatcher of %s: a direct call each", p.Title(), many(n, "part")),
			Each: "packet of " + on, Note: "no price", More: "unthunk prog xray " + p.Name,
		})
	}
	for _, t := range p.Tracers {
		c.add("", record.ProgramCost{
			What: strings.TrimSpace(fmt.Sprintf("%s id:%d", t.Name, t.ID)) + " runs at the entry or exit of " + p.Title(),
			Each: "run of " + p.Title(), Note: "no price: it depends on what that program does",
		})
	}
	for _, id := range p.MapIDs {
		m := c.parts.Map(id)
		if m == nil || m.Type != "prog_array" || len(m.Programs) == 0 || !p.InUse() {
			continue
		}
		c.add("tail-call", record.ProgramCost{
			What: fmt.Sprintf("%s makes tail calls through %s", p.Title(), mapName(m)), Each: "tail call by a variable index",
			Note: "by a constant index there is none", More: "unthunk prog xray " + p.Name,
		})
	}
}

// entries adds what programs in the entries of a map cost.
func (c *costs) entries(m *record.ProgramMap) {
	if len(m.Programs) == 0 {
		return
	}
	what := fmt.Sprintf("%s of %s %s", many(len(m.Programs), "program"), m.Type, mapName(m))
	switch m.Type {
	case "devmap", "devmap_hash":
		c.add("devmap-prog", record.ProgramCost{What: what, Each: "packet redirected to such an entry"})
	case "cpumap":
		c.add("", record.ProgramCost{What: what, Each: "packet redirected to such an entry", Note: "no price"})
	}
}

// observers adds what the programs at tracepoints cost: those at xdp_redirect each packet
// that is redirected, those at xdp_devmap_xmit each bulk, others what is rare or another path.
func (c *costs) observers() {
	at := make(map[string][]string)
	var order []string
	for _, o := range c.parts.Observers {
		if at[o.Tracepoint] == nil {
			order = append(order, o.Tracepoint)
		}
		name := strings.TrimSpace(fmt.Sprintf("%s id:%d", o.Name, o.ID))
		for _, p := range o.Holders {
			name += fmt.Sprintf(" of process %d (%s)", p.PID, p.Name)
		}
		at[o.Tracepoint] = append(at[o.Tracepoint], name)
	}
	for _, tracepoint := range order {
		row, each, note := "tracepoint/1", "hit of "+tracepoint, "the price is of an empty program"
		switch n := len(at[tracepoint]); {
		case n == 2:
			row = "tracepoint/2"
		case n > 2:
			row, note = "tracepoint/2", fmt.Sprintf("the price is of two empty programs, and there are %d", n)
		}
		switch tracepoint {
		case "xdp_redirect":
			each = "redirected packet of the machine"
		case "xdp_devmap_xmit":
			each = "redirected bulk of the machine"
		}
		c.add(row, record.ProgramCost{What: strings.Join(at[tracepoint], ", ") + " at " + tracepoint, Each: each, Note: note})
	}
}

// statistics adds what it costs that runs are timed.
func (c *costs) statistics() {
	s := c.parts.Statistics
	if !s.On() {
		return
	}
	cost := record.ProgramCost{
		What: "run statistics are on (kernel.bpf_stats_enabled)", Each: "run of each BPF program",
		Note: "sysctl kernel.bpf_stats_enabled=0",
	}
	if len(s.Holders) > 0 {
		var who []string
		for _, p := range s.Holders {
			who = append(who, fmt.Sprintf("process %d (%s)", p.PID, p.Name))
		}
		cost.What, cost.Note = record.Sentence("run statistics are on: by "+strings.Join(who, ", ")), "they go with the process"
	}
	const row = "run-statistics"
	if priceRow(c.prices.rows, row) != nil {
		c.add(row, cost)
		return
	}
	cost.Row, cost.Ns, cost.Source = row, &statisticsPrice, "docs/prog.md, of another machine"
	c.all = append(c.all, cost)
}

// devicesOf are the devices that run a program, the first of them by name.
func devicesOf(attached []record.Attachment, most int) string {
	var names []string
	for _, a := range attached {
		names = append(names, a.On())
	}
	if n := len(names); n > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	}
	return strings.Join(names, ", ")
}

// AttachedPrograms says of each XDP program that devices ran when a run began where it is,
// and what calling it costs a packet by the run's prices: a clause each. What its own
// instructions cost a run does not measure.
func AttachedPrograms(rows []record.ProgramRow, prices []record.TaxRow) (said []string) {
	for i := range rows {
		p := &rows[i]
		text := p.Title() + " on " + devicesOf(p.Attached, 1)
		generic := slices.ContainsFunc(p.Attached, func(a record.Attachment) bool { return a.Mode == record.GenericMode })
		row := priceRow(prices, "bpf-prog")
		switch {
		case p.Type != "" && p.JitedBytes == 0:
			text += ": interpreted, several times slower"
		case p.Dispatcher == record.OutOfDispatcher && row != nil:
			text += fmt.Sprintf(": not in the BPF dispatcher, +%s ns a packet", row.Price.Cost(stat.Number))
		case p.Dispatcher == record.OutOfDispatcher:
			text += ": not in the BPF dispatcher, called indirectly"
		case p.Dispatcher == record.InDispatcher:
			text += ": called directly, +0 ns"
		}
		if generic {
			text += "; generic mode"
		}
		if n := len(p.Parts); n > 0 {
			text += fmt.Sprintf("; runs %s", many(n, "part"))
		}
		said = append(said, text)
	}
	return said
}

// programsHeadline says how many programs a machine has.
func programsHeadline(doc *record.ProgramList) Headline {
	attached, outside := 0, 0
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if len(row.Attached) > 0 {
			attached++
		}
		if row.Dispatcher == record.OutOfDispatcher {
			outside++
		}
	}
	title := fmt.Sprintf("%s on devices, of %d that are loaded", many(attached, "XDP program"), len(doc.Rows))
	if outside > 0 {
		title += fmt.Sprintf("; %d not in the BPF dispatcher", outside)
	}
	return Headline{Title: title}
}

// mapName is what people call a map.
func mapName(m *record.ProgramMap) string {
	if m.Name == "" {
		return fmt.Sprintf("map id:%d", m.ID)
	}
	return m.Name
}
