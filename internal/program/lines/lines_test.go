package lines_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/program/lines"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func compile(t testing.TB, flags ...string) string {
	t.Helper()
	return testutil.Compile(t, "testdata/count.bpf.c", append([]string{"-g0"}, flags...)...)
}

// open loads a program with its maps, and counts when counters is not nil.
func open(t testing.TB, text string, counters **lines.Counters) *program.Opened {
	t.Helper()
	target, err := program.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var o program.Options
	if counters != nil {
		o.Change = func(spec *ebpf.CollectionSpec) (changed *ebpf.CollectionSpec, err error) {
			changed, *counters, err = lines.Instrument(spec)
			return changed, err
		}
	}
	opened, err := target.Open(t.Context(), o)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	return opened
}

func run(t testing.TB, p *ebpf.Program, data []byte) uint32 {
	t.Helper()
	v, err := p.Run(&ebpf.RunOptions{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Each line has the count that the C says, and the verdicts are those of the program without
// counters.
func TestCounts(t *testing.T) {
	testutil.Root(t)
	path := compile(t, "-g")
	var counters *lines.Counters
	plain, counted := open(t, path+":counted", nil), open(t, path+":counted", &counters)
	want := map[string]uint64{}
	r := rand.New(rand.NewPCG(1, 2))
	slots := [10]uint64{}
	for range 100 {
		data := make([]byte, 64)
		data[0] = byte(r.IntN(3))
		for i := range slots {
			slots[i]++
			want["/* ten times */"]++
			if (slots[i]+uint64(i))&1 == 1 {
				want["/* odd */"]++
			} else {
				want["/* even */"]++
			}
		}
		want["/* in a callback */"] += 7
		if data[0] == 1 {
			want["/* ones */"]++
		} else {
			want["/* others */"]++
		}
		if got, want := run(t, counted.Program, data), run(t, plain.Program, data); got != want {
			t.Fatalf("verdict %d with counters, %d without", got, want)
		}
	}
	all, err := counters.Read(counted.Maps[lines.MapName])
	if err != nil {
		t.Fatal(err)
	}
	for text, n := range want {
		found := false
		for _, c := range all {
			if strings.Contains(c.Text, text) {
				found = true
				if c.Runs != n {
					t.Errorf("%s:%d %s ran %d times, want %d", c.File, c.Line, c.Text, c.Runs, n)
				}
			}
		}
		// The compiler may make one line's code another's.
		if !found && text != "/* ones */" && text != "/* others */" && text != "/* odd */" && text != "/* even */" {
			t.Errorf("no line has %s", text)
		}
	}
	for _, c := range all {
		t.Logf("%s %s:%d %8d  %s", c.Function, filepath.Base(c.File), c.Line, c.Runs, c.Text)
	}
}

// A program that needs each register and more keeps its verdicts.
func TestPressed(t *testing.T) {
	testutil.Root(t)
	path := compile(t, "-g")
	var counters *lines.Counters
	plain, counted := open(t, path+":pressed", nil), open(t, path+":pressed", &counters)
	r := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		data := make([]byte, 64)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		if got, want := run(t, counted.Program, data), run(t, plain.Program, data); got != want {
			t.Fatalf("verdict %d with counters, %d without: %x", got, want, data)
		}
	}
}

func TestInstrumentRefuses(t *testing.T) {
	t.Parallel()
	spec := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}, Programs: map[string]*ebpf.ProgramSpec{
		"p": {Type: ebpf.XDP, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}},
	}}
	if _, _, err := lines.Instrument(spec); err == nil || !strings.Contains(err.Error(), "clang -g") {
		t.Errorf("without lines: %v", err)
	}
	spec.Programs["p"].Instructions = asm.Instructions{{OpCode: asm.Ja.Op(asm.ImmSource), Offset: 5}, asm.Return()}
	if _, _, err := lines.Instrument(spec); err == nil || !strings.Contains(err.Error(), "jumps out of its function") {
		t.Errorf("a wild jump: %v", err)
	}
	spec.Maps[lines.MapName] = &ebpf.MapSpec{}
	if _, _, err := lines.Instrument(spec); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("twice: %v", err)
	}
}

// sourceLines are so many lines of one file, which have the same text.
func sourceLines(t *testing.T, n int, text string) btf.LineOffsets {
	t.Helper()
	names := "\x00a.c\x00" + text + "\x00"
	raw := binary.LittleEndian.AppendUint16(nil, 0xeb9f)
	for _, v := range []uint32{1, 24, 0, 0, 0, uint32(len(names))} { // version 1; no types
		raw = binary.LittleEndian.AppendUint32(raw, v)
	}
	raw = slices.Delete(raw, 4, 6) // version and flags are a byte each
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(append(raw, names...)))
	if err != nil {
		t.Fatal(err)
	}
	var infos []byte
	for i := range n {
		for _, v := range []int{8 * i, 1, 5, (i + 1) << 10} {
			infos = binary.LittleEndian.AppendUint32(infos, uint32(v))
		}
	}
	offsets, err := btf.LoadLineInfos(bytes.NewReader(infos), binary.LittleEndian, uint32(n), spec)
	if err != nil {
		t.Fatal(err)
	}
	return offsets
}

// Each instruction of a block may be of a line of its own. Whether a line has its counter was looked for among all lines
// of the block: minutes of a million.
func TestLongBlock(t *testing.T) {
	for n, want := range map[int]string{200_000: "<nil>", 300_000: "its blocks have more than 262144 lines"} {
		var ins asm.Instructions
		for _, l := range sourceLines(t, n, "x++;") {
			ins = append(ins, asm.Mov.Imm(asm.R0, 2).WithSource(l.Line))
		}
		ins[0] = ins[0].WithSymbol("main")
		spec := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}, Programs: map[string]*ebpf.ProgramSpec{
			"main": {Name: "main", Type: ebpf.XDP, Instructions: append(ins, asm.Return())},
		}}
		if _, _, err := lines.Instrument(spec); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%d lines: %v", n, err)
		}
	}
}

// A text of megabytes may be that of each instruction: no copy is made of it, not all of it is looked at, and what is kept is short.
func TestLongText(t *testing.T) {
	var ins asm.Instructions
	for _, l := range sourceLines(t, 100, "  é"+strings.Repeat("x", 1<<20)) {
		ins = append(ins, asm.Mov.Imm(asm.R0, 2).WithSource(l.Line))
	}
	ins[0] = ins[0].WithSymbol("main")
	spec := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}, Programs: map[string]*ebpf.ProgramSpec{
		"main": {Name: "main", Type: ebpf.XDP, Instructions: append(ins, asm.Return())},
	}}
	var counters *lines.Counters
	testutil.Allocates(t, 1<<20, func() {
		var err error
		if spec, counters, err = lines.Instrument(spec); err != nil {
			t.Fatal(err)
		}
	})
	testutil.Root(t)
	m, err := ebpf.NewMap(spec.Maps[lines.MapName])
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	testutil.Allocates(t, 1<<20, func() {
		counts, err := counters.Read(m)
		if err != nil || len(counts) != 100 || counts[0].Text != "é"+strings.Repeat("x", 298)+"…" {
			t.Errorf("%d lines, %.60v, %v", len(counts), counts, err)
		}
	})
}

// Programs that nobody here wrote load with counters in them as they do without: those of
// internal/program, those that packages have put on this machine, and those of UNTHUNK_OBJECTS.
func TestRealObjects(t *testing.T) {
	testutil.Root(t)
	var paths []string
	for _, pattern := range []string{
		"../testdata/real/*.o", "../../bpf/sample/*.o", "/usr/lib/*/bpf/*.o", "/usr/lib/suricata/ebpf/*.bpf",
		os.Getenv("UNTHUNK_OBJECTS") + "/*.o",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	counted := 0
	for _, path := range paths {
		spec, err := program.ReadObject(t.Context(), path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for name, p := range spec.Programs {
			if p.Type != ebpf.XDP {
				continue
			}
			target, err := program.Parse(path + ":" + name)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := target.Open(t.Context(), program.Options{})
			if err != nil {
				t.Logf("%s:%s: %v", path, name, err)
				continue
			}
			plain.Close()
			o, err := target.Open(t.Context(), program.Options{Change: func(spec *ebpf.CollectionSpec) (*ebpf.CollectionSpec, error) {
				changed, _, err := lines.Instrument(spec)
				return changed, err
			}})
			switch {
			case err == nil:
				counted++
				o.Close()
			case !strings.Contains(err.Error(), "clang -g"):
				t.Errorf("%s:%s: %v", path, name, err)
			}
		}
	}
	t.Logf("%d programs count their lines", counted)
	if counted == 0 {
		t.Error("no program counts its lines")
	}
}

// Objects of anybody get counters or are refused, in little memory.
func FuzzInstrument(f *testing.F) {
	for _, name := range []string{"count/count_bpfel.o", "sample/sample_bpfel.o"} {
		b, err := os.ReadFile(filepath.Join("../../bpf", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		testutil.Allocates(t, uint64(128<<20+512*len(b)), func() {
			spec, err := program.ParseObject(b)
			if err != nil {
				return
			}
			changed, _, err := lines.Instrument(spec)
			if err != nil {
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("more than a line: %v", err)
				}
				return
			}
			for name := range changed.Programs {
				if len(changed.Programs[name].Instructions) <= len(spec.Programs[name].Instructions) {
					t.Errorf("%s has no counter", name)
				}
			}
		})
	})
}
