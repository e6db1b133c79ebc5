package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// logged is a log of addresses as QEMU writes it.
func logged(addrs ...uint64) string {
	var b strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&b, "Trace 0: 0x7f50a8000100 [00000000/%016x/18c0c2b0/ff022e01] \n", a)
	}
	return b.String()
}

// read is the window that [Read] finds in a log.
func read(t *testing.T, log string) (*Window, error) {
	t.Helper()
	p, err := Read(reader(log), 0xffffffff81000000, "END", NewBudget(64<<20))
	if err != nil {
		return nil, err
	}
	return unpacked(t, p, p.Lengths()[0]), nil
}

func reader(log string) *bufio.Reader { return bufio.NewReader(strings.NewReader(log)) }

// unpacked joins the windows of a length.
func unpacked(t *testing.T, p *Packed, length int) *Window {
	t.Helper()
	w, err := p.Unpack(t.Context(), length)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestRead(t *testing.T) {
	t.Parallel()
	const stamp, a, b = 0xffffffff81000000, 0xffffffff81000010, 0xffffffffc0000000
	log := logged(a, b, stamp, a, stamp, a, b, b, stamp) +
		// The block before each of these lines is logged again when it is executed.
		logged(a) + "Stopped execution of TB chain before 0x7f50a8000100 [ffffffff81000010] \n" +
		logged(a, b) + "cpu_io_recompile: rewound execution of TB to ffffffffc0000000\n" + logged(b, stamp, a) + "END\n"
	w, err := read(t, log)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Window{Addrs: []uint64{stamp, a, b}, Order: []uint32{0, 1, 2}}, w); diff != "" {
		t.Errorf("window (-want +got):\n%s", diff)
	}
	if got := w.Counts(); !slices.Equal(got, []uint64{1, 1, 1}) {
		t.Errorf("counts %d", got)
	}
}

// The first window is the one between the first two stamps, whatever its length.
func TestReadFirst(t *testing.T) {
	t.Parallel()
	const stamp, a, b = 0xffffffff81000000, 0xffffffff81000010, 0xffffffffc0000000
	for log, want := range map[string][]uint32{
		logged(a, stamp, a, b, a, stamp, a, stamp, b) + "END\n": {0, 1, 2, 1},
		logged(stamp, stamp) + "END\n":                          {0},
	} {
		p, err := ReadFirst(reader(log), stamp, "END", NewBudget(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		if w := unpacked(t, p, len(want)); !slices.Equal(w.Order, want) || len(p.Lengths()) != 1 {
			t.Errorf("%+v, want %v", w, want)
		}
	}
	if _, err := ReadFirst(reader(logged(stamp, a)+"END\n"), stamp, "END", NewBudget(1<<20)); !errors.Is(err, ErrNoWindow) {
		t.Errorf("one stamp: %v", err)
	}
}

// Windows that are wanted by their number are kept, those of a length are found, and they are joined as they come.
func TestReadSome(t *testing.T) {
	t.Parallel()
	const stamp, a, b, c = 0xffffffff81000000, 0xffffffff81000010, 0xffffffffc0000000, 0xffffffffc0000010
	log := logged(a, stamp, a, stamp, b, b, stamp, c, stamp, b, stamp, c) + "END\n"
	p, err := ReadSome(reader(log), stamp, "END", NewBudget(1<<20), func(i int) bool { return i != 0 })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Lengths(), []int{3, 2, 2}) {
		t.Errorf("windows of %d instructions", p.Lengths())
	}
	for length, want := range map[int]*Window{
		2: {Addrs: []uint64{stamp, c, b}, Order: []uint32{0, 1, 0, 2}},
		3: {Addrs: []uint64{stamp, b}, Order: []uint32{0, 1, 1}},
		4: {Order: []uint32{}},
	} {
		if diff := cmp.Diff(want, unpacked(t, p, length)); diff != "" {
			t.Errorf("windows of %d instructions (-want +got):\n%s", length, diff)
		}
	}
	_, err = ReadSome(reader(logged(stamp, a)), stamp, "END", NewBudget(1<<20), func(int) bool { return true })
	if err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Error(err)
	}
}

// Logs one after the other come from one pipe.
func TestReadTwice(t *testing.T) {
	t.Parallel()
	const stamp = 0xffffffff81000000
	r := reader(logged(stamp, stamp, stamp) + "END\n" + logged(stamp, stamp, 1, stamp) + "END\n")
	for _, want := range []int{1, 2} {
		p, err := Read(r, stamp, "END", NewBudget(1<<20))
		if err != nil || !slices.Equal(p.Lengths(), []int{want}) {
			t.Errorf("%v, %v, want %d instructions", p, err, want)
		}
	}
}

func TestReadBad(t *testing.T) {
	t.Parallel()
	for log, want := range map[string]string{
		"":                      "unexpected EOF",
		logged(1, 2):            "unexpected EOF",
		"END\n":                 ErrNoWindow.Error(),
		logged(1) + "END\n":     ErrNoWindow.Error(),
		"Trace 0: 0x7f\n":       "no address",
		"Trace 0: [1/2g/3/4]\n": "no address",
		"Trace 0: [1//3/4]\n":   "no address",
		"Trace 0: [12]\n":       "no address",
		"Trace 0: [" + strings.Repeat("0", 17) + "/" + strings.Repeat("0", 17) + "/1]\n": "no address",
		strings.Repeat("x", 5000):                                 "too long",
		strings.Repeat(logged(0xffffffff81000000), maxWindows+10): "more than 65536 windows",
	} {
		if _, err := read(t, log); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: %v, want %q", log, err, want)
		}
	}
	if _, err := read(t, "Linking TBs\nEND\n"); !errors.Is(err, ErrNoWindow) {
		t.Error(err)
	}
}

// FuzzRead reads what no QEMU logged: it takes no more memory than some copies of it, and
// what comes out is a window.
func FuzzRead(f *testing.F) {
	const stamp = 0xffffffff81000000
	f.Add([]byte(logged(1, stamp, 2, stamp, 3, stamp) + "END\n"))
	f.Add([]byte(logged(stamp, stamp) + "Stopped execution of TB chain\ncpu_io_recompile:\n" + logged(stamp, stamp) + "END\n"))
	f.Add([]byte("Trace [/0/\nEND\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		budget := NewBudget(1 << 20)
		testutil.Allocates(t, uint64(16<<20+64*len(log)), func() { // a compressor takes some MB
			p, err := Read(bufio.NewReader(bytes.NewReader(log)), stamp, "END", budget)
			if budget.Taken() != 0 {
				t.Errorf("%d bytes are not given back", budget.Taken())
			}
			if err != nil {
				if strings.Contains(err.Error(), "\n") {
					t.Error(err)
				}
				return
			}
			if w := unpacked(t, p, p.Lengths()[0]); len(w.Order) != p.Lengths()[0] || w.Addrs[w.Order[0]] != stamp {
				t.Errorf("a window of %d instructions, of windows of %d", len(w.Order), p.Lengths())
			}
		})
	})
}

// program is code by the functions that it is in.
type program struct {
	names map[uint64]string // of functions of 256 bytes
	code  snippets
}

type snippets map[uint64][]byte

func (s snippets) CodeAt(addr uint64) []byte {
	code := s[addr&^0xff]
	return code[min(addr&0xff, uint64(len(code))):]
}

func (p program) name(addr uint64) (string, uint64, bool) {
	name, ok := p.names[addr&^0xff]
	return name, addr &^ 0xff, ok
}

// The functions of the tests, with their code.
const (
	f, g, thunk, retThunk, safeRet, irq, pollF, sink = 0x1000, 0x2000, 0x3000, 0x4000, 0x4100, 0x5000, 0x6000, 0x7000
	// A retpoline that ends in a return thunk, and one that returns by itself.
	safeThunk, itsThunk, itsRet = 0x3100, 0x3200, 0x4200
)

func calling(from, to uint64, op byte) []byte {
	rel := uint32(int32(int64(to) - int64(from) - 5))
	return []byte{op, byte(rel), byte(rel >> 8), byte(rel >> 16), byte(rel >> 24)}
}

func testProgram() program {
	const call, jmp, ret = 0xe8, 0xe9, 0xc3
	return program{
		names: map[uint64]string{f: "f", g: "g", thunk: "__x86_indirect_thunk_rax", retThunk: "srso_return_thunk",
			safeRet: "srso_safe_ret", irq: "asm_irq", pollF: "poll", sink: "sink", f + 0x100: "f.cold",
			safeThunk: "__x86_indirect_thunk_rdx", itsThunk: "__x86_indirect_thunk_rbx", itsRet: "its_return_thunk"},
		code: snippets{
			// call g; call the thunk; call pollF; nop; ret; a jump to f.cold; call *%rax; call the other thunks
			f: slices.Concat(calling(f, g, call), calling(f+5, thunk, call), calling(f+10, pollF, call), []byte{0x90, ret},
				calling(f+17, f+0x100, jmp), []byte{0xff, 0xd0, 0x90},
				calling(f+25, safeThunk, call), calling(f+30, itsThunk, call), []byte{0x90}),
			safeThunk: slices.Concat([]byte{call, 1, 0, 0, 0, 0xcc, 0x48, 0x89, 0x14, 0x24}, calling(safeThunk+10, retThunk, jmp)),
			itsThunk:  slices.Concat([]byte{call, 1, 0, 0, 0, 0xcc, 0x48, 0x89, 0x1c, 0x24}, calling(itsThunk+10, itsRet, jmp)),
			itsRet:    {ret},
			// nop; ret; jmp to the return thunk; jmp f
			g:     slices.Concat([]byte{0x90, ret}, calling(g+2, retThunk, jmp), calling(g+7, f, jmp)),
			thunk: {call, 1, 0, 0, 0, 0xcc, 0x48, 0x89, 0x04, 0x24, ret},
			// call srso_safe_ret; lea 8(%rsp),%rsp; ret
			retThunk: calling(retThunk, safeRet, call),
			safeRet:  {0x48, 0x8d, 0x64, 0x24, 0x08, ret},
			irq:      {0x90, 0x48, 0xcf}, // nop; iretq
			// call g; call sink; ret
			pollF:     slices.Concat(calling(pollF, g, call), calling(pollF+5, sink, call), []byte{ret}),
			sink:      {ret},
			f + 0x100: calling(f+0x100, f+15, jmp),
		},
	}
}

func window(addrs ...uint64) *Window {
	w := &Window{}
	for _, a := range addrs {
		at := slices.Index(w.Addrs, a)
		if at < 0 {
			at = len(w.Addrs)
			w.Addrs = append(w.Addrs, a)
		}
		w.Order = append(w.Order, uint32(at))
	}
	return w
}

// chains are the stacks of a tree with their instructions: "f;g 2".
func chains(t *testing.T, tree *Tree) (out []string) {
	t.Helper()
	_, stacks, err := tree.Functions(t.Context(), func(_ []string, sink bool) string {
		if sink {
			return "sink"
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stacks {
		text := strings.Join(s.Frames, ";")
		if s.Stage != "" {
			text += " (" + s.Stage + ")"
		}
		out = append(out, fmt.Sprintf("%s %d", text, s.Own))
	}
	slices.Sort(out)
	return out
}

func cut(t *testing.T, w *Window) *Tree {
	t.Helper()
	p := testProgram()
	is := func(name string) func(string) bool { return func(function string) bool { return function == name } }
	tree, err := Cut(t.Context(), w, Options{Code: p.code, Name: p.name, Poll: is("poll"), Sink: is("sink")})
	if err != nil {
		t.Fatal(err)
	}
	sum := uint64(0)
	for _, n := range tree.Nodes {
		sum += n.Own
	}
	if sum != tree.Instructions || sum != uint64(len(w.Order)) {
		t.Errorf("%d instructions in nodes, %d in the tree, %d in the window", sum, tree.Instructions, len(w.Order))
	}
	return tree
}

func TestCut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		addrs []uint64
		want  []string
	}{
		"a call": {[]uint64{f, g, g + 1, f + 5}, []string{"f 2", "f;g 2"}},
		"a retpoline": {[]uint64{f + 5, thunk, thunk + 6, thunk + 10, g, g + 1, f + 10},
			[]string{"f 2", "f;__x86_indirect_thunk_rax 3", "f;g 2"}},
		"a safe return": {[]uint64{f, g + 2, retThunk, safeRet, safeRet + 5, f + 5},
			[]string{"f 2", "f;g 1", "f;g;srso_return_thunk 1", "f;g;srso_return_thunk;srso_safe_ret 2"}},
		"a retpoline that returns safely": {[]uint64{f + 25, safeThunk, safeThunk + 6, safeThunk + 10, retThunk, safeRet, safeRet + 5, g, g + 2,
			retThunk, safeRet, safeRet + 5, f + 30},
			[]string{"f 2", "f;__x86_indirect_thunk_rdx 3", "f;__x86_indirect_thunk_rdx;srso_return_thunk 1",
				"f;__x86_indirect_thunk_rdx;srso_return_thunk;srso_safe_ret 2", "f;g 2", "f;g;srso_return_thunk 1",
				"f;g;srso_return_thunk;srso_safe_ret 2"}},
		"a retpoline on a CPU with ITS": {[]uint64{f + 30, itsThunk, itsThunk + 6, itsThunk + 10, itsRet, g, g + 1, f + 35},
			[]string{"f 2", "f;__x86_indirect_thunk_rbx 3", "f;__x86_indirect_thunk_rbx;its_return_thunk 1", "f;g 2"}},
		"a tail call": {[]uint64{f + 10, pollF, g, g + 7, f + 15, f + 16, pollF + 5},
			[]string{"f 1", "f;poll 2", "f;poll;g 2", "f;poll;g;f 2"}},
		"a cold part":  {[]uint64{f + 17, f + 0x100, f + 15, f + 16}, []string{"f 3", "f;f.cold 1"}},
		"an interrupt": {[]uint64{f + 15, irq, irq + 1, f + 16}, []string{"f 2", "f;asm_irq 2"}},
		"begun inside": {[]uint64{g + 1, f + 5, thunk, thunk + 6, thunk + 10, g, g + 1, f + 10},
			[]string{"f 2", "f;__x86_indirect_thunk_rax 3", "f;g 3"}},
		"polls that are told apart": {[]uint64{f + 10, pollF + 10, f + 15, f + 10, pollF + 5, sink, pollF + 10},
			[]string{"f 3", "f;poll (sink) 2", "f;poll 1", "f;poll;sink (sink) 1"}},
		"code without a name": {[]uint64{f + 15, 0x9000, f + 16}, []string{"f 2", "f;(unnamed code) 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, chains(t, cut(t, window(test.addrs...)))); diff != "" {
				t.Errorf("chains of calls (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBranches(t *testing.T) {
	t.Parallel()
	tree := cut(t, window(f+5, thunk, thunk+6, thunk+10, g, g+1, f+10, pollF, pollF+10, f+22, sink, f+25, safeThunk, safeThunk+6,
		safeThunk+10, retThunk, safeRet, safeRet+5, g, g+1, f+30, itsThunk, itsThunk+6, itsThunk+10, itsRet, pollF, pollF+10, f+35, f+15))
	want := []Branch{
		{Addr: f + 5, Target: g, Function: "f", Offset: 5, Entered: "g", Executed: 1},
		{Addr: f + 22, Target: sink, Function: "f", Offset: 22, Entered: "sink", Executed: 1},
		{Addr: f + 25, Target: g, Function: "f", Offset: 25, Entered: "g", Executed: 1},
		{Addr: f + 30, Target: pollF, Function: "f", Offset: 30, Entered: "poll", Executed: 1},
	}
	if diff := cmp.Diff(want, tree.Branches); diff != "" {
		t.Errorf("branches (-want +got):\n%s", diff)
	}
}

// With counts a recursion once.
func TestFunctions(t *testing.T) {
	t.Parallel()
	tree := cut(t, window(f, g, g+7, f, g, g+1, f+5))
	functions, _, err := tree.Functions(t.Context(), func([]string, bool) string { return "s" })
	if err != nil {
		t.Fatal(err)
	}
	want := []Function{{Name: "g", Stage: "s", Own: 4, With: 6}, {Name: "f", Stage: "s", Own: 3, With: 7}}
	if diff := cmp.Diff(want, functions); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
}

// A chain is entered at the first instruction of its innermost function alone: not where a window begins inside, nor by a return.
func TestEntered(t *testing.T) {
	t.Parallel()
	tree := cut(t, window(g+1, f+5, thunk, thunk+6, thunk+10, g, g+1, f+10, pollF, g, g+1, pollF+5))
	_, stacks, err := tree.Functions(t.Context(), func([]string, bool) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]uint64)
	for _, s := range stacks {
		got[strings.Join(s.Frames, ";")] = s.Entered
	}
	want := map[string]uint64{"f": 0, "f;g": 1, "f;__x86_indirect_thunk_rax": 1, "f;poll": 1, "f;poll;g": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entered (-want +got):\n%s", diff)
	}
}

func TestCutLimits(t *testing.T) {
	t.Parallel()
	// A call that never returns, again and again.
	var addrs []uint64
	for range maxDepth + 1 {
		addrs = append(addrs, f, g, g+7)
	}
	// A call that enters another place each time.
	many := &Window{Addrs: []uint64{f + 22, f + 24}}
	for i := range uint32(maxBranches + 1) {
		many.Addrs = append(many.Addrs, 0x9000+uint64(i))
		many.Order = append(many.Order, 0, 2+i, 1)
	}
	p := testProgram()
	for want, w := range map[string]*Window{"deep": window(addrs...), "more than 16384 indirect branches": many} {
		_, err := Cut(t.Context(), w, Options{Code: p.code, Name: p.name})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// FuzzCut walks any instructions in any order: none is lost, and it ends.
func FuzzCut(f *testing.F) {
	f.Add([]byte{0xe8, 1, 0, 0, 0, 0xcc, 0x48, 0x89, 0x04, 0x24, 0xc3, 0x90, 0xff, 0xd0}, []byte{0, 6, 10, 11, 12, 14})
	f.Add([]byte{0xe8, 0xfb, 0xff, 0xff, 0xff, 0xc3}, []byte{0, 0, 0, 5, 5, 5, 5})
	f.Fuzz(func(t *testing.T, text, order []byte) {
		if len(text) == 0 || len(order) == 0 || len(order) > 4096 {
			return
		}
		var addrs []uint64
		for _, at := range order {
			addrs = append(addrs, uint64(at)%uint64(len(text)))
		}
		names := []string{"f", "__x86_indirect_thunk_rax", "poll", "sink", "srso_safe_ret"}
		tree, err := Cut(t.Context(), window(addrs...), Options{
			Code: snippets{0: text},
			Name: func(addr uint64) (string, uint64, bool) { return names[addr/4%5], addr &^ 3, addr%7 != 0 },
			Poll: func(name string) bool { return name == "poll" }, Sink: func(name string) bool { return name == "sink" },
		})
		if err != nil {
			return
		}
		stageOf := func(frames []string, sink bool) string { return fmt.Sprint(len(frames), sink) }
		functions, stacks, err := tree.Functions(t.Context(), stageOf)
		if err != nil {
			t.Fatal(err)
		}
		own, chained := uint64(0), uint64(0)
		for _, f := range functions {
			own += f.Own
			if f.With < f.Own || f.With > tree.Instructions {
				t.Errorf("%+v of %d instructions", f, tree.Instructions)
			}
		}
		for _, s := range stacks {
			chained += s.Own
		}
		if own != tree.Instructions || chained != own || own != uint64(len(order)) {
			t.Errorf("%d of functions, %d of chains, %d of %d instructions", own, chained, tree.Instructions, len(order))
		}
	})
}
