package page

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestMarkdownGolden(t *testing.T) {
	t.Parallel()
	bench := reporttest.Bench("one", 1, 1)
	bench.Warnings = []record.Warning{{Row: "redirect-map/bulk=64", Text: "a warning of *a* row_"}}
	var b bytes.Buffer
	if err := Markdown(t.Context(), &b, Source{Records: []*record.Saved{savedAs(t, "dir/bench.json", bench)},
		Version: "v1"}); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "page.md", b.String())
	b.Reset()
	if err := Markdown(t.Context(), &b, Source{Records: everyRecord(t), History: reporttest.Trends(t)}); err != nil ||
		strings.Contains(b.String(), "NaN") {
		t.Error(err)
	}
	// Each line of a table has as many cells as its head.
	cells := 0
	for line := range strings.SplitSeq(b.String(), "\n") {
		n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		if cells != 0 && n != cells {
			t.Errorf("%d cells, not %d: %s", n, cells, line)
		}
		cells = n
	}
}

// Counts of a guest stand beside the branches of an inventory, rare ones that were executed
// too.
func TestSiteCounts(t *testing.T) {
	t.Parallel()
	records := []*record.Saved{savedAs(t, "xray.json", reporttest.XrayCounted())}
	var text, csv bytes.Buffer
	if err := Markdown(t.Context(), &text, Source{Records: records}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1 a bulk; counted: 1 in 16 packets", "at most 1 a packet; counted: none", "rare; counted: 1 in 8 packets",
		"Counted: 5 indirect branches in 16 packets (0.3125 a packet) by debian:6.12-cloud/bulk=16 of lab, Linux 6.12.1.",
		"a_tick+0x20", "# A packet executes 0.3125 indirect branches, counted in a guest",
		"On the path in code, but they cannot run here: a veth maps no memory for DMA",
	} {
		if !strings.Contains(strings.ReplaceAll(text.String(), `\`, ""), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
	if err := CSV(t.Context(), &csv, Source{Records: records}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(csv.String(), "executions counted by a guest of lab"); n != 3 {
		t.Errorf("%d counts in:\n%s", n, csv.String())
	}
}

// One row of a record may have as much text as the record: no other row becomes as wide.
func TestMarkdownWideRow(t *testing.T) {
	t.Parallel()
	doc := recordtest.Sites(recordtest.Site("bq_xmit_all", "net_device_ops.ndo_xdp_xmit", "thunk", "bulk"))
	row := doc.Rows[0]
	doc.Rows = doc.Rows[:0]
	for i := range 200 {
		row.Name = fmt.Sprint(i)
		doc.Rows = append(doc.Rows, row)
	}
	doc.Rows[7].Targets = slices.Repeat([]string{"veth_poll_of_some_length"}, 1000)
	src := Source{Records: []*record.Saved{record.NewSaved(doc)}}
	var b bytes.Buffer
	if err := Markdown(t.Context(), &b, src); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 200_000 {
		t.Errorf("%d bytes", b.Len())
	}
	for i := range doc.Rows {
		doc.Rows[i].Targets = doc.Rows[7].Targets
	}
	b.Reset()
	err := Markdown(t.Context(), &b, src)
	if err == nil || err.Error() != "make Markdown: the records fill more than 2 MiB: report fewer of them" || b.Len() > 0 {
		t.Errorf("%d bytes, error %v", b.Len(), err)
	}
}

// Each line of CSV has the machine's names: they may be long.
func TestCSVFull(t *testing.T) {
	t.Parallel()
	doc := recordtest.Sites(recordtest.Site("bq_xmit_all", "net_device_ops.ndo_xdp_xmit", "thunk", "bulk"))
	row := doc.Rows[0]
	for i := range 200 {
		row.Name = fmt.Sprint(i)
		doc.Rows = append(doc.Rows, row)
	}
	doc.Host.CPU = strings.Repeat("x", 1<<20)
	var b bytes.Buffer
	err := CSV(t.Context(), &b, Source{Records: []*record.Saved{record.NewSaved(doc)}})
	if err == nil || err.Error() != "make CSV: the records fill more than 64 MiB: report fewer of them" || b.Len() > 0 {
		t.Errorf("%d bytes, error %v", b.Len(), err)
	}
}
