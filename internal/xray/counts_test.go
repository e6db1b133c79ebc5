package xray

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
)

// inventory has three branches of one function, one of another, and one that is nowhere
// else.
func inventory() *record.Document[record.SiteRow] {
	doc := &record.Document[record.SiteRow]{Head: record.Head{Host: host.Fingerprint{Kernel: "6.12.1"}}}
	add := func(function string, offset uint64, pointer string) {
		row := record.SiteRow{Name: function + "/" + pointer, Function: function, Offset: offset}
		if pointer != "" {
			row.Pointer = &pointer
		}
		doc.Rows = append(doc.Rows, row)
	}
	add("poll", 0x10, "napi_struct.poll")
	add("poll", 0x20, "ops.twice")
	add("poll", 0x30, "ops.twice")
	add("xmit", 0x40, "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit")
	add("alone", 0x50, "")
	return doc
}

// labRow has counts of the same function, by two parts of the chain.
func labRow(move uint64) record.LabRow {
	calls := 0.6875
	return record.LabRow{
		Name: "debian:6.12/bulk=16", Labels: map[string]string{"nic": "veth", "bulk": "16"}, Release: "6.12.1", CallsPerPacket: &calls,
		Sites: []record.LabSite{
			{Function: "poll", Offset: move + 0x10, Pointer: "napi_struct.poll", Target: "a", PerPacket: 0.0625},
			{Function: "poll", Offset: move + 0x10, Pointer: "napi_struct.poll", Target: "b", PerPacket: 0.0625},
			{Function: "poll", Offset: move + 0x30, Pointer: "ops.twice", PerPacket: 0.25},
			{Function: "xmit", Offset: move + 0x40, Pointer: "net_device_ops.ndo_xdp_xmit", PerPacket: 0.0625},
			{Function: "elsewhere", Offset: 8, PerPacket: 0.25},
		},
		NotExecuted: []record.LabPlace{{Function: "poll", Offset: move + 0x20, Pointer: "ops.twice"}},
	}
}

// counts are those of the rows by name, -1 for none, and of what is on no row.
func counts(doc *record.Document[record.SiteRow]) (rows []float64, others []string) {
	for _, r := range doc.Rows {
		if r.PerPacket == nil {
			rows = append(rows, -1)
		} else {
			rows = append(rows, *r.PerPacket)
		}
	}
	for _, s := range doc.Counts.Others {
		others = append(others, s.Function)
	}
	return rows, others
}

func TestAddCounts(t *testing.T) {
	t.Parallel()
	// A kernel that was built again has the same branches at other offsets.
	for name, move := range map[string]uint64{"same build": 0, "built again": 0x100} {
		doc, row := inventory(), labRow(move)
		if err := AddCounts(doc, "veth", &record.Lab{Document: record.Document[record.LabRow]{Rows: []record.LabRow{row}}}, ""); err != nil {
			t.Fatal(err)
		}
		rows, others := counts(doc)
		if diff := cmp.Diff([]float64{0.125, 0, 0.25, 0.0625, -1}, rows); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff([]string{"elsewhere"}, others); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if c := doc.Counts; c.Row != row.Name || c.Release != "6.12.1" || c.CallsPerPacket != 0.6875 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// A place that has no row takes nothing from those that have one.
func TestAddCountsBeside(t *testing.T) {
	t.Parallel()
	doc, row := inventory(), labRow(0)
	row.Sites = append(row.Sites, record.LabSite{Function: "poll", Offset: 0x99, Pointer: "ops.other", PerPacket: 0.5})
	if err := AddCounts(doc, "veth", &record.Lab{Document: record.Document[record.LabRow]{Rows: []record.LabRow{row}}}, ""); err != nil {
		t.Fatal(err)
	}
	rows, others := counts(doc)
	if diff := cmp.Diff([]float64{0.125, 0, 0.25, 0.0625, -1}, rows); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"elsewhere", "poll"}, others); diff != "" {
		t.Error(diff)
	}
}

// Which of two calls of one member an offset of another build is of cannot be told when
// only one of them was watched: neither has its count.
func TestAddCountsAmbiguous(t *testing.T) {
	t.Parallel()
	doc, row := inventory(), labRow(0x100)
	row.NotExecuted = nil
	if err := AddCounts(doc, "veth", &record.Lab{Document: record.Document[record.LabRow]{Rows: []record.LabRow{row}}}, ""); err != nil {
		t.Fatal(err)
	}
	rows, others := counts(doc)
	if diff := cmp.Diff([]float64{0.125, -1, -1, 0.0625, -1}, rows); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"poll", "elsewhere"}, others); diff != "" {
		t.Error(diff)
	}
}

func TestCounted(t *testing.T) {
	t.Parallel()
	other, refused, single, wired, arm := labRow(0), labRow(0), labRow(0), labRow(0), labRow(0)
	other.Name, other.Release = "other", "6.1"
	refused.CallsPerPacket, refused.Refused = nil, "no guest"
	single.Name, single.Labels = "one", map[string]string{"nic": "veth", "bulk": "1"}
	wired.Name, wired.Labels = "wired", map[string]string{"nic": "virtio", "bulk": "64"}
	arm.Name = "arm/bulk=16"
	for _, test := range []struct {
		name        string
		rows        []record.LabRow
		driver, row string
		want        string // the row, or a part of the error
	}{
		{"default bulk", []record.LabRow{single, labRow(0)}, "veth", "", "debian:6.12/bulk=16"},
		{"asked for", []record.LabRow{single, labRow(0)}, "veth", "one", "one"},
		{"the only one", []record.LabRow{other, single}, "veth", "", "one"},
		{"the only one with counts", []record.LabRow{refused, single}, "veth", "", "one"},
		{"driver", []record.LabRow{labRow(0), wired}, "virtio_net", "", "wired"},
		{"two of a bulk", []record.LabRow{labRow(0), arm}, "veth", "", "2 rows have counts of it: choose one with --row"},
		{"one of two", []record.LabRow{labRow(0), arm}, "veth", "arm/bulk=16", "arm/bulk=16"},
		{"no such row", []record.LabRow{single, labRow(0)}, "veth", "two", "it has no row two, but one, debian:6.12/bulk=16"},
		{"another kernel", []record.LabRow{other}, "veth", "", "no counts of Linux 6.12.1, only of Linux 6.1: --root"},
		{"row of another kernel", []record.LabRow{other, single}, "veth", "other", "no counts of Linux 6.12.1, only of Linux 6.1: --root"},
		{"no such driver", []record.LabRow{labRow(0), wired}, "igb", "", "no counts of igb, only of veth, virtio_net: --driver"},
		{"refused", []record.LabRow{refused}, "veth", "", "refused: no guest"},
		{"empty", nil, "veth", "", "only of nothing"},
	} {
		row, err := counted(test.rows, "6.12.1", test.driver, test.row)
		switch {
		case err != nil && !strings.Contains(err.Error(), test.want):
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		case err == nil && row.Name != test.want:
			t.Errorf("%s: %s, want %s", test.name, row.Name, test.want)
		}
	}
}
