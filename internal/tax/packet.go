package tax

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/stat"
)

// pathCall is an indirect call that the kernel makes on the way of a redirected
// packet, whatever its programs do.
type pathCall struct {
	name string
	role functions.Role // of the functions one of which makes it
	of   func(redirect.CallsPerPacket) float64
}

const xmitCall = "ndo_xdp_xmit"

// pathCalls are those between the program that redirects a packet and the one
// that ends it: what the estimates for a whole packet add up.
var pathCalls = []pathCall{
	{xmitCall, functions.CallsXmit,
		func(c redirect.CallsPerPacket) float64 { return c.Xmits }},
	{"softirq action", functions.CallsAction,
		func(c redirect.CallsPerPacket) float64 { return c.Softirqs }},
	{"NAPI poll", functions.CallsPoll,
		func(c redirect.CallsPerPacket) float64 { return c.Polls }},
}

// thunk is the price of one indirect call, round by round; nil when it was not
// measured.
func (raw *Raw) thunk() []float64 {
	p := raw.pair(Thunk)
	if p == nil {
		return nil
	}
	_, with, without := p.perRound()
	return differences(with, without)
}

// In 2018, before anything of it was bulked or made direct, a redirected packet made
// these indirect calls, as the mail that began this counts them. A NIC's DMA calls come
// on top; a veth makes none.
const (
	calls2018 = 3
	note2018  = "ndo_xdp_xmit, the program, and a map lookup in it, for each packet: " +
		"this machine's hop at bulk 64 with those calls"
)

// packets are the estimates: what a redirected packet pays for indirect calls at
// each bulk, and what it would pay with those of 2018.
func (raw *Raw) packets() []record.TaxRow {
	thunk := raw.thunk()
	if len(thunk) == 0 && !raw.uncharged(Thunk) {
		return nil
	}
	var rows []record.TaxRow
	for _, bulk := range raw.countedBulks() {
		made, xmits := raw.outside, 0.0
		notes := []string{fmt.Sprintf("programs outside the dispatcher %.0f", raw.outside)}
		var premises []string
		for _, call := range pathCalls {
			premise, ok := raw.path[call.name]
			if !ok {
				continue
			}
			n := call.of(raw.calls[bulk])
			made += n
			if call.name == xmitCall {
				xmits = n
			}
			notes = append(notes, fmt.Sprintf("%s %.2f", call.name, n))
			premises = append(premises, premise)
		}
		row := raw.packet(fmt.Sprintf("packet/bulk=%d", bulk), raw.hops[bulk], thunk, made, made)
		row.Note, row.Premise = strings.Join(notes, ", "), strings.Join(premises, ", ")
		rows = append(rows, row)
		if bulk == topBulk && !raw.yours { // the mail's program made one lookup
			row := raw.packet("packet/2018", raw.hops[bulk], thunk, made, made-xmits-raw.outside+calls2018)
			row.Note = note2018
			rows = append(rows, row)
		}
	}
	return rows
}

// countedBulks are those that a hop was measured at; on an emulated CPU those that calls were counted at.
func (raw *Raw) countedBulks() []int {
	if raw.uncharged(Thunk) {
		return slices.Sorted(maps.Keys(raw.calls))
	}
	return slices.Sorted(maps.Keys(raw.hops))
}

// packet estimates a packet that makes calls indirect calls, by a hop that was
// measured with made of them. Hops and prices are of different rounds and do not
// depend on each other, so any pairing of them is a sample of the estimate. On an
// emulated CPU the row has the calls, and no price.
func (raw *Raw) packet(name string, hop, thunk []float64, made, calls float64) record.TaxRow {
	row := record.TaxRow{
		Name:      name,
		Labels:    map[string]string{"pair": "packet", "variant": strings.TrimPrefix(name, "packet/")},
		Target:    raw.packetTarget(),
		PerPacket: exactly(calls, "calls"),
		Samples:   []float64{},
		Rounds:    []int{},
	}
	if raw.verdict != "" {
		row.Labels["verdict"] = raw.verdict
	}
	if raw.uncharged(Thunk) {
		row.Refused = string(errEmulated)
		return row
	}
	var with, without []float64
	for i := range min(len(hop), len(thunk)) {
		with = append(with, hop[i]+(calls-made)*thunk[i])
		without = append(without, hop[i]-made*thunk[i])
		row.Samples = append(row.Samples, calls*thunk[i])
		row.Rounds = append(row.Rounds, i)
	}
	q := raw.atAnyClock(stat.Location(row.Samples, "ns"))
	row.With, row.Without = summary(with, "ns"), summary(without, "ns")
	row.Price, row.NsPerPacket = &q, &q
	return row
}

// packetTarget is what the estimates add up.
func (raw *Raw) packetTarget() string {
	of := map[string]string{
		"": "of a redirected packet", "redirect": "of a redirected packet", "tx": "of a packet that is sent back (XDP_TX)",
		"drop": "of a packet that is dropped", "pass": "of a packet that passes, without those of the network stack",
	}[raw.verdict]
	if of == "" {
		of = "of a packet, without those of the network stack"
	}
	return fmt.Sprintf("all indirect calls %s: an estimate, calls times the price of %s", of, Thunk)
}
