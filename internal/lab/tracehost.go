package lab

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/guest/gdb"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/profile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/trace"
	"github.com/unthunk/unthunk/internal/unpack"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// tracer traces the slots that a guest marks, from outside.
type tracer struct {
	symbols           *ksym.Table // of the kernel's image
	begin, end, stamp uint64
	annotate          string // a function whose instructions are wanted; "" for none
	vmlinux           string // the file that may have the kernel's source lines; "" where none is at hand
	images            *images
	listings          []listing // of the rows of a guest
	slots             []tracedSlot
	kept, mostKept    int   // bytes of all windows that are kept, and how many may be
	err               error // why nothing is traced any more, other than the end of the guest
	first             bool  // the first window of a slot is wanted, and not the shortest
	wires             bool  // those in the middle of polls are wanted
}

// tracedSlot is the shortest window of a slot or, on wires, those in the middle of polls.
type tracedSlot struct {
	*trace.Window               // nil when it is packed
	packed        *trace.Packed // or nil
	middle        *trace.Windows
	code          snippets
	err           error // why there is no window
}

// window is the window of a slot.
func (s *tracedSlot) window() (*trace.Window, error) {
	if s.err != nil || s.packed == nil {
		return s.Window, s.err
	}
	return s.packed.Unpack()
}

// pack makes the window small. It returns what the slot takes, in bytes.
func (s *tracedSlot) pack() (size int, err error) {
	if s.middle != nil {
		return 8 * len(s.Order), nil // in the one window that joins them, and by themselves
	}
	if s.packed, err = s.Window.Pack(); err != nil {
		return 0, err
	}
	s.Window = nil
	return s.packed.Size(), nil
}

// Limits on what a guest may have traced.
const (
	// maxSlots are those of a guest: a bulk has one, a few where ticks are in the way.
	maxSlots = 256
	// maxKept is what all windows of the guests that run at the same time may take, in bytes; leastKept is what those of
	// one may.
	maxKept, leastKept = 256 << 20, 32 << 20
)

// images are the symbols of kernels, each read once a run, and the source lines that were asked for, by file.
type images struct {
	mu     sync.Mutex
	tables map[string]*ksym.Table
	places map[string]map[uint64]trace.Place
}

// symbols are those of the kernel in a file.
func (i *images) symbols(ctx context.Context, path string) (*ksym.Table, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if t := i.tables[path]; t != nil {
		return t, nil
	}
	release, err := unpack.Reserve(ctx, path)
	if err != nil {
		return nil, err
	}
	defer release()
	img, err := ktext.OpenFile(ctx, path)
	if err != nil {
		return nil, err
	}
	if i.tables == nil {
		i.tables = make(map[string]*ksym.Table)
	}
	i.tables[path] = img.Table
	return img.Table, nil
}

// newTracer reads the symbols of a kernel that is booted without KASLR.
func newTracer(ctx context.Context, k guest.Kernel, all *images, annotate string) (*tracer, error) {
	symbols, err := all.symbols(ctx, k.Image)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	t := &tracer{symbols: symbols, annotate: annotate, vmlinux: k.Vmlinux, images: all, mostKept: max(maxKept/runtime.NumCPU(), leastKept)}
	for name, at := range map[string]*uint64{beginMark: &t.begin, endMark: &t.end, stampMark: &t.stamp} {
		s, ok := t.symbols.Lookup(name)
		if !ok {
			return nil, fmt.Errorf("trace: the kernel has no function %s", name)
		}
		*at = s.Addr
	}
	return t, nil
}

// sources are the source lines of addresses in a vmlinux, as far as they are known. One vmlinux is read at a time.
func (i *images) sources(ctx context.Context, vmlinux string, addrs []uint64) (map[uint64]trace.Place, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	asked := i.places[vmlinux] // with no file where none is known
	if slices.ContainsFunc(addrs, func(addr uint64) bool { _, ok := asked[addr]; return !ok }) {
		f, _, err := unpack.Open(vmlinux, maxVmlinux)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		found, err := trace.Places(ctx, f, addrs)
		if err != nil {
			return nil, err
		}
		if i.places == nil {
			i.places = make(map[string]map[uint64]trace.Place)
		}
		if asked == nil {
			asked = make(map[uint64]trace.Place)
			i.places[vmlinux] = asked
		}
		for _, addr := range addrs {
			asked[addr] = found[addr]
		}
	}
	places := make(map[uint64]trace.Place)
	for _, addr := range addrs {
		places[addr] = asked[addr]
	}
	return places, nil
}

// maxVmlinux is the largest vmlinux that source lines are read from, in bytes: Debian's has
// 500 MB.
const maxVmlinux = 2 << 30

// debug is what [guest.Machine.Debug] does: it lets the guest run from mark to mark, and has
// QEMU log between them. At each stop the guest's clock may go on to its next timer. So there
// is none within a slot.
func (t *tracer) debug(d *guest.Debugger) error {
	err := t.follow(d)
	if !errors.Is(err, gdb.ErrEnded) {
		t.err = err
	}
	return err
}

func (t *tracer) follow(d *guest.Debugger) error {
	if err := d.Break(t.begin); err != nil {
		return err
	}
	executed := bufio.NewReader(d.Executed)
	for {
		if err := d.Continue(); err != nil {
			return err
		}
		if len(t.slots) == maxSlots {
			return fmt.Errorf("trace: the guest asks for more than %d traces", maxSlots)
		}
		if err := move(d, t.begin, t.end); err != nil {
			return err
		}
		if err := d.Log(); err != nil {
			return err
		}
		slot, err := t.slot(d, executed)
		if err != nil {
			return err
		}
		t.slots = append(t.slots, slot)
		if err := move(d, t.end, t.begin); err != nil {
			return err
		}
	}
}

// move takes the breakpoint that the guest stands at away, so that it goes on, and sets
// another.
func move(d *guest.Debugger, from, to uint64) error {
	if err := d.Unbreak(from); err != nil {
		return err
	}
	return d.Break(to)
}

// slot reads what is executed up to the next mark. QEMU waits for whoever reads its log.
func (t *tracer) slot(d *guest.Debugger, executed *bufio.Reader) (tracedSlot, error) {
	done := make(chan tracedSlot, 1)
	go func() {
		slot := t.read(executed)
		if slot.err != nil && !errors.Is(slot.err, trace.ErrNoWindow) {
			d.Stop() // nobody reads any more
		}
		done <- slot
	}()
	err := d.Continue()
	if err == nil {
		err = d.Unlog()
	}
	if err != nil {
		d.Stop() // so that the log ends
	}
	r := <-done
	switch {
	case errors.Is(r.err, trace.ErrNoWindow) && err == nil:
		return r, nil
	case err != nil && (r.err == nil || errors.Is(r.err, io.ErrUnexpectedEOF) || errors.Is(r.err, os.ErrClosed)):
		return tracedSlot{}, err
	case r.err != nil: // which ended the connection
		return tracedSlot{}, r.err
	}
	if r.code, err = readSnippets(d.Client, r.Addrs); err != nil {
		return tracedSlot{}, err
	}
	return t.keep(r), nil
}

// keep makes a slot small, or leaves its window out where the others have taken all that there may be.
func (t *tracer) keep(s tracedSlot) tracedSlot {
	size, err := s.pack()
	if err == nil && t.kept+size > t.mostKept {
		err = fmt.Errorf("trace: windows of more than %d bytes in all", t.mostKept)
	}
	if err != nil {
		return tracedSlot{err: err}
	}
	t.kept += size
	return s
}

// read reads the windows of a slot that are wanted. On wires the window that is kept is all of them.
func (t *tracer) read(executed *bufio.Reader) (s tracedSlot) {
	switch {
	case t.wires:
		if s.middle, s.err = trace.ReadSome(executed, t.stamp, guest.LogEnd, inMiddle); s.err == nil {
			s.Window = s.middle.Joined()
		}
	case t.first:
		s.Window, _, s.err = trace.ReadFirst(executed, t.stamp, guest.LogEnd)
	default:
		s.Window, _, s.err = trace.Read(executed, t.stamp, guest.LogEnd)
	}
	return s
}

// snippets are pieces of a guest's code, by address.
type snippets []ktext.Bytes

// ReadAddr implements [ktext.Source].
func (s snippets) ReadAddr(p []byte, addr uint64) error {
	i := sort.Search(len(s), func(i int) bool { return s[i].Addr > addr })
	if i == 0 {
		return fmt.Errorf("read code at %#x: it was not executed", addr)
	}
	return s[i-1].ReadAddr(p, addr)
}

// readSnippets reads the instructions at addresses from a guest that stands still. What is
// not mapped any more is left out.
func readSnippets(c *gdb.Client, addrs []uint64) (all snippets, err error) {
	const gap, page = 256, 4096
	addrs = slices.Sorted(slices.Values(addrs))
	for len(addrs) > 0 {
		n := 1
		for n < len(addrs) && addrs[n]-addrs[n-1] < gap && addrs[n]-addrs[0] < page {
			n++
		}
		first, last := addrs[0], addrs[n-1]
		addrs = addrs[n:]
		// The page behind the last instruction may not be mapped.
		for _, end := range []uint64{last + trace.Longest, min(last+trace.Longest, last|(page-1)+1)} {
			if end <= first { // the last byte of all
				continue
			}
			code := make([]byte, end-first)
			err := c.Memory(code, first)
			if errors.Is(err, gdb.ErrUnmapped) {
				continue
			}
			if err != nil {
				return nil, err
			}
			all = append(all, ktext.Bytes{Addr: first, Code: code})
			break
		}
	}
	return all, nil
}

// finish makes the traces of what a guest measured. A row whose trace has another number of
// instructions than were counted is refused; what else is wrong with a trace is said of the
// row, whose counts stay.
func (t *tracer) finish(ctx context.Context, m *Measurement) {
	for i := range m.Bulks {
		b := &m.Bulks[i]
		if b.Refused != "" {
			continue
		}
		err := t.finishRow(b, m.Codes)
		if errors.Is(err, errUnlike) {
			*b = BulkCount{Scenario: b.Scenario, Bulk: b.Bulk, Refused: printable(err.Error(), maxWhy), Failed: true}
		} else if err != nil {
			b.Trace = nil
			b.doubt(err)
		}
	}
	if err := t.addSources(ctx); err != nil {
		for _, l := range t.listings {
			l.row.Doubts = append(l.row.Doubts, printable("no lines of the kernel's source: "+err.Error(), maxWhy))
		}
	}
}

// errUnlike is of a trace that is not what was counted.
var errUnlike = errors.New("the trace is not what was counted")

// doubt keeps what is to be said of a row that has no trace.
func (b *BulkCount) doubt(err error) {
	b.Doubts = append(b.Doubts, printable("no trace: "+err.Error(), maxWhy))
}

func (t *tracer) finishRow(b *BulkCount, codes []GuestCode) (err error) {
	if b.Traced == nil {
		return errors.New(cmp.Or(printable(b.Untraced, maxWords), "the guest marked no slot"))
	}
	if n := b.Traced.Slot; n < 0 || n >= len(t.slots) || b.Traced.Code < 1 || b.Traced.Code > len(codes) {
		return fmt.Errorf("the guest says that it marked slot %d of %d", n, len(t.slots))
	}
	if b.Trace, err = t.trace(b, t.slots[b.Traced.Slot], &codes[b.Traced.Code-1]); err != nil {
		return err
	}
	if err := b.agree(); err != nil {
		return err
	}
	if t.annotate != "" && len(b.Trace.Annotated) == 0 {
		b.Doubts = append(b.Doubts, printable(t.annotate+" is not executed, or is a part of its caller: there is nothing to list", maxWhy))
	}
	calls := 0.0
	return (&record.LabRow{Instructions: b.Instructions, CallsPerPacket: &calls, Trace: b.Trace}).Check()
}

// trace is that of one slot.
func (t *tracer) trace(b *BulkCount, slot tracedSlot, code *GuestCode) (*record.LabTrace, error) {
	w, usual, err := slot.counted(b)
	if err != nil {
		return nil, err
	}
	name, err := t.namer(code)
	if err != nil {
		return nil, err
	}
	opts := trace.Options{Code: slot.code, Name: name, Sink: isSink,
		Poll: func(function string) bool { return functions.Has(function, functions.Poll) }}
	tree, err := trace.Cut(w, opts)
	if err != nil {
		return nil, err
	}
	out := &record.LabTrace{Packets: b.Window, Executed: tree.Instructions}
	if usual != nil {
		out.Packets, out.Windows, out.Among = b.Window*usual.Len(), usual.Len(), slot.middle.Len()
	}
	stages := stageOf
	if usual != nil {
		stages = stageInPoll
	}
	fs, stacks := tree.Functions(stages)
	for _, f := range fs {
		out.Functions = append(out.Functions, record.LabTraceFunction{Function: f.Name, Stage: f.Stage, Executed: f.Own, Inclusive: f.With})
	}
	for _, s := range stacks {
		out.Stacks = append(out.Stacks, record.LabTraceStack{Frames: s.Frames, Stage: s.Stage, Executed: s.Own})
	}
	for _, br := range tree.Branches {
		out.Branches = append(out.Branches, record.LabTraceBranch{
			Function: br.Function, Offset: br.Offset, Jump: br.Jump, Target: br.Entered, Times: br.Executed})
	}
	out.Lines = code.lines(w, name)
	if t.annotate != "" {
		l := listing{row: b, code: code}
		out.Annotated, l.addrs = annotated(w, slot.code, name, t.annotate)
		l.instructions = out.Annotated
		t.listings = append(t.listings, l)
	}
	if usual != nil {
		err = spreads(out, usual, opts)
	}
	return out, err
}

// counted is the window of a slot that has as many instructions as were counted. On wires it is all of them, one behind
// the other, that have as many, and usual are those.
func (s *tracedSlot) counted(b *BulkCount) (w *trace.Window, usual *trace.Windows, err error) {
	if w, err = s.window(); err != nil {
		return nil, nil, err
	}
	counted := math.Round(*b.Instructions * float64(b.Window))
	if s.middle == nil {
		if counted != float64(len(w.Order)) {
			return nil, nil, fmt.Errorf("%w: %d instructions were executed, but the guest's clock counts %.0f", errUnlike, len(w.Order), counted)
		}
		return w, nil, nil
	}
	usual = s.middle.OfLength(int(min(counted, math.MaxInt32)))
	if b.Traced.Usual < 1 || usual.Len() != b.Traced.Usual || s.middle.Len() != b.Traced.Middle {
		return nil, nil, fmt.Errorf("%w: %d of %d windows have %.0f instructions, but by the guest's clock %d of %d", errUnlike,
			usual.Len(), s.middle.Len(), counted, b.Traced.Usual, b.Traced.Middle)
	}
	return usual.Joined(), usual, nil
}

// spreads sets how far functions are from what the trace says of them in any of its windows.
func spreads(t *record.LabTrace, windows *trace.Windows, opts trace.Options) error {
	type key struct{ name, stage string }
	places := make(map[key]*record.LabTraceFunction)
	for i := range t.Functions {
		places[key{t.Functions[i].Function, t.Functions[i].Stage}] = &t.Functions[i]
	}
	packets := float64(t.Packets) / float64(t.Windows)
	for i := range windows.Len() {
		tree, err := trace.Cut(windows.Each(i), opts)
		if err != nil {
			return err
		}
		own := make(map[key]uint64)
		fs, _ := tree.Functions(stageInPoll)
		for _, f := range fs {
			own[key{f.Name, f.Stage}] = f.Own
		}
		for k, f := range places {
			f.Spread = max(f.Spread, math.Abs(float64(own[k])/packets-t.PerPacket(f.Executed)))
		}
	}
	return nil
}

// stageOf is the stage of a chain of calls: that of a thunk is its caller's.
func stageOf(calls []string, sink bool) string {
	for len(calls) > 1 && (trace.IndirectThunk(calls[0]) || branch.ReturnThunk(calls[0])) {
		calls = calls[1:]
	}
	return string(profile.StageOfCalls(calls, sink))
}

// stageInPoll is the stage of a chain of calls of a window in the middle of a poll, which it does not return from.
func stageInPoll(calls []string, sink bool) string {
	return stageOf(append(calls, functions.Names(functions.Poll)[0]), sink)
}

// isSink tells the programs at the end of a chain.
func isSink(function string) bool {
	name := functions.Program(function)
	return name == "sink" || name == "sink_cpumap"
}

// namer names addresses by what the guest says of its modules and programs, and by the
// kernel's image.
func (t *tracer) namer(code *GuestCode) (trace.Namer, error) {
	var symbols []ksym.Symbol
	for _, s := range code.Symbols {
		symbols = append(symbols, ksym.Symbol{Addr: s.Addr, Size: s.Size, Type: 't', Name: s.Name})
	}
	loaded, err := ksym.New(symbols)
	if err != nil {
		return nil, err
	}
	return func(addr uint64) (string, uint64, bool) {
		if s, off, ok := loaded.Find(addr); ok {
			return s.Name, addr - off, true
		}
		s, off, ok := t.symbols.Find(addr)
		return s.Name, addr - off, ok
	}, nil
}

// lines are the instructions of BPF programs by source line, in the order of the source.
func (code *GuestCode) lines(w *trace.Window, name trace.Namer) (out []record.LabTraceLine) {
	type key struct {
		program, file string
		line          int
	}
	sums := make(map[key]*record.LabTraceLine)
	for i, n := range w.Counts() {
		addr := w.Addrs[i]
		l := code.line(addr)
		if l == nil {
			continue
		}
		program, _, _ := name(addr)
		k := key{program, l.File, l.Line}
		if sums[k] == nil {
			sums[k] = &record.LabTraceLine{Program: program, File: l.File, Line: l.Line, Text: l.Text}
		}
		sums[k].Executed += n
	}
	for _, l := range sums {
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b record.LabTraceLine) int {
		return strings.Compare(fmt.Sprintf("%s %s %08d", a.Program, a.File, a.Line), fmt.Sprintf("%s %s %08d", b.Program, b.File, b.Line))
	})
	return out
}

// agree holds the branches of the trace against those that kprobes count, at each place. On wires kprobes count whole
// bursts and the trace the middle of polls. Transmission is in each window, and all of what is in a poll may be or not, as
// the refill of a ring is at its end; of both the two may differ by one a window.
func (b *BulkCount) agree() error {
	traced := make(map[sitePlace]float64)
	for _, br := range b.Trace.Branches {
		traced[sitePlace{br.Function, br.Offset, br.Target}] += b.Trace.PerPacket(br.Times)
		traced[sitePlace{br.Function, br.Offset, ""}] += b.Trace.PerPacket(br.Times) // of one whose target no probe can tell
	}
	least, most := make(map[sitePlace]float64), make(map[sitePlace]float64)
	for i := range b.Sites {
		s := &b.Sites[i]
		at := sitePlace{s.Function, s.Offset, s.Target}
		if inWindow(s, b.Window) {
			most[at] += s.PerPacket
			if s.Part != InPoll {
				least[at] += s.PerPacket
			}
		}
	}
	tolerance := 0.0
	if b.Trace.Windows > 0 {
		tolerance = 1 / float64(b.Window)
	}
	for i := range b.Sites { // in their order, so that the same one is named
		s := &b.Sites[i]
		at := sitePlace{s.Function, s.Offset, s.Target}
		if n := traced[at]; inWindow(s, b.Window) && (n < least[at]-tolerance || n > most[at]+tolerance) {
			return fmt.Errorf("%s+%#x enters %s %v times a packet by its kprobe, and %v times by the trace",
				s.Function, s.Offset, s.Target, most[at], n)
		}
	}
	return nil
}

// sitePlace is an indirect branch with what it enters.
type sitePlace struct {
	function string
	offset   uint64
	target   string
}
