package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/record"
)

// A target of tail calls does not see all packets of the device, which is said. XDP_TX that fails, as
// without a program at the end of the veth, is what the program returned all the same.
func TestProgWatchTailCallTarget(t *testing.T) {
	lab, p, _ := watched(t, "tailcall", link.XDPDriverMode)
	save := filepath.Join(t.TempDir(), "w.json")
	cmd, stdout, stderr := watching(t, lab, fmt.Sprintf("id:%d --duration 2s --hz 2000 --save %s", inTable(t, p), save))
	if code := watchEnd(t, cmd, stderr); code != exitDone {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	saved, err := record.Load(save)
	if err != nil {
		t.Fatal(err)
	}
	doc := saved.ProgWatch()
	for _, row := range []string{"packets", "verdict/tx", "lost/xdp_tx_errors"} {
		if r := doc.Row(row); r == nil || r.Value == nil || r.Value.Median <= 0 {
			t.Fatalf("row %s: %+v\n%s", row, r, stdout)
		}
	}
	if packets, sent := doc.Row("packets").Value.Median, doc.Row("verdict/tx").Value.Median; math.Abs(packets-sent) > packets/1000 {
		t.Errorf("XDP_TX was returned for %v of %v packets", sent, packets)
	}
	if !slices.ContainsFunc(doc.Warnings, func(w record.Warning) bool { return strings.Contains(w.Text, "is not what is attached to w0") }) ||
		!strings.Contains(stderr.String(), "is not what is attached to w0") {
		t.Errorf("no warning says that packets are the device's: %v, %s", doc.Warnings, stderr)
	}
	text := strings.Join(strings.Fields(stdout.String()), " ")
	for _, want := range []string{"ns a packet of w0, whether it reaches " + doc.Program.Name + " or not", "ns a packet of w0 "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
}

// inTable is the id of a program in the tail-call table of another.
func inTable(t *testing.T, p *ebpf.Program) (id uint32) {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	ids, _ := info.MapIDs()
	for _, number := range ids {
		m, err := ebpf.NewMapFromID(number)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		for i := range m.MaxEntries() {
			if m.Type() == ebpf.ProgramArray && m.Lookup(i, &id) == nil {
				return id
			}
		}
	}
	t.Fatal("nothing is in the table")
	return 0
}
