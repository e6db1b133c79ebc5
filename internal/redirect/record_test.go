package redirect

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/rounds"
)

// raw is a row of six good rounds.
func raw(bulk int) RawRow {
	return RawRow{
		Row:        Row{ChainSpec{Map, Operation{}, Native, DefaultSize, OneCore, nil}, bulk},
		Rounds:     []int{0, 1, 2, 3, 4, 5},
		NsPerFrame: []float64{100, 101, 99, 100, 102, 98},
		Hop:        []float64{40, 41, 39, 40, 42, 38},
		Disturbed:  []float64{0.01, 0.01, 0.02, 0.01, 0.03, 0.01},
		Counts:     rounds.Counts{Sent: 1000, Redirected: 1000, Received: 1000},
		Slots:      rounds.Slots{All: 100},
	}
}

func TestRecord(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*RawRow)
		refused string // in the refusal; empty for a number
		warned  string // in a warning; empty for none
	}{
		{"good", func(*RawRow) {}, "", ""},
		{"few bad slots", func(r *RawRow) { r.Slots.Bad = 5 }, "", "5 of 100 slots"},
		{"many bad slots", func(r *RawRow) { r.Slots.Bad, r.Counts.Received = 6, 900 }, "1000 sent, 1000 redirected, 900 received", ""},
		{"why", func(r *RawRow) { r.Slots.Bad, r.Failure = 100, "the device said no" }, "the device said no", ""},
		{"copies", func(r *RawRow) { r.Scenario, r.Slots.Bad = Multi, 100 }, "1000 received of 2000 expected", ""},
		{"never ran", func(r *RawRow) { r.Slots.All = 0 }, "the run ended", ""},
		{"no round", func(r *RawRow) { r.NsPerFrame, r.Rounds = nil, nil }, "no round", ""},
		{"disturbed", func(r *RawRow) { r.Disturbed = []float64{0.2, 0.3, 0.2} }, "", "20 % longer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := raw(64)
			test.change(&r)
			rows, warns := (&Raw{Rows: []RawRow{r}}).Record()
			row := rows[0]
			if (test.refused == "") != (row.Refused == "") || !strings.Contains(row.Refused, test.refused) {
				t.Errorf("refused: %q, want %q", row.Refused, test.refused)
			}
			if (row.Ns == nil) != (row.Refused != "") || (row.Mpps == nil) != (row.Ns == nil) {
				t.Errorf("a number and a refusal: %+v", row)
			}
			if row.Ns != nil && (row.Ns.Median != 100 || row.Mpps.Median != 10 || row.Hop.Median != 40) {
				t.Errorf("ns %v, Mpps %v, hop %v", row.Ns.Median, row.Mpps.Median, row.Hop.Median)
			}
			var texts []string
			for _, w := range warns {
				texts = append(texts, w.Text)
			}
			if all := strings.Join(texts, "\n"); (test.warned == "") != (all == "") || !strings.Contains(all, test.warned) {
				t.Errorf("warnings: %q, want %q", all, test.warned)
			}
		})
	}
}
