package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// What real devices received by queue and CPU, and what was lost, also in a row that was refused:
// there it stands alone, without a line on rounds.
func TestBenchQueues(t *testing.T) {
	t.Parallel()
	doc := reporttest.FullBench()
	doc.Rows = []record.BenchRow{{
		Name: "tx/in=eth0", Labels: map[string]string{"in": "eth0"}, Refused: "packet counts disagree",
		Queues: []record.QueueCount{{Queue: 0, CPU: 3, Frames: 750}, {Queue: 12, CPU: 0, Frames: 250}},
		Lost: []record.LostFrames{
			{At: record.LostMissed, Frames: 7}, {At: record.LostRedirect, Error: "network is down\x1b", Frames: 5},
		},
	}}
	doc.Warnings = nil
	var b bytes.Buffer
	if err := Bench(&b, Options{}, doc); err != nil {
		t.Fatal(err)
	}
	want := `
queue  CPU  frames   share
    0    3     750  75.0 %
   12    0     250  25.0 %
lost  7 rx-missed
lost  5 xdp_do_redirect: network is down
`
	if got := b.String(); !strings.HasSuffix(strings.ReplaceAll(got, "\ufffd", ""), want) || strings.Contains(got, "Medians") ||
		strings.Contains(got, "\x1b") {
		t.Errorf("%s", got)
	}
}
