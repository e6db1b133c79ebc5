package conclusion

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// profileHeadline says where the ns of a packet go; rate is what is said before it.
func profileHeadline(p *record.Profile, rate string) Headline {
	packet := p.Packet.Median
	groups := p.Groups()
	title := fmt.Sprintf("the redirect path takes %s ns of a packet’s %s",
		stat.Number(groups[functions.GroupPath]), stat.Number(packet))
	if rate != "" {
		title = rate + "; " + title
	} else {
		title = strings.ToUpper(title[:1]) + title[1:]
	}
	if p.CannotTell != "" {
		title += "; but " + p.CannotTell
	}
	largest := slices.MaxFunc(p.Rows, func(a, b record.ProfileRow) int { return cmp.Compare(a.Ns.Median, b.Ns.Median) })
	said := []string{fmt.Sprintf("A packet takes %s: %s ns on the redirect path, %s in "+
		"generator and sink, which other machines are for a NIC, %s in softirq and locks. The largest stage is %s, %s.",
		p.Packet.Text(stat.Number), stat.Number(groups[functions.GroupPath]), stat.Number(groups[functions.GroupEnds]),
		stat.Number(groups[functions.GroupShared]), largest.Name, largest.Ns.Text(stat.Number))}
	if q := indirect(p.Tax); q != nil && !math.IsNaN(q.Median) {
		title += fmt.Sprintf(", indirect branches %s", percent(q.Median/packet))
		said = append(said, fmt.Sprintf("Indirect branches on that path take %s.", q.Text(stat.Number)))
	}
	return Headline{Title: title, Text: strings.Join(said, " ")}
}

// indirect is what indirect branches of the redirect path take in ns per packet: price
// times calls, or what samples show where there is no price. Nil when neither is known.
func indirect(tax *record.ProfileTax) *stat.Quantity {
	switch {
	case tax == nil:
		return nil
	case tax.Estimate != nil:
		return tax.Estimate
	}
	return tax.Hop
}

// ProfileHead says what the redirect path takes of a packet's time, or why that cannot be
// told. name is what was profiled.
func ProfileHead(name string, stages []record.ProfileRow, parts *record.ProfileParts) string {
	if parts.Packet == nil {
		return fmt.Sprintf("%s: no answer: %s.", name, cmp.Or(parts.CannotTell, "nothing was sampled"))
	}
	head := fmt.Sprintf("%s: a packet takes %s.", name, parts.Packet.Text(stat.Number))
	if path := record.Path(stages); path != nil {
		head = fmt.Sprintf("%s: the redirect path takes %s, of a packet’s %s.", name, path.Text(stat.Number),
			parts.Packet.Text(stat.Number))
	}
	if parts.CannotTell != "" {
		head += " No answer: " + parts.CannotTell + "."
	}
	return head
}

// ProfileBridge says what bench prints for the same packet, and by how much the mean that stages add up to differs from
// it; empty when that is not known. The difference is that of the numbers as they are printed.
func ProfileBridge(parts *record.ProfileParts) string {
	q := parts.Undisturbed
	if q == nil || parts.Packet == nil {
		return ""
	}
	mean := stat.Number(parts.Packet.Median)
	differs := "as much"
	switch more, digits := less(mean, stat.Number(q.Median)); {
	case more > 0:
		differs = strconv.FormatFloat(more, 'f', digits, 64) + " ns more"
	case more < 0:
		differs = strconv.FormatFloat(-more, 'f', digits, 64) + " ns less"
	}
	return fmt.Sprintf("As bench counts it, by the quickest tenth of the windows, a packet takes %s. The mean of all "+
		"windows, which the stages add up to, is %s: %s ns.", q.Text(stat.Number), differs, mean)
}

// less is a less b, two numbers as they are printed, rounded as the coarser of them is; digits are those behind its point.
func less(a, b string) (difference float64, digits int) {
	digits = math.MaxInt
	for i, s := range []string{a, b} {
		x, _ := strconv.ParseFloat(s, 64) // of what is printed for a number
		difference += x - 2*float64(i)*x
		_, behind, _ := strings.Cut(s, ".")
		digits = min(digits, len(behind))
	}
	unit := math.Pow10(digits)
	return math.Round(difference*unit) / unit, digits
}

// outsideNames are words for what is no packet's work, by name.
var outsideNames = map[string]string{
	"other-tasks": "other tasks", "rcu": "RCU", "scheduler": "the scheduler", "sampling": "taking samples",
}

// ProfileOutside says how much of the CPUs' time was no packet's, and how much of the
// measurement was left out for it; empty when nothing was.
func ProfileOutside(parts *record.ProfileParts) string {
	var shares []string
	for _, o := range parts.Outside {
		if o.Share.Median < leastOutside {
			continue
		}
		shares = append(shares, fmt.Sprintf("%s %s", cmp.Or(outsideNames[o.Name], o.Name), percent(o.Share.Median/100)))
	}
	if len(shares) == 0 {
		return ""
	}
	cpus := "the CPU"
	if len(parts.Sampling.CPUs) > 1 {
		cpus = fmt.Sprintf("the %d CPUs", len(parts.Sampling.CPUs))
	}
	text := fmt.Sprintf("In no stage, of the time of %s: %s.", cpus, strings.Join(shares, ", "))
	if s := parts.Sampling; s.LeftOut > 0 {
		text += fmt.Sprintf(" %s of the windows are left out, as another task ran in them.",
			percent(float64(s.LeftOut)/float64(s.Windows)))
	}
	return text
}

// leastOutside is the least share of a CPU's time, in percent, that is worth a word.
const leastOutside = 0.05
