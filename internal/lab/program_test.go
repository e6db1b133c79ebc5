package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/prog"
)

// jobOf is a program of an object, on packets that are made.
func jobOf(t testing.TB, object []byte, name, packets string) *progcount.Job {
	t.Helper()
	made, err := prog.MakePackets(packets)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := program.PackObject(t.Context(), object, name, program.Options{Run: true})
	if err != nil {
		t.Fatal(err)
	}
	return &progcount.Job{Program: packed, Target: "lb.o:" + name, Packets: made, By: progcost.ByVerdict,
		Source: record.PacketSource{Source: packets, Seen: made.Seen, Kept: len(made.Frames)}}
}

// compiled are the two objects that differ in one instruction.
func compiled(t *testing.T) (one, more []byte) {
	t.Helper()
	var objects [2][]byte
	for i, flags := range [][]string{nil, {"-DMORE"}} {
		var err error
		if objects[i], err = os.ReadFile(testutil.Compile(t, "testdata/one.bpf.c", flags...)); err != nil {
			t.Fatal(err)
		}
	}
	return objects[0], objects[1]
}

// counted boots a guest for a program.
func counted(t *testing.T, self string, plan Plan) []record.LabRow {
	t.Helper()
	if plan.Kernels == nil {
		plan.Kernels = []string{"debian:6.12-cloud"}
	}
	cells, err := Run(t.Context(), plan, self, nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	testutil.SkipMissing(t, cells[0].Err)
	if cells[0].Err != nil {
		t.Fatalf("%v; console:\n%s", cells[0].Err, cells[0].Console)
	}
	return Record(cells, nil, nil).Rows
}

// A program of one instruction more takes one more, and in five boots beside busy loops, one of them of another
// unthunk, it takes the same number to the digit. Two packets take what their classes say.
func TestProgramExact(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	self := unthunk(t)
	stop := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	defer close(stop)
	for range 2 {
		group.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	one, more := compiled(t)
	few := counted(t, self, Plan{Program: jobOf(t, one, "one", "udp4,arp")})
	many := counted(t, self, Plan{Program: jobOf(t, more, "one", "udp4,arp")})
	if got := *many[0].Instructions - *few[0].Instructions; got != 1 || len(few) != 1 {
		t.Errorf("one instruction more: %v, from %v", got, *few[0].Instructions)
	}
	// Its verifier is an older one.
	if old := counted(t, self, Plan{Kernels: []string{"debian:6.1-cloud"}, Program: jobOf(t, more, "one", "udp4")}); *old[0].Instructions < 1 {
		t.Errorf("%+v", old)
	}
	var first []record.LabRow
	for boot := range 5 {
		rows := counted(t, self, Plan{Program: jobOf(t, sample.Object(), "nat", "udp4,udp4:1400,tcp4,arp"), Trace: boot == 4})
		if boot == 4 { // what is traced is checked to add up; it is the program's and that of the helpers that it calls
			for _, r := range rows {
				if r.Trace == nil || r.CallsPerPacket == nil || !strings.HasSuffix(r.Trace.Functions[0].Function, "_nat") || len(r.Trace.Lines) < 5 {
					t.Errorf("%s: %+v", r.Name, r.Trace)
				}
			}
		}
		if boot == 0 {
			first = rows
			continue
		}
		for i := range rows {
			if *rows[i].Instructions != *first[i].Instructions || rows[i].Program.Outcome != first[i].Program.Outcome {
				t.Errorf("boot %d: %s: %v, %s, not %v, %s as in the first", boot, rows[i].Name,
					*rows[i].Instructions, rows[i].Program.Outcome, *first[i].Instructions, first[i].Program.Outcome)
			}
		}
	}
}

// A guest whose verifier refuses the program says so, with its last lines.
func TestProgramRefused(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	job := jobOf(t, sample.Object(), "pass", "udp4")
	job.Program.Object = refusedObject(t)
	job.Program.Name = "one"
	cells, err := Run(t.Context(), Plan{Kernels: []string{"debian:6.12-cloud"}, Program: job}, unthunk(t), nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	rows := Record(cells, nil, nil).Rows
	if len(rows) != 1 || !strings.Contains(rows[0].Refused, "the verifier refuses it") || rows[0].Program != nil {
		t.Errorf("%+v, %v", rows, cells[0].Err)
	}
}

// refusedObject reads behind a packet.
func refusedObject(t *testing.T) []byte {
	t.Helper()
	source := filepath.Join(t.TempDir(), "one.c")
	text := "#include \"bpf.h\"\nSEC(\"xdp\") int one(struct xdp_md *ctx) { return *(volatile char *)(long)ctx->data; }\n" +
		"char _license[] SEC(\"license\") = \"GPL\";\n"
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(testutil.Compile(t, source))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// said is what a guest counted of three packets.
func said() *Measurement {
	return &Measurement{Host: host.Fingerprint{IndirectThunk: "retpoline"}, Program: &progcount.Counted{
		Tag: "0123456789abcdef", JitedBytes: 100, Code: 30, Passes: 7, Instructions: []int64{100, 40, 61}, Wrong: map[int]int{},
		Verdicts: []uint32{3, 2, 2}, Lengths: []int{60, 60, 42}, Hashes: []uint64{1, 2, 3}, Warnings: []string{"maps are empty"},
	}}
}

// What a guest says that it counted of a program is checked, and makes rows of classes.
func TestReadProgram(t *testing.T) {
	job := jobOf(t, sample.Object(), "nat", "udp4,tcp4,arp")
	m, err := readProgram(guestJSON(t, said()), job, 1<<20, newImages().measured)
	if err != nil {
		t.Fatal(err)
	}
	cell := CellResult{Cell: Cell{Kernel: "k", NIC: Veth}, Measurement: m, job: job, Release: "6.12.1"}
	l := Record([]CellResult{cell}, nil, nil)
	for i, want := range []struct {
		name string
		n    float64
	}{{"k/prog=nat/all", 67}, {"k/prog=nat/verdict/pass", 50.5}, {"k/prog=nat/verdict/tx", 100}} {
		if i >= len(l.Rows) || l.Rows[i].Name != want.name || *l.Rows[i].Instructions != want.n {
			t.Fatalf("row %d of %+v, want %+v", i, l.Rows, want)
		}
	}
	if len(l.Warnings) != 1 || l.Warnings[0].Row != "k" || l.Rows[1].Program.Least != 40 || l.Rows[1].Program.Verdicts["pass"] != 2 {
		t.Errorf("%+v, %+v", l.Warnings, l.Rows[1].Program)
	}
	for want, change := range map[string]func(c *progcount.Counted){
		"2 of 3 packets were counted":       func(c *progcount.Counted) { c.Instructions = c.Instructions[:2] },
		"outcomes of 0, 3 and 3 packets":    func(c *progcount.Counted) { c.Verdicts = nil },
		"packet 2: impossible count -100":   func(c *progcount.Counted) { c.Instructions[1] = -100 },
		"packet 1: impossible count 200000": func(c *progcount.Counted) { c.Instructions[0] = 2000000000000 },
		"packet 3: impossible length -1":    func(c *progcount.Counted) { c.Lengths[2] = -1 },
		"packet 8 of 3 came out otherwise":  func(c *progcount.Counted) { c.Wrong[7] = 1 },
		"packet 0 of 3 varies":              func(c *progcount.Counted) { c.Varies = []int{-1} },
		"1 traced runs stand for 0 of 3":    func(c *progcount.Counted) { c.Traced = make([]progcount.TracedRun, 1) },
		"impossible traced run of packet 9": func(c *progcount.Counted) {
			c.Traced, c.Stands = []progcount.TracedRun{{Packet: 8}}, []int{0, 0, 0}
		},
		"packet 2 is like run 1 of 1": func(c *progcount.Counted) { c.Traced, c.Stands = make([]progcount.TracedRun, 1), []int{0, 1, 0} },
		"is like a run of other instruct": func(c *progcount.Counted) {
			c.Traced, c.Stands = []progcount.TracedRun{{Ns: 50}, {Ns: 151}}, []int{1, 0, 0}
		},
		"more words than a guest": func(c *progcount.Counted) { c.Warnings = make([]string, 1000) },
	} {
		m := said()
		change(m.Program)
		_, err := readProgram(guestJSON(t, m), job, 1<<20, newImages().measured)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := readProgram(guestJSON(t, said()), job, 100, newImages().measured); err == nil ||
		!strings.Contains(err.Error(), "counts of more than") {
		t.Errorf("a long one: %v", err)
	}
	if _, err := readProgram(guestJSON(t, measured("retpoline", 0, 1)), job, 1<<20, newImages().measured); err == nil {
		t.Error("bulks in place of a program: no error")
	}
	// Runs that differ make no number.
	m = said()
	m.Program.Wrong, m.Program.First = map[int]int{0: 1}, "packet 1: XDP_DROP, and XDP_TX when run once"
	if m, err = readProgram(guestJSON(t, m), job, 1<<20, newImages().measured); err != nil {
		t.Fatal(err)
	}
	cell.Measurement = m
	rows := cell.programRows()
	if !strings.Contains(rows[2].Refused, "1 of 7 runs differ") || rows[2].Instructions != nil || rows[1].Refused != "" {
		t.Errorf("%+v", rows)
	}
}

// A row's trace is that of the runs that its packets are like, less the null program's: it adds up to its instructions.
func TestProgramTrace(t *testing.T) {
	branch := record.LabTraceBranch{Function: "bpf_map_lookup_elem", Offset: 4, Target: "htab_map_lookup_elem"}
	line := record.LabTraceLine{Program: "bpf_prog_0123456789abcdef_nat", File: "lb.c", Line: 7}
	m := said()
	m.Program.Traced = []progcount.TracedRun{{Ns: 50}, {Ns: 150}, {Packet: 1, Slot: 1, Ns: 90}}
	m.Program.Stands = []int{1, 2, 0}
	null := programRun{own: map[string]int64{"replay": 44, "bpf_prog_a_unthunk_null": 6}, with: map[string]int64{"replay": 50}}
	m.traces = []programRun{null,
		{own: map[string]int64{"replay": 44, "bpf_prog_0123456789abcdef_nat": 86, "htab_map_lookup_elem": 20},
			with:     map[string]int64{"replay": 150, "bpf_prog_0123456789abcdef_nat": 106, "htab_map_lookup_elem": 20},
			branches: map[record.LabTraceBranch]int64{branch: 1}, lines: map[record.LabTraceLine]int64{line: 86}},
		{own: map[string]int64{"replay": 44, "bpf_prog_0123456789abcdef_nat": 46}, with: map[string]int64{"replay": 90}}}
	cell := CellResult{Cell: Cell{Kernel: "k"}, Measurement: m, job: jobOf(t, sample.Object(), "nat", "udp4,tcp4,arp")}
	rows := cell.programRows()
	if rows[0].Trace != nil || rows[1].Trace != nil || rows[0].CallsPerPacket != nil {
		t.Errorf("rows with a packet that is like none have traces: %+v", rows)
	}
	tx := rows[2]
	want := []record.LabTraceFunction{{Function: "bpf_prog_0123456789abcdef_nat", Stage: "program", Executed: 80, Inclusive: 100},
		{Function: "htab_map_lookup_elem", Stage: "program", Executed: 20, Inclusive: 20}}
	if diff := cmp.Diff(want, tx.Trace.Functions); diff != "" || tx.Trace.Executed != 100 || *tx.CallsPerPacket != 1 || len(tx.Sites) != 1 ||
		tx.Trace.Lines[0].Executed != 86 {
		t.Errorf("%+v, functions (-want +got):\n%s", tx.Trace, diff)
	}
	if err := tx.Check(); err != nil {
		t.Error(err)
	}
}

// FuzzProgramCounts reads what no guest counted: what is taken makes a record that can be loaded.
func FuzzProgramCounts(f *testing.F) {
	job := jobOf(f, sample.Object(), "nat", "udp4,tcp4,arp")
	f.Add(guestJSON(f, said()))
	refused := &Measurement{Program: &progcount.Counted{Refused: "load nat: \x1b[2J", Log: []string{"R1 invalid\a"}}}
	f.Add(guestJSON(f, refused))
	f.Add([]byte(`{"program":{"instructions":[1,2,3],"verdicts":[0,77,99],"lengths":[0,1,2],"hashes":[0,0,0],"passes":1,"wrong":{"0":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		cell := CellResult{Cell: Cell{Kernel: "k"}, job: job}
		budget := newImages().measured
		testutil.Allocates(t, uint64(1<<20+64*len(b)), func() { cell.Measurement, cell.Err = readProgram(b, job, 1<<20, budget) })
		l := Record([]CellResult{cell}, nil, nil)
		doc := record.New[record.LabRow]("lab", host.Fingerprint{})
		doc.Rows, doc.Warnings = l.Rows, l.Warnings
		l.Document = *doc
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := record.Parse(text); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	})
}

// What packets execute is summed by the runs that stand for them, not packet by packet: 16 384 packets of a program with 12 000 lines
// took 24 s after a signal.
func TestAddTrace(t *testing.T) {
	t.Parallel()
	const packets, lines = 16384, 12000
	run := func(of string, own int64, times int) programRun {
		r := programRun{own: map[string]int64{of: own, "common": 7}, with: map[string]int64{of: own + 7, "common": 7},
			branches: map[record.LabTraceBranch]int64{{Function: of}: 1}, lines: map[record.LabTraceLine]int64{}}
		for i := range times {
			r.lines[record.LabTraceLine{Program: "p", Line: i}] = 2
		}
		return r
	}
	c := CellResult{Measurement: &Measurement{Program: &progcount.Counted{Tag: "t"},
		traces: []programRun{run("bpf_prog_null", 3, 0), run("bpf_prog_t", 10, lines), run("bpf_prog_t", 30, 1)}}}
	m := progcount.Row{}
	for i := range packets {
		m.Of = append(m.Of, i)
		c.Program.Stands = append(c.Program.Stands, 1+i%4/3) // three in four are like the first
		c.Program.Instructions = append(c.Program.Instructions, []int64{7, 27}[i%4/3])
	}
	var row record.LabRow
	c.addTrace(&row, m)
	if row.Trace == nil || row.Trace.Executed != packets/4*(3*7+27) || len(row.Trace.Functions) != 1 || len(row.Trace.Lines) != lines {
		t.Fatalf("%+v", row.Trace)
	}
	if f := row.Trace.Functions[0]; f.Function != "bpf_prog_t" || f.Executed != packets/4*(3*(10-3)+30-3) {
		t.Errorf("%+v", f)
	}
	for _, l := range row.Trace.Lines {
		if want := map[bool]uint64{true: 2 * packets, false: 2 * packets / 4 * 3}[l.Line == 0]; l.Executed != want {
			t.Errorf("line %d: %d times, want %d", l.Line, l.Executed, want)
		}
	}
	c.Program.Stands[5] = 0 // no run stands for it
	row = record.LabRow{}
	if c.addTrace(&row, m); row.Trace != nil {
		t.Error("a packet that was not traced has a trace")
	}
}
