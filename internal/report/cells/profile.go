package cells

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// IndirectBranches sums up in words what samples say of indirect branches; it is
// empty when they say nothing.
func IndirectBranches(p *record.ProfileParts) string {
	tax := p.Tax
	if tax == nil || tax.Total == nil {
		return ""
	}
	total, around := Quantity(tax.Total)
	return fmt.Sprintf("indirect branches: %s ns %s, %s of the packet: %s in thunks, %s at call target entries. %s",
		total, around, Percent(tax.Total, p.Packet), OrDash(tax.Thunks), OrDash(tax.TargetEntries), agreement(tax))
}

// agreement is how samples and prices agree.
func agreement(tax *record.ProfileTax) string {
	hop, aroundHop := Quantity(tax.Hop)
	if tax.Estimate == nil {
		return fmt.Sprintf("Of the hop: %s ns %s.", hop, aroundHop)
	}
	estimate, around := Quantity(tax.Estimate)
	words := map[string]string{
		"agree": "the two agree", "disagree": "the two differ", stat.CannotTell: "too uncertain to compare",
	}
	return fmt.Sprintf("Of the hop: %s ns %s by samples, %s %s by price times calls: %s.", hop, aroundHop, estimate,
		around, words[tax.Agree])
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
	if parts := strings.SplitN(name, "_", 4); len(parts) == 4 && parts[0] == "bpf" && parts[1] == "prog" &&
		len(parts[2]) == 16 {
		return parts[3] + " [bpf]"
	}
	return name
}
