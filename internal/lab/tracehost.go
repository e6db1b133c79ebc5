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
	kept              int          // bytes of the windows' budget that slots take
	named             map[int]bool // slots that a row is of
	err               error        // why nothing is traced any more, other than the end of the guest
	first             bool         // the first window of a slot is wanted, and not the shortest
	wires             bool         // those in the middle of polls are wanted
}

// tracedSlot is the shortest window of a slot or, on wires, those in the middle of polls.
type tracedSlot struct {
	*trace.Packed
	code snippets
	err  error // why there is no window
}

// Limits on what guests may have traced.
const (
	// maxSlots are those of a guest: a bulk has one, a few where ticks are in the way.
	maxSlots = 256
	// maxKept is what the windows of all guests that run at the same time may take while they are read and kept, in bytes.
	maxKept = 128 << 20
	// maxTraces is what the traces of a run may take, in bytes: one takes some 100 KB.
	maxTraces = 128 << 20
	// maxSymbols is what the symbols of kernels may take that are kept for the guests to come, in bytes: those of Debian's
	// take some 10 MB.
	maxSymbols = 64 << 20
)

// images are the symbols of kernels, read once a run as long as there are few, and the source lines that were asked for, by file. They also
// bound what the tracers and the measurements of a run take.
type images struct {
	mu     sync.Mutex
	tables map[string]*ksym.Table // of maxSymbols at most, or one
	places map[string]map[uint64]trace.Place
	bare   map[string]bool // files of kernels without source lines

	windows, traces, measured *trace.Budget

	work sync.Mutex // held while traces are made of windows: those of one guest at a time
}

func newImages() *images {
	return &images{
		bare: make(map[string]bool), windows: trace.NewBudget(maxKept), traces: trace.NewBudget(maxTraces),
		measured: trace.NewBudget(maxMeasured),
	}
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
	i.keep(path, img.Table)
	return img.Table, nil
}

// keep keeps a table, and lets go the others where all are too large.
func (i *images) keep(path string, table *ksym.Table) {
	size := table.Memory()
	for _, t := range i.tables {
		size += t.Memory()
	}
	if i.tables == nil || size > maxSymbols {
		i.tables = make(map[string]*ksym.Table)
	}
	i.tables[path] = table
}

// newTracer reads the symbols of a kernel that is booted without KASLR.
func newTracer(ctx context.Context, k guest.Kernel, all *images, annotate string) (*tracer, error) {
	symbols, err := all.symbols(ctx, k.Image)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	t := &tracer{symbols: symbols, annotate: annotate, vmlinux: k.Vmlinux, images: all}
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
	if i.bare[vmlinux] {
		return nil, trace.ErrNoLines
	}
	asked := i.places[vmlinux] // with no file where none is known
	if slices.ContainsFunc(addrs, func(addr uint64) bool { _, ok := asked[addr]; return !ok }) {
		f, _, err := unpack.Open(vmlinux, maxVmlinux)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		found, err := trace.Places(ctx, f, addrs)
		if errors.Is(err, trace.ErrNoLines) {
			i.bare[vmlinux] = true
		}
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
	spans := spansOf(r.Addrs())
	if r = t.keep(r, spans); r.err != nil {
		return r, nil
	}
	if r.code, err = readSnippets(d.Client, spans); err != nil {
		return tracedSlot{}, err
	}
	return r, nil
}

// keep takes what a slot and its code need from the budget, or leaves the window out where others have taken all that there is.
func (t *tracer) keep(s tracedSlot, code []span) tracedSlot {
	size := s.Size()
	for _, c := range code {
		size += spanSize + int(c.last-c.first)
	}
	if err := t.images.windows.Take(size); err != nil {
		return tracedSlot{err: fmt.Errorf("trace: %w", err)}
	}
	t.kept += size
	return s
}

// release forgets the slots.
func (t *tracer) release() {
	t.images.windows.Give(t.kept)
	t.slots, t.kept = nil, 0
}

// read reads the windows of a slot that are wanted.
func (t *tracer) read(executed *bufio.Reader) (s tracedSlot) {
	switch {
	case t.wires:
		s.Packed, s.err = trace.ReadSome(executed, t.stamp, guest.LogEnd, t.images.windows, inMiddle)
	case t.first:
		s.Packed, s.err = trace.ReadFirst(executed, t.stamp, guest.LogEnd, t.images.windows)
	default:
		s.Packed, s.err = trace.Read(executed, t.stamp, guest.LogEnd, t.images.windows)
	}
	return s
}

// snippets are pieces of a guest's code, by address.
type snippets []ktext.Bytes

// CodeAt implements [trace.Source].
func (s snippets) CodeAt(addr uint64) []byte {
	i := sort.Search(len(s), func(i int) bool { return s[i].Addr > addr })
	if i == 0 {
		return nil
	}
	piece := s[i-1]
	off := min(addr-piece.Addr, uint64(len(piece.Code)))
	return piece.Code[off:min(off+trace.Longest, uint64(len(piece.Code)))]
}

// span are the addresses of instructions that are read together, from the first to the last.
type span struct{ first, last uint64 }

// spanSize is what the code of a span takes beside its bytes.
const spanSize = 64

// spansOf are the spans of addresses, in their order.
func spansOf(addrs []uint64) (all []span) {
	const gap, page = 256, 4096
	for _, addr := range slices.Sorted(slices.Values(addrs)) {
		if n := len(all); n > 0 && addr-all[n-1].last < gap && addr-all[n-1].first < page {
			all[n-1].last = addr
			continue
		}
		all = append(all, span{addr, addr})
	}
	return all
}

// readSnippets reads the instructions of spans from a guest that stands still. What is
// not mapped any more is left out.
func readSnippets(c *gdb.Client, spans []span) (all snippets, err error) {
	const page = 4096
	for _, s := range spans {
		// The page behind the last instruction may not be mapped.
		for _, end := range []uint64{s.last + trace.Longest, min(s.last+trace.Longest, s.last|(page-1)+1)} {
			if end <= s.first { // the last byte of all
				continue
			}
			code := make([]byte, end-s.first)
			err := c.Memory(code, s.first)
			if errors.Is(err, gdb.ErrUnmapped) {
				continue
			}
			if err != nil {
				return nil, err
			}
			all = append(all, ktext.Bytes{Addr: s.first, Code: code})
			break
		}
	}
	return all, nil
}

// finish makes the traces of what a guest measured, and forgets its windows. A row whose trace
// has another number of instructions than were counted is refused; what else is wrong with a
// trace is said of the row, whose counts stay. So is the end of ctx.
func (t *tracer) finish(ctx context.Context, m *Measurement) {
	t.images.work.Lock()
	defer t.images.work.Unlock()
	t.named = make(map[int]bool)
	for i := range m.Bulks {
		b := &m.Bulks[i]
		if b.Refused != "" {
			continue
		}
		err := t.finishRow(ctx, b, m.Codes)
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

func (t *tracer) finishRow(ctx context.Context, b *BulkCount, codes []GuestCode) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if b.Traced == nil {
		return errors.New(cmp.Or(printable(b.Untraced, maxWords), "the guest marked no slot"))
	}
	if b.Traced.Code < 1 || b.Traced.Code > len(codes) {
		return fmt.Errorf("the guest says that it marked slot %d, and not with what code", b.Traced.Slot)
	}
	slot, err := t.slotOf(b.Traced.Slot)
	if err != nil {
		return err
	}
	l := listing{row: b, code: &codes[b.Traced.Code-1]}
	if b.Trace, l.addrs, err = t.trace(ctx, b, slot, l.code); err != nil {
		return err
	}
	if err := b.agree(); err != nil {
		return err
	}
	calls := 0.0
	if err := (&record.LabRow{Instructions: b.Instructions, CallsPerPacket: &calls, Trace: b.Trace}).Check(); err != nil {
		return err
	}
	if err := t.images.traces.Take(sizeOf(b.Trace) + 8*len(l.addrs)); err != nil {
		return err
	}
	if t.annotate != "" && len(b.Trace.Annotated) == 0 {
		b.Doubts = append(b.Doubts, printable(t.annotate+" is not executed, or is a part of its caller: there is nothing to list", maxWhy))
	}
	l.instructions = b.Trace.Annotated
	t.listings = append(t.listings, l)
	return nil
}

// slotOf is a slot that a guest says it marked. Each is of one row.
func (t *tracer) slotOf(n int) (*tracedSlot, error) {
	if n < 0 || n >= len(t.slots) {
		return nil, fmt.Errorf("the guest says that it marked slot %d of %d", n, len(t.slots))
	}
	if t.named[n] {
		return nil, fmt.Errorf("the guest says that it marked slot %d twice", n)
	}
	t.named[n] = true
	return &t.slots[n], nil
}

// sizeOf is about what a trace takes, in bytes, without the names that it shares with others.
func sizeOf(t *record.LabTrace) int {
	size := 64*len(t.Functions) + 64*len(t.Branches) + 80*len(t.Lines)
	for i := range t.Annotated {
		size += 80 + len(t.Annotated[i].Text)
	}
	for i := range t.Stacks {
		size += 56 + 16*len(t.Stacks[i].Frames)
	}
	return size
}

// trace is that of one slot, with the addresses of the instructions that are annotated.
func (t *tracer) trace(ctx context.Context, b *BulkCount, slot *tracedSlot, code *GuestCode) (*record.LabTrace, []uint64, error) {
	w, length, err := t.counted(ctx, b, slot)
	if err != nil {
		return nil, nil, err
	}
	name, err := t.namer(code)
	if err != nil {
		return nil, nil, err
	}
	opts := trace.Options{Code: slot.code, Name: name, Sink: isSink,
		Poll: func(function string) bool { return functions.Has(function, functions.Poll) }}
	tree, err := trace.Cut(ctx, w, opts)
	if err != nil {
		return nil, nil, err
	}
	stages := stageOf
	if polls := t.pollsWithin(tree); len(polls) > 0 {
		opts.Poll = func(function string) bool { return polls[function] }
		if tree, err = trace.Cut(ctx, w, opts); err != nil {
			return nil, nil, err
		}
		stages = stageAround(polls)
	}
	out := &record.LabTrace{Packets: b.Window, Executed: tree.Instructions}
	if t.wires {
		windows := len(w.Order) / length
		out.Packets, out.Windows, out.Among = b.Window*windows, windows, len(slot.Lengths())
		stages = stageInPoll
	}
	fs, stacks, err := tree.Functions(ctx, stages)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range fs {
		out.Functions = append(out.Functions, record.LabTraceFunction{Function: f.Name, Stage: f.Stage, Executed: f.Own, Inclusive: f.With})
	}
	for _, s := range stacks {
		out.Stacks = append(out.Stacks, record.LabTraceStack{Frames: s.Frames, Stage: s.Stage, Executed: s.Own, Entered: s.Entered})
	}
	for _, br := range tree.Branches {
		out.Branches = append(out.Branches, record.LabTraceBranch{
			Function: br.Function, Offset: br.Offset, Jump: br.Jump, Target: br.Entered, Times: br.Executed})
	}
	if out.Lines, err = code.lines(ctx, w, name); err != nil {
		return nil, nil, err
	}
	var addrs []uint64
	if t.annotate != "" {
		if out.Annotated, addrs, err = annotated(ctx, w, slot.code, name, t.annotate); err != nil {
			return nil, nil, err
		}
	}
	if t.wires {
		err = spreads(ctx, out, w, length, opts)
	}
	return out, addrs, err
}

// counted is the window of a slot that has as many instructions as were counted, which are length. On wires it joins all
// that have as many.
func (t *tracer) counted(ctx context.Context, b *BulkCount, s *tracedSlot) (w *trace.Window, length int, err error) {
	if s.err != nil {
		return nil, 0, s.err
	}
	counted := math.Round(*b.Instructions * float64(b.Window))
	length = int(min(counted, math.MaxInt32))
	all, usual := s.Lengths(), 0
	for _, n := range all {
		if n == length {
			usual++
		}
	}
	switch {
	case !t.wires && usual != 1:
		return nil, 0, fmt.Errorf("%w: %d instructions were executed, but the guest's clock counts %.0f", errUnlike, all[0], counted)
	case t.wires && (b.Traced.Usual < 1 || usual != b.Traced.Usual || len(all) != b.Traced.Middle):
		return nil, 0, fmt.Errorf("%w: %d of %d windows have %.0f instructions, but by the guest's clock %d of %d", errUnlike,
			usual, len(all), counted, b.Traced.Usual, b.Traced.Middle)
	}
	w, err = s.Unpack(ctx, length)
	return w, length, err
}

// spreads sets how far functions are from what the trace says of them in any of its windows, which w joins and which have
// length instructions each.
func spreads(ctx context.Context, t *record.LabTrace, w *trace.Window, length int, opts trace.Options) error {
	type key struct{ name, stage string }
	type place struct {
		*record.LabTraceFunction
		windows int // that it is in
	}
	places := make(map[key]*place)
	for i := range t.Functions {
		places[key{t.Functions[i].Function, t.Functions[i].Stage}] = &place{&t.Functions[i], 0}
	}
	packets := float64(t.Packets) / float64(t.Windows)
	err := trace.CutEach(ctx, w, length, opts, func(tree *trace.Tree) error {
		fs, _, err := tree.Functions(ctx, stageInPoll)
		for _, f := range fs {
			if p := places[key{f.Name, f.Stage}]; p != nil {
				p.windows++
				p.Spread = max(p.Spread, math.Abs(float64(f.Own)/packets-t.PerPacket(p.Executed)))
			}
		}
		return err
	})
	for _, p := range places {
		if p.windows < t.Windows {
			p.Spread = max(p.Spread, t.PerPacket(p.Executed))
		}
	}
	return err
}

// stageOf is the stage of a chain of calls: that of a thunk is its caller's.
func stageOf(calls []string, sink bool) string {
	for len(calls) > 1 && (trace.IndirectThunk(calls[0]) || branch.ReturnThunk(calls[0])) {
		calls = calls[1:]
	}
	return string(profile.StageOfCalls(calls, sink))
}

// pollsWithin are the polls of drivers that net_rx_action enters itself, as a compiler made napi_poll a part of it before Linux 5.12;
// nil for other kernels.
func (t *tracer) pollsWithin(tree *trace.Tree) map[string]bool {
	if slices.ContainsFunc(functions.Names(functions.CallsPoll), func(name string) bool { _, ok := t.symbols.Lookup(name); return ok }) {
		return nil
	}
	polls := make(map[string]bool)
	for _, b := range tree.Branches {
		if functions.Has(b.Function, functions.SoftirqLoop) {
			polls[b.Entered] = true
		}
	}
	return polls
}

// stageAround is [stageOf] with the function put back that stands around polls in other kernels.
func stageAround(polls map[string]bool) func(calls []string, sink bool) string {
	return func(calls []string, sink bool) string {
		for i := 1; i < len(calls); i++ {
			if polls[calls[i-1]] && functions.Has(calls[i], functions.SoftirqLoop) {
				calls = slices.Insert(slices.Clone(calls), i, functions.Names(functions.Poll)[0])
				break
			}
		}
		return stageOf(calls, sink)
	}
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
func (code *GuestCode) lines(ctx context.Context, w *trace.Window, name trace.Namer) (out []record.LabTraceLine, err error) {
	type key struct {
		program, file string
		line          int
	}
	sums := make(map[key]*record.LabTraceLine)
	for i, n := range w.Counts() {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
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
	return out, nil
}

// fromTraces gives rows whose indirect branches no kprobe could count those of their traces. A row that has no trace is refused.
func (m *Measurement) fromTraces() {
	for i := range m.Bulks {
		b := &m.Bulks[i]
		switch {
		case b.Unprobed == "" || b.Refused != "":
			continue
		case b.Trace == nil:
			why := "a trace (--trace) has no need of it"
			if len(b.Doubts) > 0 { // where one was made
				why = b.Doubts[0]
			}
			*b = BulkCount{Scenario: b.Scenario, Bulk: b.Bulk, Refused: printable(b.Unprobed+"; "+why, maxWhy)}
			continue
		}
		stages := make(map[string]string)
		for _, f := range b.Trace.Functions {
			stages[f.Function] = cmp.Or(stages[f.Function], f.Stage)
		}
		b.Doubts = append(b.Doubts, printable("indirect branches are of the trace: "+b.Unprobed, maxWhy))
		for _, br := range b.Trace.Branches {
			if br.Function != record.StampFunction {
				b.Sites = append(b.Sites, record.LabSite{Function: br.Function, Offset: br.Offset, Jump: br.Jump, Target: br.Target,
					Stage: stages[br.Function], PerPacket: b.Trace.PerPacket(br.Times)})
			}
		}
		b.sort()
	}
}

// agree holds the branches of the trace against those that kprobes count, at each place. On wires kprobes count whole
// bursts and the trace the middle of polls. Transmission is in each window, and all of what is in a poll may be or not, as
// the refill of a ring is at its end; of both the two may differ by one a window, but not so that transmission has none.
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
		if n := traced[at]; inWindow(s, b.Window) && (n < least[at]-tolerance || n > most[at]+tolerance || n == 0 && least[at] > 0) {
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
