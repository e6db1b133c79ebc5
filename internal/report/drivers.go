package report

import (
	"fmt"
	"io"
	"strconv"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Drivers writes what drivers with native XDP do for a redirected packet: what the columns
// are, then one row each, and beneath it what is left to do.
func Drivers(w io.Writer, opts Options, doc *record.Document[record.DriverRow]) error {
	p := newPrinter(opts)
	releases := make(map[string]bool)
	for _, row := range doc.Rows {
		releases[row.Release] = true
	}
	title := "XDP scoreboard of NIC drivers"
	if len(releases) == 1 {
		title += ", Linux " + cells.Clean(doc.Rows[0].Release)
	}
	p.wrap("", title)
	fmt.Fprintln(&p.buf)
	p.wrap("", "Places in the code that a driver's NAPI polls and its ndo_xdp_xmit reach by direct calls. xmit: it has "+
		"ndo_xdp_xmit. RX memory: page_pool keeps pages mapped; else places that map and unmap, without those that "+
		"ndo_xdp_xmit and the completion of transmissions reach. TX maps: places in ndo_xdp_xmit. return: how sent "+
		"frames return to their memory: in bulk, each by itself, or by the driver's own means. indirect: branches in "+
		"polls + in ndo_xdp_xmit, rare ones too. left: what others do and this driver does not.")
	fmt.Fprintln(&p.buf)
	table := [][]string{{"driver", "xmit", "RX memory", "TX maps", "RX syncs", "return", "indirect", ""}}
	for _, row := range doc.Rows {
		xmit := "yes"
		if row.Xmit == "" {
			xmit = "no"
		}
		table = append(table, []string{
			cells.Clean(row.Name), xmit, receiveMemory(row), transmitMaps(row), strconv.Itoa(row.Receive.Syncs),
			cells.Clean(row.Return),
			fmt.Sprintf("%d + %d", row.Poll.Indirect, row.Transmit.Indirect), "",
		})
		if len(releases) > 1 {
			table[len(table)-1][7] = cells.Clean(row.Release)
		}
	}
	for i, line := range columns(table, []bool{true, true, true, true, false, true, false, true}, " ") {
		p.line(line)
		if i == 0 {
			continue
		}
		if left := doc.Rows[i-1].LeftText(); left != "" {
			p.wrap("    left: ", left)
		}
	}
	notes := newFootnotes(doc.Warnings)
	notes.write(p)
	return p.flush(w)
}

// receiveMemory says how the frames that a driver receives are mapped for DMA.
func receiveMemory(row record.DriverRow) string {
	switch {
	case !row.DMA:
		return "no DMA API"
	case row.PagePool && !row.MapsPool:
		return "page_pool"
	case row.Receive.Maps+row.Receive.Unmaps > 0:
		return fmt.Sprintf("map %d, unmap %d", row.Receive.Maps, row.Receive.Unmaps)
	}
	return "none seen"
}

// transmitMaps says where ndo_xdp_xmit maps frames for DMA.
func transmitMaps(row record.DriverRow) string {
	switch {
	case row.Xmit == "":
		return "-"
	case row.Transmit.Gathers > 0:
		return fmt.Sprintf("list %d", row.Transmit.Gathers)
	}
	return strconv.Itoa(row.Transmit.Maps)
}
