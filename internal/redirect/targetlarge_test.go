package redirect

import (
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
)

// A program of 100 000 instructions and 60 maps runs in the chain, and its time is that of so many instructions.
func TestTargetLarge(t *testing.T) {
	testutil.Root(t)
	const adds, maps = 99_000, 60
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{}, Maps: map[string]*ebpf.MapSpec{}}
	ins := asm.Instructions{asm.Mov.Imm(asm.R6, 0)}
	for i := range maps {
		name := fmt.Sprintf("m%d", i)
		spec.Maps[name] = &ebpf.MapSpec{Name: name, Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 16}
		ins = append(ins, asm.StoreImm(asm.RFP, -4, int64(i), asm.Word), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, 0).WithReference(name), asm.FnMapLookupElem.Call())
	}
	for range adds {
		ins = append(ins, asm.Add.Imm(asm.R6, 1))
	}
	ins = append(ins, asm.Mov.Imm(asm.R0, 3), asm.Return())
	spec.Programs["large"] = &ebpf.ProgramSpec{Name: "large", Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: ins}
	began := time.Now()
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Logf("loaded in %v", time.Since(began))
	opened := &program.Opened{
		Program: coll.DetachProgram("large"), Spec: spec, Name: "large", Type: ebpf.XDP, Maps: map[string]*ebpf.Map{},
	}
	for name := range spec.Maps {
		opened.Maps[name] = coll.DetachMap(name)
	}
	made, err := NewTarget(opened, "large.o", TargetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	raw, err := Run(t.Context(), Plan{
		Target: made, Bulks: []int{16}, Schedule: rounds.Schedule{Rounds: 2, Duration: 4 * time.Second},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	row := raw.Rows[0].record()
	// An addition takes a cycle at most: 0.15 to 1 ns.
	if row.Refused != "" || row.Hop.Median < 0.05*adds || row.Hop.Median > 2*adds {
		t.Errorf("refused %q, %+v", row.Refused, row.Hop)
	}
	t.Logf("%.0f ns, reloaded %v, %v in all", row.Hop.Median, made.reload, time.Since(began))
}
