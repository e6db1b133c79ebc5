package lab

import (
	"fmt"
	"strconv"
	"strings"

	"unthunk/result"
	"unthunk/stat"
)

// Record turns what guests counted into rows, and into the differences of each two
// cells of one kernel and CPU, the first against the others. price is that of one
// indirect call on this machine in ns; it may be nil.
func Record(cells []CellResult, bulks []int, price *stat.Quantity) *result.Lab {
	l := &result.Lab{Price: price, Differences: []result.LabDifference{}}
	l.Rows, l.Warnings = []result.LabRow{}, []result.Warning{}
	for i := range cells {
		l.Rows = append(l.Rows, cells[i].rows(bulks)...)
	}
	for i := range l.Rows {
		with := &l.Rows[i]
		for j := i + 1; j < len(l.Rows); j++ {
			without := &l.Rows[j]
			same := with.Labels["kernel"] == without.Labels["kernel"] && with.Labels["cpu"] == without.Labels["cpu"] && with.Labels["bulk"] == without.Labels["bulk"]
			first := !same || cells[0].Append == with.Labels["append"]
			if same && first && with.Refused == "" && without.Refused == "" {
				l.Differences = append(l.Differences, difference(with, without, price))
			}
		}
	}
	return l
}

// rows are those of one guest, one a bulk.
func (c *CellResult) rows(bulks []int) (rows []result.LabRow) {
	for i, bulk := range bulks {
		row := result.LabRow{
			Name:    fmt.Sprintf("%s/bulk=%d", c.Name(), bulk),
			Labels:  map[string]string{"kernel": c.Kernel, "cpu": c.CPU, "append": c.Append, "bulk": strconv.Itoa(bulk)},
			Release: c.Release,
			Sites:   []result.LabSite{}, Functions: map[string]float64{},
		}
		switch {
		case c.Err != nil:
			row.Refused = oneLine(c.Err.Error())
		case c.Measurement == nil || i >= len(c.Bulks):
			row.Refused = "not measured: the run ended before it"
		default:
			c.fill(&row, &c.Bulks[i])
		}
		rows = append(rows, row)
	}
	return rows
}

func (c *CellResult) fill(row *result.LabRow, b *BulkCount) {
	row.Thunk, row.SpectreV2 = c.Host.IndirectThunk, c.Host.Mitigations["spectre-v2"]
	calls := 0.0
	for _, s := range b.Sites {
		calls += s.PerPacket
		row.Sites = append(row.Sites, result.LabSite(s))
	}
	row.Instructions, row.Calls, row.Window = &b.Instructions, &calls, b.Window
	row.Functions = b.Functions
	row.Counts = result.Counts{Sent: b.Sent, Redirected: b.Redirected, Received: b.Received}
}

// What a retpoline executes more than a plain indirect branch: of a call, that of the
// thunk, the call in it, mov and ret against the call and the nop that fills its room;
// of a jump the same against the jump alone.
const (
	moreCall = 2
	moreJump = 3
)

func difference(with, without *result.LabRow, price *stat.Quantity) result.LabDifference {
	d := result.LabDifference{
		With: with.Name, Without: without.Name,
		Instructions: *with.Instructions - *without.Instructions, Calls: *with.Calls,
	}
	sites, observer := retpolined(with)
	sitesWithout, observerWithout := retpolined(without)
	d.BySites, d.ByObserver = sites-sitesWithout, observer-observerWithout
	d.Remainder = d.Instructions - d.BySites - d.ByObserver
	if price != nil {
		d.Ns = &stat.Quantity{Median: d.Calls * price.Median, Low: d.Calls * price.Low, High: d.Calls * price.High, N: price.N, Unit: "ns"}
	}
	return d
}

// retpolined is how many instructions of a packet are those that retpolines execute more
// than plain branches: at the sites, and for the observer's time stamps, where
// bpf_ktime_get_ns calls the clock source indirectly.
func retpolined(row *result.LabRow) (sites, observer float64) {
	if !strings.HasPrefix(row.Thunk, "retpoline") {
		return 0, 0
	}
	for _, s := range row.Sites {
		if s.Jump {
			sites += moreJump * s.PerPacket
		} else {
			sites += moreCall * s.PerPacket
		}
	}
	if row.Window > 0 {
		observer = moreCall / float64(row.Window)
	}
	return sites, observer
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
