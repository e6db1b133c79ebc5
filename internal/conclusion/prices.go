package conclusion

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Calls says what indirect calls cost a packet: what the estimates for a packet at bulk 16,
// and with the calls of 2018, add up to. ladder is that of the run, whose redirect at bulk 16
// the share is of; without one it is that of the prices. Calls is empty when there are no
// estimates.
func Calls(rows []record.TaxRow, ladder []record.BenchRow) string {
	var said []string
	if row := priceRow(rows, "packet/bulk="+record.AnswerBulk); row != nil && row.PerPacket != nil && row.With != nil {
		redirect, of := row.With, "of its %s ns"
		if yours(row) {
			of = "of the %s ns of your program and the way of its verdict"
		}
		if head := headRow(ladder); head != nil && head.Labels["bulk"] == record.AnswerBulk {
			redirect = head.Hop
		}
		_, share := share(redirect, record.AnswerBulk, rows)
		switch {
		case row.PerPacket.Median == 0:
			said = append(said, noCalls(row))
		case share != nil && share.Median < 100:
			part, without := share.Text(stat.Number), fmt.Sprintf(" Without them it would take %s ns.",
				stat.Number(redirect.Median-row.Price.Median))
			if !row.Price.Seen() {
				part, without = fromZero(min(share.High, 100)/100), ""
			}
			said = append(said, fmt.Sprintf("At bulk %s %s makes %s%s: %s "+of+", %s.%s",
				record.AnswerBulk, packetOf(row), callsAt(row), uncounted(row), costText(row.Price),
				stat.Number(redirect.Median), part, without))
		}
	}
	if row := priceRow(rows, "packet/2018"); row != nil && row.PerPacket != nil && row.With != nil && row.With.Median > 0 {
		said = append(said, fmt.Sprintf("In 2018 each packet had a call of ndo_xdp_xmit, of the program and of a map lookup "+
			"of its own. At bulk 64 that is %s: %s of %s ns, %s.", callsAt(row), costText(row.Price),
			stat.Number(row.With.Median), costPercent(row.Price, row.With.Median)))
	}
	return strings.Join(said, " ")
}

// yours says whether an estimate is of packets of a program of the user's.
func yours(row *record.TaxRow) bool { return row.Labels["verdict"] != "" }

// packetOf names the packet of an estimate by its verdict.
func packetOf(row *record.TaxRow) string {
	switch row.Labels["verdict"] {
	case "", "redirect":
		return "a redirect"
	case "tx":
		return "a packet that is sent back (XDP_TX)"
	case "drop":
		return "a packet that is dropped"
	case "pass":
		return "a packet that passes"
	}
	return "a packet"
}

// uncounted says which calls an estimate does not have; empty when the packet makes no others.
func uncounted(row *record.TaxRow) string {
	switch row.Labels["verdict"] {
	case "pass", record.MixedVerdict:
		return ", without those of the network stack"
	}
	return ""
}

// noCalls says of a packet that it makes no indirect call.
func noCalls(row *record.TaxRow) string {
	s := fmt.Sprintf("At bulk %s %s makes no indirect call behind the program", record.AnswerBulk, packetOf(row))
	if uncounted(row) != "" {
		s += "; those of the network stack are not counted"
	}
	return s + "."
}

// callsAt is how many calls a packet makes, and the price of each.
func callsAt(row *record.TaxRow) string {
	n := row.PerPacket.Median
	return fmt.Sprintf("%s indirect calls of %s ns each", trimmed(n), row.Price.Times(1/n).Cost(stat.Number))
}

func taxHeadline(rows []record.TaxRow) Headline {
	var title, text []string
	for _, row := range rows {
		if row.Price == nil || math.IsNaN(row.Price.Median) {
			continue
		}
		switch row.Name {
		case "bpf-prog":
			title = append(title, fmt.Sprintf("an indirect call costs %s ns here", row.Price.Cost(stat.Number)))
			text = append(text, fmt.Sprintf("The price of %s is %s.", row.Name, costText(row.Price)))
		case "packet/bulk=16":
			if row.PerPacket != nil && row.PerPacket.Median == 0 {
				text = append(text, noCalls(&row))
				continue
			}
			title = append(title, fmt.Sprintf("those of %s at bulk 16 are %s of its time", packetOf(&row),
				costPercent(row.Price, row.With.Median)))
			text = append(text, fmt.Sprintf("At bulk 16 %s makes %s%s: %s.", packetOf(&row), callsOf(row), uncounted(&row),
				costText(row.Price)))
		case "packet/2018":
			text = append(text, fmt.Sprintf("With the calls of 2018 it would make %s: %s, %s of its time.", callsOf(row),
				costText(row.Price), costPercent(row.Price, row.With.Median)))
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
