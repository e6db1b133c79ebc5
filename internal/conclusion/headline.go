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

// Headline says where the packets per second went, as far as one record knows.
type Headline struct {
	// Title is one sentence without a full stop, Text a paragraph or two, a line
	// each.
	Title string
	Text  string
	// Tells is set when the record tells: a comparison may not.
	Tells bool
}

// Of is the headline of a record, computed from its numbers.
func Of(s *record.Saved) Headline {
	h := headline(s)
	c := s.Comparison != nil || s.ProfileComparison != nil
	h.Tells = !c || h.Tells
	return h
}

func headline(s *record.Saved) Headline {
	switch {
	case s.Comparison != nil:
		return changed(s.Comparison)
	case s.ProfileComparison != nil:
		return profileChanged(s.ProfileComparison)
	case s.SiteComparison != nil:
		return sitesChanged(s.SiteComparison)
	case s.LabComparison != nil:
		c := s.LabComparison
		return Headline{Title: fmt.Sprintf("Of %s counted in the guests, %d differ", many(c.Same+len(c.Rows), "row"), len(c.Rows))}
	case s.Lab != nil:
		return labHeadline(s.Lab)
	case s.Tax != nil:
		return taxHeadline(s.Tax.Rows)
	case s.Profile != nil:
		return profileHeadline(s.Profile, "")
	case s.Sites != nil:
		return sitesHeadline(s.Sites.Rows)
	case s.Bench != nil:
		return benchHeadline(s)
	}
	return Headline{Title: "Nothing was measured"}
}

func benchHeadline(s *record.Saved) Headline {
	var fastest, slowest *record.BenchRow
	for i := range s.Bench.Rows {
		row := &s.Bench.Rows[i]
		if row.Mpps == nil || row.Ns == nil {
			continue
		}
		if fastest == nil || row.Mpps.Median > fastest.Mpps.Median {
			fastest = row
		}
		if slowest == nil || row.Mpps.Median < slowest.Mpps.Median {
			slowest = row
		}
	}
	if fastest == nil {
		return Headline{Title: "No row has a number", Text: "Each row says why."}
	}
	h := Headline{Title: fmt.Sprintf("%s Mpps on one core", stat.Number(fastest.Mpps.Median))}
	var said []string
	said = append(said, fmt.Sprintf("%s sends %s, %s a packet.", fastest.Name, fastest.Mpps.Text(stat.Number), fastest.Ns.Text(stat.Number)))
	share := fastest.Hop != nil && !math.IsNaN(fastest.Hop.Median) && fastest.Ns.Median > 0
	if share {
		said = append(said, fmt.Sprintf("Its redirect hop takes %s, %s of the packet.", fastest.Hop.Text(stat.Number), percent(fastest.Hop.Median/fastest.Ns.Median)))
	}
	if slowest != fastest {
		said = append(said, fmt.Sprintf("The slowest row, %s, sends %s Mpps: %s ns a packet more.",
			slowest.Name, stat.Number(slowest.Mpps.Median), stat.Number(slowest.Ns.Median-fastest.Ns.Median)))
	}
	p := s.Stages()
	if p == nil {
		if share {
			h.Title += fmt.Sprintf("; the redirect takes %s of a packet’s %s ns", percent(fastest.Hop.Median/fastest.Ns.Median), stat.Number(fastest.Ns.Median))
		}
		h.Text = strings.Join(said, " ")
		return h
	}
	of := profileHeadline(p, h.Title)
	return Headline{Title: of.Title, Text: strings.Join(said, " ") + "\n" + of.Text}
}

// profileHeadline says where the ns of a packet go; rate is what stands before it.
func profileHeadline(p *record.Profile, rate string) Headline {
	packet := p.Packet.Median
	groups := p.Groups()
	title := fmt.Sprintf("of a packet’s %s ns the redirect path takes %s", stat.Number(packet), percent(groups[functions.GroupPath]/packet))
	if rate != "" {
		title = rate + "; " + title
	} else {
		title = strings.ToUpper(title[:1]) + title[1:]
	}
	largest := slices.MaxFunc(p.Rows, func(a, b record.ProfileRow) int { return cmp.Compare(a.Ns.Median, b.Ns.Median) })
	said := []string{fmt.Sprintf("A packet takes %s while it is sampled: %s ns on the redirect path, %s in generator and sink, which other machines are for a NIC, %s in softirq and locks. The largest stage is %s, %s.",
		p.Packet.Text(stat.Number), stat.Number(groups[functions.GroupPath]), stat.Number(groups[functions.GroupEnds]), stat.Number(groups[functions.GroupShared]), largest.Name, largest.Ns.Text(stat.Number))}
	if t := p.Tax; t != nil && t.Total != nil && !math.IsNaN(t.Total.Median) {
		title += fmt.Sprintf(", indirect branches %s", percent(t.Total.Median/packet))
		said = append(said, fmt.Sprintf("Indirect branches take %s.", t.Total.Text(stat.Number)))
	}
	return Headline{Title: title, Text: strings.Join(said, " ")}
}

func taxHeadline(rows []record.TaxRow) Headline {
	var title, text []string
	for _, row := range rows {
		if row.Price == nil || math.IsNaN(row.Price.Median) {
			continue
		}
		switch row.Name {
		case "bpf-prog":
			title = append(title, fmt.Sprintf("an indirect call costs %s ns here", stat.Number(row.Price.Median)))
			text = append(text, fmt.Sprintf("The price of %s is %s.", row.Name, row.Price.Text(stat.Number)))
		case "packet/bulk=16":
			title = append(title, fmt.Sprintf("those of a redirect at bulk 16 are %s of its time", percent(row.Price.Median/row.With.Median)))
			text = append(text, fmt.Sprintf("At bulk 16 a redirect makes %s: %s.", callsOf(row), row.Price.Text(stat.Number)))
		case "packet/2018":
			text = append(text, fmt.Sprintf("With the calls of 2018 it would make %s: %s, %s of its time.", callsOf(row), row.Price.Text(stat.Number), percent(row.Price.Median/row.With.Median)))
		}
	}
	if len(title) == 0 {
		measured := 0
		for _, row := range rows {
			if row.Price != nil {
				measured++
			}
		}
		return Headline{Title: fmt.Sprintf("Prices of %s", many(measured, "indirect call"))}
	}
	s := strings.Join(title, "; ")
	return Headline{Title: strings.ToUpper(s[:1]) + s[1:], Text: strings.Join(text, " ")}
}

func callsOf(row record.TaxRow) string {
	if row.PerPacket == nil || math.IsNaN(row.PerPacket.Median) {
		return "indirect calls"
	}
	return stat.Number(row.PerPacket.Median) + " indirect calls"
}

func sitesHeadline(rows []record.SiteRow) Headline {
	count := make(map[string]int)
	for _, row := range rows {
		count[row.Per]++
	}
	return Headline{
		Title: fmt.Sprintf("%s on the redirect path may run for a packet, %d for a bulk, %d for a poll", many(count["packet"], "indirect branch"), count["bulk"], count["poll"]),
		Text:  fmt.Sprintf("Errors and slow paths have %d more.", count["rare"]),
	}
}

// labHeadline says what indirect branches make a packet cost in the guests, by bulk.
func labHeadline(l *record.Lab) Headline {
	if h, ok := wiresHeadline(l); ok {
		return h
	}
	const most = 4
	var title, text []string
	inNs := true
	for _, d := range l.Differences {
		inNs = inNs && d.Ns != nil
	}
	for i, d := range l.Differences {
		if i < most {
			if inNs {
				title = append(title, fmt.Sprintf("%s ns at bulk %s", stat.Number(d.Ns.Median), labelOf(l, d.With, "bulk")))
			} else {
				title = append(title, fmt.Sprintf("%s at bulk %s", stat.Number(d.Calls), labelOf(l, d.With, "bulk")))
			}
		}
		s := fmt.Sprintf("At bulk %s, %s against %s: %s indirect branches a packet, %+.2f instructions",
			labelOf(l, d.With, "bulk"), withoutBulk(d.With), withoutBulk(d.Without), stat.Number(d.Calls), d.Instructions)
		if d.Ns != nil {
			s += fmt.Sprintf(", about %s", d.Ns.Text(stat.Number))
		}
		if i < most {
			text = append(text, s+".")
		}
	}
	if len(title) > 0 {
		more := ""
		if n := len(l.Differences) - most; n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		list := strings.Join(title, ", ") + more
		if inNs {
			return Headline{Title: "Indirect branches cost a packet about " + list, Text: strings.Join(text, " ")}
		}
		return Headline{Title: "Indirect branches a packet: " + list, Text: strings.Join(text, " ")}
	}
	for _, row := range l.Rows {
		if row.Calls != nil && len(title) < most {
			title = append(title, fmt.Sprintf("%s in %s", stat.Number(*row.Calls), row.Name))
		}
	}
	if len(title) == 0 {
		return Headline{Title: "No guest has a number", Text: "Each row says why."}
	}
	return Headline{Title: "Indirect branches a packet: " + strings.Join(title, ", ")}
}

// wiresHeadline is of guests with interfaces on wires: from which setup to which the
// indirect branches of a packet go.
func wiresHeadline(l *record.Lab) (Headline, bool) {
	var least, most *record.LabRow
	for i := range l.Rows {
		row := &l.Rows[i]
		if len(row.DMA) == 0 || row.Calls == nil {
			continue
		}
		if least == nil || *row.Calls < *least.Calls {
			least = row
		}
		if most == nil || *row.Calls >= *most.Calls {
			most = row
		}
	}
	if least == nil {
		return Headline{}, false
	}
	setup := func(r *record.LabRow) string {
		return fmt.Sprintf("%s with %s on %s", r.Labels["nic"], r.Labels["dma"], r.Labels["kernel"])
	}
	if *least.Calls == *most.Calls {
		return Headline{Title: fmt.Sprintf("A redirected packet makes %s indirect branches: %s", stat.Number(*most.Calls), setup(most))}, true
	}
	h := Headline{
		Title: fmt.Sprintf("A redirected packet makes %s to %s indirect branches, by how its memory is mapped", stat.Number(*least.Calls), stat.Number(*most.Calls)),
		Text:  fmt.Sprintf("The least: %s. The most: %s.", setup(least), setup(most)),
	}
	if l.Price != nil {
		h.Text += fmt.Sprintf(" With retpolines, at this machine's price of %s ns for one, those are about %s and %s ns of each packet.",
			stat.Number(l.Price.Median), stat.Number(*least.Calls*l.Price.Median), stat.Number(*most.Calls*l.Price.Median))
	}
	return h, true
}

func withoutBulk(name string) string {
	head, _, _ := strings.Cut(name, "/bulk=")
	return head
}

func labelOf(l *record.Lab, name, label string) string {
	for _, row := range l.Rows {
		if row.Name == name {
			return cmp.Or(row.Labels[label], "?")
		}
	}
	return "?"
}

// change is a row of any comparison that has a difference.
type change struct {
	name       string
	old, new   float64
	d          *stat.Difference
	verdict    string
	price      bool
	regression bool
}

func changed(c *record.Comparison) Headline {
	var changes []change
	for _, row := range c.Rows {
		if row.Difference != nil && row.Old != nil && row.New != nil {
			changes = append(changes, change{row.Name, row.Old.Median, row.New.Median, row.Difference, row.Verdict, row.Price, row.Regression})
		}
	}
	return changesHeadline(changes, "%")
}

func profileChanged(c *record.ProfileComparison) Headline {
	var changes []change
	for _, row := range c.Rows {
		if row.Difference != nil && row.Old != nil && row.New != nil {
			changes = append(changes, change{row.Name, row.Old.Median, row.New.Median, row.Difference, row.Verdict, true, row.Regression})
		}
	}
	return changesHeadline(changes, "ns")
}

// changesHeadline names the row that got slower most, else the one that got faster
// most, else what could have been seen. unit is that of differences.
func changesHeadline(changes []change, unit string) Headline {
	count := make(map[string]int)
	var worst, best *change
	var sees []float64
	for i := range changes {
		c := &changes[i]
		word, _, _ := strings.Cut(c.verdict, " (")
		count[word]++
		if !math.IsNaN(c.d.Smallest) {
			sees = append(sees, c.d.Smallest)
		}
		switch word {
		case stat.Slower:
			if worst == nil || c.regression && !worst.regression || c.regression == worst.regression && c.d.Median > worst.d.Median {
				worst = c
			}
		case stat.Faster:
			if best == nil || c.d.Median < best.d.Median {
				best = c
			}
		}
	}
	var parts []string
	for _, word := range []string{stat.Slower, stat.Faster, stat.NoDifference, stat.CannotTell} {
		if n := count[word]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", word, n))
		}
	}
	text := fmt.Sprintf("Of %s compared: %s.", many(len(changes), "row"), strings.Join(parts, ", "))
	if f := fastest(changes); f != nil {
		text += fmt.Sprintf(" The fastest row, %s, went from %s to %s Mpps.", f.name, stat.Number(1e3/f.old), stat.Number(1e3/f.new))
	}
	visible := ""
	if len(sees) > 0 {
		visible = fmt.Sprintf("half of the rows would have shown a change of %s %s", stat.Number(stat.Median(sees)), unit)
	}
	most := cmp.Or(worst, best)
	switch {
	case len(changes) == 0:
		return Headline{Title: "Nothing could be compared"}
	case most != nil:
		was, is, of := stat.Number(1e3/most.old)+" Mpps", stat.Number(1e3/most.new), "Mpps"
		if most.price || most.old <= 0 || most.new <= 0 {
			was, is, of = stat.Number(most.old), stat.Number(most.new), "ns"
		}
		word, _, _ := strings.Cut(most.verdict, " (")
		title := fmt.Sprintf("%s: %s → %s %s, %s %s %s [%s, %s]", most.name, strings.TrimSuffix(was, " "+of), is, of,
			stat.Number(math.Abs(most.d.Median)), unit, word, signed(most.d.Low), signed(most.d.High))
		return Headline{Title: title, Text: text, Tells: true}
	case count[stat.CannotTell] == 0:
		return Headline{Title: fmt.Sprintf("No difference seen in %s", many(len(changes), "row")), Text: strings.TrimSpace(text + " " + sentence(visible)), Tells: true}
	}
	return Headline{Title: fmt.Sprintf("Cannot tell whether the two differ in %d of %s", count[stat.CannotTell], many(len(changes), "row")), Text: strings.TrimSpace(text + " " + sentence(visible))}
}

// fastest is the row of least ns a packet; prices and stages have no rate.
func fastest(changes []change) *change {
	var best *change
	for i := range changes {
		c := &changes[i]
		if !c.price && c.old > 0 && c.new > 0 && (best == nil || c.new < best.new) {
			best = c
		}
	}
	return best
}

func sitesChanged(c *record.SiteComparison) Headline {
	count := make(map[string]int)
	for _, row := range c.Rows {
		count[row.Change]++
	}
	return Headline{Title: fmt.Sprintf("Indirect branches: %d new, %d gone, %d changed, %d as they were", count["new"], count["gone"], count["changed"], c.Same)}
}

func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

func many(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "branch"):
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func signed(x float64) string {
	if s := stat.Number(x); x > 0 && s != "?" {
		return "+" + s
	} else {
		return s
	}
}

// percent is a share, with one digit below ten.
func percent(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "? %"
	}
	if math.Abs(x) < 0.0995 {
		return fmt.Sprintf("%.1f %%", 100*x)
	}
	return fmt.Sprintf("%.0f %%", 100*x)
}
