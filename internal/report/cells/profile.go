package cells

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
)

// IndirectBranches sums up in words what indirect branches take; it is empty when nothing
// is known of them. Price times calls is the figure to believe, where there is one: what
// samples show there is other waits too, and few of them.
func IndirectBranches(p *record.ProfileParts) string {
	tax := p.Tax
	if tax == nil || tax.Total == nil {
		return ""
	}
	hop, aroundHop := Quantity(tax.Hop)
	if tax.Estimate == nil {
		total, around := Quantity(tax.Total)
		return fmt.Sprintf("indirect branches by samples: %s ns %s, %s of the packet: %s in thunks, %s at call target "+
			"entries, where other waits show too. On the redirect path: %s ns %s.",
			total, around, Percent(tax.Total, p.Packet), OrDash(tax.Thunks), OrDash(tax.TargetEntries), hop, aroundHop)
	}
	estimate, around := Quantity(tax.Estimate)
	return fmt.Sprintf("indirect branches on the redirect path: %s ns %s, %s of the packet, by price times calls. "+
		"Samples put %s %s at them, where other waits show too: believe the price.",
		estimate, around, Percent(tax.Estimate, p.Packet), hop, aroundHop)
}

// ShortNames are names without the tags of BPF programs.
func ShortNames(names []string) string {
	var out []string
	for _, name := range names {
		out = append(out, ShortName(name))
	}
	return strings.Join(out, ", ")
}

// ShortName is the name of a function; of a BPF program it is its own, without the
// tag.
func ShortName(name string) string {
	if own := functions.Program(name); own != "" {
		return own + " [bpf]"
	}
	return name
}
