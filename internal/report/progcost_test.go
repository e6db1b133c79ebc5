package report

import (
	"bytes"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestProgCostGolden(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		width  int
		change func(*record.ProgCost)
	}{
		{"prog-cost.txt", 80, func(c *record.ProgCost) {}},
		{"prog-cost-lines.txt", 80, func(c *record.ProgCost) {
			ns := func(ns float64) *float64 { return &ns }
			c.Lines = []record.CostLine{
				{Program: "xdp_lb", Function: "xdp_lb", File: "lb.c", Line: 9, Text: "if (end_of(frame) <= frame->end)",
					Runs: 1, Sampled: 10, Ns: ns(0.5)},
				{Program: "xdp_lb", Function: "xdp_lb", File: "lb.c", Line: 120, Runs: 0.8, Sampled: 400, Ns: ns(20.25),
					Text: "entry = bpf_map_lookup_elem(&connections_of_this_balancer, &key_of_the_connection);"},
				{Program: "xdp_lb", Function: "parse", File: "parse.h", Line: 7, Text: "for (i = 0; i < 6; i++)", Runs: 5.5},
			}
			for i := range 50 {
				c.Lines = append(c.Lines, record.CostLine{
					Program: "xdp_lb", File: "z.h", Line: i + 1, Text: "x++;", Runs: 1, Sampled: i % 4, Ns: ns(0.1)})
			}
		}},
		{"prog-cost-60.txt", 60, func(c *record.ProgCost) {}},
		{"prog-cost-flow.txt", 80, func(c *record.ProgCost) { // too long a name for a column
			c.Rows[1].Name = "flow/tcp 2001:db8::1:40000 > 2001:db8:1234:5678:9abc:def0:1234:5678:443"
			c.Warnings = nil
		}},
		{"prog-cost-refused.txt", 80, func(c *record.ProgCost) {
			c.Incomplete, c.Program.Places, c.Settings = true, 1, map[string]string{"cold": "64 MiB"}
			row := &c.Rows[1]
			row.Refused = "timed runs differ from a single run: the verdict of 12.5 %; first packet 3: XDP_DROP, and XDP_TX when run once"
			row.Ns, row.Null, row.Samples, row.Rounds = nil, nil, nil, nil
		}},
	} {
		c := recordtest.Cost("run", 1, 1)
		c.Warn("verdict/pass", "drifted by +7 % from first to last round: the interval is too narrow")
		c.Warn("", "2 of 16384 packets come out otherwise the first time, as the program's maps learn: what counts is the second time")
		test.change(c)
		var b bytes.Buffer
		if err := ProgCost(&b, Options{Width: test.width}, c); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), test.width)
		reporttest.Golden(t, test.name, b.String())
	}
}
