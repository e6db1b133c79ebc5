package xray

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// Every function has one name, and no two have the same: static functions of one name, code
// without a symbol, a label of assembly, a cold part.
func TestGraph(t *testing.T) {
	t.Parallel()
	table, err := ksym.New([]ksym.Symbol{
		{Addr: 0x1000, Size: 0x10, Type: 't', Name: "unlock"}, {Addr: 0x1010, Size: 8, Type: 't', Name: ".slow"},
	})
	if err != nil {
		t.Fatal(err)
	}
	k := kernel.New(ktext.Bytes{}, table, nil)
	k.Live = true
	p := &Path{kernel: k, Inventory: &xdppath.Inventory{
		Functions: []xdppath.Function{
			{Name: "poll", Addr: 0x100, Callees: []uint64{0x200, 0x300, 0x1000, 0x4000, 0x5000}},
			{Name: "unmap", Addr: 0x200}, {Name: "unmap", Addr: 0x300},
			{Name: "unlock", Addr: 0x1000, Callees: []uint64{0x1010}}, {Name: ".slow", Addr: 0x1010},
			{Name: "0x4000", Addr: 0x4000}, {Name: "0x5000", Addr: 0x5000},
		},
		Sites: []xdppath.Site{
			{Function: "poll.cold", Offset: 8, Entry: 0x100, Targets: []string{"unlock"}, Pointer: "ops.a"},
			{Function: "unmap", Offset: 4, Entry: 0x300}, {Function: "unmap", Offset: 6, Entry: 0x300, Pointer: "ops.b"},
		},
	}}
	rows := make([]record.SiteRow, 3)
	g := p.Graph(rows)
	if diff := cmp.Diff([]string{"poll", "programs without a symbol", "unlock", "unlock.slow", "unmap at 0x200", "unmap at 0x300"},
		g.Functions); diff != "" {
		t.Error(diff)
	}
	want := []record.GraphCall{
		{From: "poll", To: "unmap at 0x200"}, {From: "poll", To: "unmap at 0x300"}, {From: "poll", To: "unlock"},
		{From: "poll", To: "programs without a symbol"}, {From: "poll", To: "unlock", Site: &rows[0]},
		{From: "unlock", To: "unlock.slow"},
		{From: "unmap at 0x300", To: "? of unmap+0x4", Site: &rows[1]}, {From: "unmap at 0x300", To: "ops.b", Site: &rows[2]},
	}
	if diff := cmp.Diff(want, g.Calls); diff != "" {
		t.Error(diff)
	}
}
