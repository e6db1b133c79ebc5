package conclusion

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

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
		of, with, without := whatOf(l, d)
		if i < most {
			if inNs {
				title = append(title, fmt.Sprintf("%s ns %s", stat.Number(d.Ns.Median), of))
			} else {
				title = append(title, fmt.Sprintf("%s %s", stat.Number(d.CallsPerPacket), of))
			}
		}
		s := fmt.Sprintf("%s%s, %s against %s: %s indirect branches a packet, %+.2f instructions",
			strings.ToUpper(of[:1]), of[1:], with, without, stat.Number(d.CallsPerPacket), d.Instructions)
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
		if row.Program != nil && row.Instructions != nil && row.Labels["class"] == "all" && len(title) < most {
			title = append(title, fmt.Sprintf("%s in %s", counted(*row.Instructions), row.Name))
		}
	}
	if len(title) > 0 {
		return Headline{Title: "Instructions of the program a packet: " + strings.Join(title, ", "),
			Text: strings.Join(ProgramDifferences(l), "\n")}
	}
	for _, row := range l.Rows {
		if row.CallsPerPacket != nil && len(title) < most {
			title = append(title, fmt.Sprintf("%s in %s", stat.Number(*row.CallsPerPacket), row.Name))
		}
	}
	if len(title) == 0 {
		return Headline{Title: "No guest has a number", Text: "Each row says why."}
	}
	return Headline{Title: "Indirect branches a packet: " + strings.Join(title, ", ")}
}

// counted is a mean of counts with the digits that are known, at most six behind the point: a difference of two adds up.
func counted(x float64) string {
	return strconv.FormatFloat(math.Round(1e6*x)/1e6+0, 'f', -1, 64) // -0 + 0 is 0
}

// ProgramDifferences say how many instructions a packet takes more in the first guest of a program than in each that differs
// from it in its command line alone: a sentence for each two guests, with at most eight classes of packets.
func ProgramDifferences(l *record.Lab) (said []string) {
	const most = 8
	type pair struct{ with, without string }
	first := make(map[string]*record.LabRow) // of those that differ in their command line at most
	classes := make(map[pair][]string)
	var order []pair
	for i := range l.Rows {
		row := &l.Rows[i]
		if row.Program == nil || row.Instructions == nil {
			continue
		}
		labels := maps.Clone(row.Labels)
		delete(labels, "append")
		key := fmt.Sprintf("%q", labels) // sorted by name
		with := first[key]
		if with == nil {
			first[key] = row
			continue
		}
		guests := pair{guestOf(with), guestOf(row)}
		if classes[guests] == nil {
			order = append(order, guests)
		}
		class := counted(*with.Instructions - *row.Instructions)
		if !strings.HasPrefix(class, "-") {
			class = "+" + class
		}
		classes[guests] = append(classes[guests], fmt.Sprintf("%s (%s)", class, row.Labels["class"]))
	}
	for _, p := range order {
		list, more := classes[p], ""
		if n := len(list) - most; n > 0 {
			list, more = list[:most], fmt.Sprintf(" and %d more", n)
		}
		said = append(said, fmt.Sprintf("%s against %s: %s%s instructions a packet.", p.with, p.without, strings.Join(list, ", "), more))
	}
	return said
}

// guestOf is the guest of a row of a program: the row's name without program and class.
func guestOf(row *record.LabRow) string {
	return strings.TrimSuffix(row.Name, "/prog="+row.Labels["prog"]+"/"+row.Labels["class"])
}

// wiresHeadline is of guests with interfaces on wires: from which setup to which the
// indirect branches of a packet go.
func wiresHeadline(l *record.Lab) (Headline, bool) {
	var least, most *record.LabRow
	for i := range l.Rows {
		row := &l.Rows[i]
		if len(row.DMA) == 0 || row.CallsPerPacket == nil {
			continue
		}
		if least == nil || *row.CallsPerPacket < *least.CallsPerPacket {
			least = row
		}
		if most == nil || *row.CallsPerPacket >= *most.CallsPerPacket {
			most = row
		}
	}
	if least == nil {
		return Headline{}, false
	}
	setup := func(r *record.LabRow) string {
		return fmt.Sprintf("%s with %s on %s", r.Labels["nic"], r.Labels["dma"], r.Labels["kernel"])
	}
	if *least.CallsPerPacket == *most.CallsPerPacket {
		return Headline{Title: fmt.Sprintf("A redirected packet makes %s indirect branches: %s",
			stat.Number(*most.CallsPerPacket), setup(most))}, true
	}
	h := Headline{
		Title: fmt.Sprintf("A redirected packet makes %s to %s indirect branches, by how its memory is mapped",
			stat.Number(*least.CallsPerPacket), stat.Number(*most.CallsPerPacket)),
		Text: fmt.Sprintf("The least: %s. The most: %s.", setup(least), setup(most)),
	}
	if l.Price != nil {
		h.Text += fmt.Sprintf(" With retpolines, at this machine's price of %s ns for one, those are about %s and %s "+
			"ns of each packet.",
			stat.Number(l.Price.Median), stat.Number(*least.CallsPerPacket*l.Price.Median),
			stat.Number(*most.CallsPerPacket*l.Price.Median))
	}
	return h, true
}

// whatOf says what a difference is of, "at bulk 16", and which guests differ.
func whatOf(l *record.Lab, d record.LabDifference) (of, with, without string) {
	of = "at bulk ?"
	with, _, _ = strings.Cut(d.With, "/bulk=") // a record may lack the row
	without, _, _ = strings.Cut(d.Without, "/bulk=")
	for i := range l.Rows {
		switch row := &l.Rows[i]; row.Name {
		case d.With:
			with, of = row.Guest(), "at bulk "+cmp.Or(row.Labels["bulk"], "?")
			if !row.IsDefault() {
				of = "in " + row.Scenario() + " " + of
			}
		case d.Without:
			without = row.Guest()
		}
	}
	return of, with, without
}

// LabComparison counts the rows that two records of lab agree in.
func LabComparison(c *record.LabComparison) string {
	return fmt.Sprintf("%d rows are equal to the digit, %d are not.", c.Same, len(c.Rows))
}
