package report

import (
	"fmt"
	"strconv"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Loss names where frames were lost and why.
func Loss(l record.LostFrames) string {
	text := cells.Clean(l.At)
	if l.Error != "" {
		text += ": " + cells.Clean(l.Error)
	}
	return text
}

// verdicts says what a program of the user's did with the packets: once for all rows of it in a row that say the same.
func (p *printer) verdicts(rows []record.BenchRow) {
	last := ""
	for _, row := range rows {
		if row.Verdicts == nil {
			continue
		}
		if text := cells.Fates(*row.Verdicts) + " of the packets: " + cells.Clean(row.Labels["prog"]); text != last {
			p.wrap("verdicts  ", text)
			last = text
		}
	}
}

// queues lists what real devices received, by queue and CPU, and what was lost.
func (p *printer) queues(rows []record.BenchRow) {
	for _, row := range rows {
		total := uint64(0)
		for _, q := range row.Queues {
			total += q.Frames
		}
		if total > 0 {
			table := [][]string{{"queue", "CPU", "frames", "share"}}
			for _, q := range row.Queues {
				table = append(table, []string{strconv.Itoa(q.Queue), strconv.Itoa(q.CPU),
					strconv.FormatUint(q.Frames, 10), fmt.Sprintf("%.1f %%", 100*float64(q.Frames)/float64(total))})
			}
			fmt.Fprintln(&p.buf)
			for _, line := range columns(table, []bool{false, false, false, false}, " ") {
				p.line(line)
			}
		}
		for _, l := range row.Lost {
			p.wrap("lost  ", fmt.Sprintf("%d %s", l.Frames, Loss(l)))
		}
	}
}
