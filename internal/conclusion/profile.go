package conclusion

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// profileHeadline says where the ns of a packet go; rate is what is said before it.
func profileHeadline(p *record.Profile, rate string) Headline {
	packet := p.Packet.Median
	groups := p.Groups()
	title := fmt.Sprintf("of a packet’s %s ns the redirect path takes %s", stat.Number(packet),
		percent(groups[functions.GroupPath]/packet))
	if rate != "" {
		title = rate + "; " + title
	} else {
		title = strings.ToUpper(title[:1]) + title[1:]
	}
	largest := slices.MaxFunc(p.Rows, func(a, b record.ProfileRow) int { return cmp.Compare(a.Ns.Median, b.Ns.Median) })
	said := []string{fmt.Sprintf("A packet takes %s while it is sampled: %s ns on the redirect path, %s in "+
		"generator and sink, which other machines are for a NIC, %s in softirq and locks. The largest stage is %s, %s.",
		p.Packet.Text(stat.Number), stat.Number(groups[functions.GroupPath]), stat.Number(groups[functions.GroupEnds]),
		stat.Number(groups[functions.GroupShared]), largest.Name, largest.Ns.Text(stat.Number))}
	if t := p.Tax; t != nil && t.Total != nil && !math.IsNaN(t.Total.Median) {
		title += fmt.Sprintf(", indirect branches %s", percent(t.Total.Median/packet))
		said = append(said, fmt.Sprintf("Indirect branches take %s.", t.Total.Text(stat.Number)))
	}
	return Headline{Title: title, Text: strings.Join(said, " ")}
}
