package progcode

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// foundTable is what was found in a guest.
type foundTable struct {
	// Sites are the sites of the program in words, Made how its jump is made, Verdicts what it returned for packets of 64 and
	// 65 bytes.
	Sites    []string
	Made     string
	Verdicts []uint32
}

// TestTableInGuest loads a program that jumps by a table, runs it and prints how its code was read.
func TestTableInGuest(t *testing.T) {
	if !guest.Guest() {
		testutil.Missing(t, "a guest that TestJumpTable boots")
	}
	// Instructions are counted in 8 bytes, and a load of 64 bits is two.
	const pass, tx = 10, 12
	to := func(insn uint32) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, insn), make([]byte, 12)...)
	}
	table, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "jumps", Type: insnArray, KeySize: 4, ValueSize: 16, MaxEntries: 2,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: to(pass)}, {Key: uint32(1), Value: to(tx)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if err := table.Freeze(); err != nil { // as the verifier wants it
		t.Fatal(err)
	}
	p := assembled(t,
		asm.LoadMem(asm.R2, asm.R1, 4, asm.Word), // data_end
		asm.LoadMem(asm.R3, asm.R1, 0, asm.Word), // data
		asm.Sub.Reg(asm.R2, asm.R3),
		asm.And.Imm(asm.R2, 1),
		asm.LSh.Imm(asm.R2, 3),
		asm.LoadMapValue(asm.R0, table.FD(), 0),
		asm.Add.Reg(asm.R0, asm.R2),
		asm.LoadMem(asm.R0, asm.R0, 0, asm.DWord),
		asm.Instruction{OpCode: jumpTable, Dst: asm.R0},
		asm.Mov.Imm(asm.R0, 2), // XDP_PASS
		asm.Return(),
		asm.Mov.Imm(asm.R0, 3), // XDP_TX
		asm.Return(),
	)
	c := readProgram(t, p)
	found := foundTable{Sites: said(c)}
	for _, s := range c.Sites {
		found.Made = s.Made
	}
	for _, size := range []int{64, 65} {
		verdict, err := p.Run(&ebpf.RunOptions{Data: make([]byte, size)})
		if err != nil {
			t.Fatal(err)
		}
		found.Verdicts = append(found.Verdicts, verdict)
	}
	b, err := json.Marshal(found)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(b))
}

// TestJumpTable reads, in kernels that have it, a program that jumps by a table, through a thunk and without one.
func TestJumpTable(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ series, cmdline, made string }{
		{"7.3", "spectre_v2=retpoline", "retpoline"},
		{"7.3", "spectre_v2=off", "indirect-register"},
		{"7.2", "spectre_v2=retpoline", "retpoline"},
	} {
		t.Run(tt.series+"-"+tt.made, func(t *testing.T) {
			m := guest.Machine{Kernel: guesttest.Guest(t, tt.series), Init: self, Append: tt.cmdline}
			report, err := m.Run(t.Context(), guest.Command{Args: []string{guest.Self, "-test.run=^TestTableInGuest$"}, Timeout: 10 * time.Minute})
			testutil.SkipMissing(t, err)
			if err != nil {
				t.Fatalf("%v; console:\n%s", err, report.Console)
			}
			out := report.Results[0]
			line, _, _ := bytes.Cut(out.Stdout, []byte("\n"))
			var got foundTable
			if err := json.Unmarshal(line, &got); err != nil || out.Exit != 0 {
				t.Fatalf("%v: %s%s%s", err, out.Stdout, out.Stderr, out.Err)
			}
			want := foundTable{Sites: []string{"jump-table indirect jumps"}, Made: tt.made, Verdicts: []uint32{2, 3}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
