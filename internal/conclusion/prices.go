package conclusion

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Calls says what indirect calls cost a packet: what the estimates for a packet at bulk 16, and with
// the calls of 2018, add up to. It is empty when there are none.
func Calls(rows []record.TaxRow) string {
	var parts []string
	for _, row := range rows {
		if row.Price == nil {
			continue
		}
		switch row.Name {
		case "packet/bulk=16":
			parts = append(parts, "At bulk 16 a redirect makes "+adds(row))
		case "packet/2018":
			parts = append(parts, "With a call for each packet of ndo_xdp_xmit, of the program and of a map lookup, as in "+
				"2018, and all else bulked as it is at 64, it would make "+adds(row))
		}
	}
	return strings.Join(parts, " ")
}

func adds(row record.TaxRow) string {
	calls := row.PerPacket.Median
	return fmt.Sprintf("%.2f indirect calls at %.1f ns each: %s of its %.0f ns, %.1f %%; with none it would take %.0f ns.",
		calls, row.Price.Median/calls, row.Price.Text(stat.Fixed(1)), row.With.Median,
		100*row.Price.Median/row.With.Median, row.Without.Median)
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
			title = append(title, fmt.Sprintf("those of a redirect at bulk 16 are %s of its time",
				percent(row.Price.Median/row.With.Median)))
			text = append(text, fmt.Sprintf("At bulk 16 a redirect makes %s: %s.", callsOf(row), row.Price.Text(stat.Number)))
		case "packet/2018":
			text = append(text, fmt.Sprintf("With the calls of 2018 it would make %s: %s, %s of its time.", callsOf(row),
				row.Price.Text(stat.Number), percent(row.Price.Median/row.With.Median)))
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
