package progcost

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/program/lines"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/prog"
)

// Where a redirect goes is named with all that the kernel uses of it, also of a map in a map; what has no name is unknown.
func TestDestinations(t *testing.T) {
	testutil.Root(t)
	object := testutil.Compile(t, "../program/lines/testdata/redirect.bpf.c")
	packets := made(t, "udp4")
	for _, tt := range []struct {
		program string
		byEntry bool
		want    string
	}{
		{"first", false, "device 1"},
		{"first", true, "entry 0 of ports"},
		{"high", false, "device 1"},
		{"high", true, "entry 1 of ports"},
		{"everywhere", true, "all of ports"},
		{"elsewhere", true, "all of ports but the ingress"},
		{"direct", true, "device 7"},
		{"random", true, Unknown},
		{"pass", true, ""},
		{"red", false, "device 1"},
		{"red", true, "entry 1 of tables[0]"},
		{"blue", false, "device 1"},
		{"blue", true, "entry 1 of tables[2]"},
	} {
		target, err := program.Parse(object + ":" + tt.program)
		if err != nil {
			t.Fatal(err)
		}
		o, err := OpenNoted(t.Context(), target, program.Options{})
		testutil.SkipMissing(t, err)
		if err != nil {
			t.Fatal(err)
		}
		fillPorts(t, o)
		to, err := DestinationsHere(t.Context(), packets, prog.Options{}, o, tt.byEntry)
		if err != nil || len(to) != 1 || to[0] != tt.want {
			t.Errorf("%s, by entry %v: %q, %v, want %q", tt.program, tt.byEntry, to, err, tt.want)
		}
		p := places{of: o, known: make(map[uint32]place)}
		if got := p.destination(&lines.Redirect{Map: 1<<32 - 1, To: 1}); got != Unknown {
			t.Errorf("of a map that is not there: %q", got)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
}

// fillPorts has entries 0 and 1 of all maps of ports lead to the loopback.
func fillPorts(t *testing.T, o *program.Opened) {
	t.Helper()
	fill := func(m *ebpf.Map) {
		for key := range uint32(2) {
			if err := m.Put(key, uint32(1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ports := o.Maps["ports"]; ports != nil {
		fill(ports)
	}
	tables := o.Maps["tables"]
	if tables == nil {
		return
	}
	for _, key := range []uint32{0, 2} {
		inner, err := ebpf.NewMap(o.Spec.Maps["tables"].InnerMap)
		if err != nil {
			t.Fatal(err)
		}
		fill(inner)
		if err := tables.Put(key, inner); err != nil {
			t.Fatal(err)
		}
		inner.Close()
	}
}
