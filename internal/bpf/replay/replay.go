// Package replay is the harness that runs XDP programs on packets: a BPF program that
// restores a packet before each run of a target and compares what comes out of it.
// Requires at least Linux 5.18, and a JIT.
package replay

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel replay replay.bpf.c -- -O2 -g -Wall -Werror -I../headers

const (
	// Sites is how many programs a harness can run.
	Sites = 3
	// MinPacket and MaxPacket are the limits of a packet in one buffer in bytes: an Ethernet header, and a
	// page less headroom (256 bytes) and the end that the kernel keeps (net/bpf/test_run.c).
	MinPacket = 14
	MaxPacket = 4096 - 256 - 320
	// MaxFragmented is the longest packet in fragments: helpers of BPF reach no byte behind. Each fragment has FragmentSize
	// bytes, but for the last one.
	MaxFragmented = 1<<16 - 1
	FragmentSize  = 4096
	// MaxMetadata is the longest metadata, a multiple of 4 bytes.
	MaxMetadata = 216
	// walkPiece is WALK_PIECE of the C source.
	walkPiece = 64 << 10
)

// hasFrags is BPF_F_XDP_HAS_FRAGS.
const hasFrags = 1 << 5

// Options are what a harness is made of.
type Options struct {
	// Packets are the frames, each of MinPacket to MaxPacket bytes; with Frags to MaxFragmented.
	Packets [][]byte
	// FirstBuffer is how many bytes of a packet its first buffer has, MinPacket to MaxPacket; the rest is in fragments. 0 is
	// MaxPacket. All else needs Frags and Linux 6.18.
	FirstBuffer int
	// Schedule is the order in which windows take packets: indexes.
	Schedule []uint32
	// Programs is how many programs have expectations, the null program included.
	Programs int
	// Windows is the largest number of windows of one call of Run.
	Windows int
	// Frags makes a harness for programs that were loaded as xdp.frags, Attach one for those of an
	// expected attach type: all entries of a program array must be alike.
	Frags  bool
	Attach ebpf.AttachType
	// Metadata stands before each packet.
	Metadata []byte
	// Walk is how many bytes of memory a window with Walk set walks through before each run.
	Walk int
	// Device and Queue are what the program reads as ingress_ifindex and rx_queue_index. 0 is the
	// loopback device.
	Device, Queue uint32
}

// Expect is what has to come out of a packet.
type Expect struct {
	// Hash is [Hash] of the bytes; 0 stands for any.
	Hash    uint64
	Verdict uint32
	Length  uint32
}

// Window is a number of runs of the program at one site.
type Window struct {
	Site uint32
	// Program says whose expectations hold.
	Program uint32
	// First and Group are which entries of the schedule the runs take, in turn.
	First, Group uint32
	// Warm runs are not timed, Timed runs are.
	Warm, Timed uint32
	// Bytes compares bytes as well. Walk makes each run walk through memory first.
	Bytes, Walk bool
}

// Runs is how many runs the window has.
func (w Window) Runs() int { return int(w.Warm + w.Timed) }

// Span is what came of a window.
type Span struct {
	// Ns is how long all timed runs took, with what restores the packets between them.
	Ns uint64
	// Verdicts, Lengths and Bytes are the runs with another one than expected, Lost those
	// whose packet could not be restored.
	Verdicts, Lengths, Bytes, Lost uint32
}

// Differs is the first run of a call that came out otherwise.
type Differs struct {
	// Packet is its index.
	Packet int
	Site   int
	// Got and Want are what came out and what should have; hashes are of windows with Bytes.
	Got, Want Expect
}

// Fragments is in how many fragments a packet of n bytes is, beside its first buffer.
func (o Options) Fragments(n int) int {
	return max(0, n-cmp.Or(o.FirstBuffer, MaxPacket)+FragmentSize-1) / FragmentSize
}

// fragmented tells whether a packet is in fragments.
func (o Options) fragmented() bool {
	return o.Frags && slices.ContainsFunc(o.Packets, func(p []byte) bool { return o.Fragments(len(p)) > 0 })
}

// check refuses packets that the harness cannot have.
func (o Options) check() error {
	most := MaxPacket
	if o.Frags {
		most = MaxFragmented
	}
	for _, p := range o.Packets {
		if len(p) < MinPacket || len(p) > most {
			return fmt.Errorf("packet of %d bytes: %d to %d can be replayed", len(p), MinPacket, most)
		}
	}
	if n := o.FirstBuffer; n != 0 && (!o.Frags || n < MinPacket || n > MaxPacket) {
		return fmt.Errorf("a first buffer of %d bytes: %d to %d are possible, of programs for fragments", n, MinPacket, MaxPacket)
	}
	return nil
}

// Harness is a loaded one.
type Harness struct {
	opts    Options
	coll    *ebpf.Collection
	program *ebpf.Program
	// verdicts are those that programs have, by program.
	verdicts map[int]map[uint32]bool
}

// Load loads a harness with its packets. It returns a [feature.Missing] where BPF programs
// cannot be loaded.
func Load(o Options) (h *Harness, err error) {
	// Without CAP_PERFMON the verifier refuses to make numbers of pointers, in words that name no right.
	if err := feature.Need(unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON); err != nil {
		return nil, err
	}
	spec, err := loadReplay()
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	pieces := piecesOf(o)
	size := func(name string, entries int) { spec.Maps[name].MaxEntries = uint32(max(entries, 1)) }
	size(replayMapPackets, len(pieces))
	size(replayMapSchedule, len(o.Schedule))
	size(replayMapExpected, o.Programs*len(o.Packets))
	size(replayMapWindows, o.Windows)
	size(replayMapSpans, o.Windows)
	size(replayMapMemory, o.Walk/walkPiece)
	spec.Maps[replayMapPackets].ValueSize = uint32(8 + (o.longest()+7)/8*8)
	if err := setConstants(spec, o); err != nil {
		return nil, err
	}
	configure(spec, o)
	h = &Harness{opts: o, verdicts: map[int]map[uint32]bool{}}
	if h.coll, err = ebpf.NewCollection(spec); err != nil {
		return nil, refused(fmt.Errorf("load replay harness: %w", err))
	}
	h.program = h.coll.DetachProgram(replayProgReplay)
	if err := h.fill(pieces, spec.Maps[replayMapPackets].ValueSize); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func setConstants(spec *ebpf.CollectionSpec, o Options) error {
	if len(o.Metadata) > MaxMetadata || len(o.Metadata)%4 != 0 {
		return fmt.Errorf("metadata of %d bytes: up to %d, in steps of 4", len(o.Metadata), MaxMetadata)
	}
	var metadata [252]byte
	copy(metadata[:], o.Metadata)
	for name, value := range map[string]any{
		replayVarLongest: uint32(o.longest()), replayVarFrags: number(o.fragmented()), replayVarPieces: uint32(o.Walk / walkPiece),
		replayVarMetaLength: uint32(len(o.Metadata)), replayVarMetadata: metadata,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s of replay harness: %w", name, err)
		}
	}
	return nil
}

func configure(spec *ebpf.CollectionSpec, o Options) {
	p := spec.Programs[replayProgReplay]
	p.AttachType = o.Attach
	if o.Frags {
		p.Flags |= hasFrags
	}
}

// piece is a value of the map of packets: a packet, or so much of one in fragments.
type piece struct {
	length, rest uint32 // of the packet; entry of its second piece
	bytes        []byte
}

// piecesOf are the values of the map of packets: one for each packet, then what is behind the first piece of those that
// are longer and that a window can take.
func piecesOf(o Options) []piece {
	pieces := make([]piece, len(o.Packets))
	taken := make([]bool, len(o.Packets))
	for _, i := range o.Schedule {
		taken[i] = true
	}
	longest := o.longest()
	for i, p := range o.Packets {
		first := min(len(p), longest)
		pieces[i] = piece{uint32(len(p)), uint32(len(pieces)), p[:first]}
		for p = p[first:]; len(p) > 0 && taken[i]; p = p[min(len(p), FragmentSize):] {
			pieces = append(pieces, piece{bytes: p[:min(len(p), FragmentSize)]})
		}
	}
	return pieces
}

// longest is how many bytes a piece of a packet has at most.
func (o Options) longest() int {
	if o.fragmented() {
		return FragmentSize // PIECE of the C source
	}
	longest := MinPacket
	for _, p := range o.Packets {
		longest = max(longest, len(p))
	}
	return longest
}

// fill puts packets and schedule into their maps.
func (h *Harness) fill(pieces []piece, valueSize uint32) error {
	value := make([]byte, valueSize)
	for i, p := range pieces {
		clear(value)
		binary.NativeEndian.PutUint32(value, p.length)
		binary.NativeEndian.PutUint32(value[4:], p.rest)
		copy(value[8:], p.bytes)
		if err := h.coll.Maps[replayMapPackets].Put(uint32(i), value); err != nil {
			return fmt.Errorf("put packets into replay harness: %w", err)
		}
	}
	if len(h.opts.Schedule) > 0 {
		keys := numbers(0, len(h.opts.Schedule))
		if _, err := h.coll.Maps[replayMapSchedule].BatchUpdate(keys, h.opts.Schedule, nil); err != nil {
			return fmt.Errorf("put schedule into replay harness: %w", err)
		}
	}
	return nil
}

// numbers are first, first+1, and so on.
func numbers(first, n int) []uint32 {
	keys := make([]uint32, n)
	for i := range keys {
		keys[i] = uint32(first + i)
	}
	return keys
}

// Renew loads the harness's program once more, to another place in memory, with the same maps.
func (h *Harness) Renew() error {
	spec, err := loadReplay()
	if err != nil {
		return err
	}
	configure(spec, h.opts)
	for name, m := range h.coll.Maps {
		info, err := m.Info()
		if err != nil {
			return fmt.Errorf("renew replay harness: %w", err)
		}
		spec.Maps[name].MaxEntries, spec.Maps[name].ValueSize = info.MaxEntries, info.ValueSize
	}
	if err := setConstants(spec, h.opts); err != nil {
		return err
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps.Clone(h.coll.Maps)})
	if err != nil {
		return refused(fmt.Errorf("renew replay harness: %w", err))
	}
	program := coll.DetachProgram(replayProgReplay)
	coll.Close()
	err = h.program.Close()
	h.program = program
	return err
}

// Place puts a program at a site. The kernel refuses one that is not of the harness's kind.
func (h *Harness) Place(site int, p *ebpf.Program) error {
	if err := h.coll.Maps[replayMapTargets].Put(uint32(site), uint32(p.FD())); err != nil {
		return fmt.Errorf("place program in replay harness: %w", err)
	}
	return nil
}

// Expect says what has to come out of each packet from a program.
func (h *Harness) Expect(program int, expect []Expect) error {
	if len(expect) == 0 {
		return nil
	}
	keys := numbers(program*len(h.opts.Packets), len(expect))
	if _, err := h.coll.Maps[replayMapExpected].BatchUpdate(keys, expect, nil); err != nil {
		return fmt.Errorf("put expectations into replay harness: %w", err)
	}
	verdicts := map[uint32]bool{}
	for _, e := range expect {
		verdicts[e.Verdict] = true
	}
	h.verdicts[program] = verdicts
	return nil
}

// Run runs windows, one after the other, in one system call on the calling thread, which some
// 24 ms of are nobody's. Their packets are in equally many fragments, see [Options.Fragments]: what is in more or fewer
// is counted as lost. The spans are those of the windows. When ctx ends, the call ends after the run under way, with
// ctx's error. One that takes longer than limit ends with a [TooLong]; a limit of 0 is none. Any other signal to the
// thread ends it with unix.EINTR.
func (h *Harness) Run(ctx context.Context, windows []Window, limit time.Duration) ([]Span, error) {
	if len(windows) > h.opts.Windows {
		return nil, fmt.Errorf("%d windows: %d have room", len(windows), h.opts.Windows)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	runs := 0
	raw := make([]replayWindow, len(windows)+1) // the last one has no runs: it ends the call
	for i, w := range windows {
		runs += w.Runs()
		raw[i] = replayWindow{
			Site: w.Site, Expect: w.Program * uint32(len(h.opts.Packets)), First: w.First, Group: w.Group,
			Warm: w.Warm, Timed: w.Timed, Bytes: number(w.Bytes), Walk: number(w.Walk),
		}
	}
	raw = raw[:min(len(raw), h.opts.Windows)]
	if _, err := h.coll.Maps[replayMapWindows].BatchUpdate(numbers(0, len(raw)), raw, nil); err != nil {
		return nil, fmt.Errorf("put windows into replay harness: %w", err)
	}
	state := replayRun{None: h.none()}
	if err := h.coll.Variables[replayVarRun].Set(state); err != nil {
		return nil, fmt.Errorf("reset replay harness: %w", err)
	}
	begun, done := time.Now(), interruptible(ctx, limit)
	out, err := TestRun(h.program, Input{
		Data: make([]byte, h.frame(windows)), Repeat: uint32(runs), Device: h.opts.Device, Queue: h.opts.Queue,
		FirstBuffer: h.opts.FirstBuffer,
	})
	tooLong := done()
	switch {
	case errors.Is(err, unix.EINTR) && ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, unix.EINTR) && tooLong:
		return nil, h.tooLong(windows, time.Since(begun))
	case err != nil:
		return nil, err
	case out.Verdict != pass:
		return nil, errors.New("replay harness: a window has no packets")
	}
	spans := make([]replaySpan, len(windows))
	var cursor ebpf.MapBatchCursor
	keys := make([]uint32, len(windows))
	n, err := h.coll.Maps[replayMapSpans].BatchLookup(&cursor, keys, spans, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) || n < len(windows) {
		return nil, fmt.Errorf("read replay harness: %d of %d windows: %w", n, len(windows), err)
	}
	found := make([]Span, len(windows))
	for i, s := range spans {
		found[i] = Span{Ns: s.Ns, Verdicts: s.Verdicts, Lengths: s.Lengths, Bytes: s.Bytes, Lost: s.Lost}
	}
	return found, nil
}

// frame is the length of the frame that a call begins with: that of the first packet, if it is in fragments.
func (h *Harness) frame(windows []Window) int {
	if len(windows) > 0 && int(windows[0].First) < len(h.opts.Schedule) {
		n := len(h.opts.Packets[h.opts.Schedule[windows[0].First]])
		if h.opts.Fragments(n) > 0 {
			return n
		}
	}
	return min(64, cmp.Or(h.opts.FirstBuffer, MaxPacket))
}

// tooLong says how far a call came that was cut.
func (h *Harness) tooLong(windows []Window, took time.Duration) error {
	var state replayRun
	if err := h.coll.Variables[replayVarRun].Get(&state); err != nil {
		return fmt.Errorf("read replay harness: %w", err)
	}
	runs := -int(state.Left)
	for _, w := range windows[:min(int(state.Next), len(windows))] {
		runs += w.Runs()
	}
	return &TooLong{Took: took, Runs: max(0, runs)}
}

const pass = 2 // XDP_PASS

// none is what the harness's own subprogram returns when there is no target. A program may return any number: it is
// one that none of these does.
func (h *Harness) none() uint32 {
	for n := uint32(0xffffffff); ; n-- {
		used := false
		for _, verdicts := range h.verdicts {
			used = used || verdicts[n]
		}
		if !used {
			return n
		}
	}
}

func number(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// Differs is the first run of the last call of Run that came out otherwise; ok is false when none did.
func (h *Harness) Differs() (d Differs, ok bool, err error) {
	var state replayRun
	if err := h.coll.Variables[replayVarRun].Get(&state); err != nil {
		return d, false, fmt.Errorf("read replay harness: %w", err)
	}
	if state.Differs == 0 {
		return d, false, nil
	}
	return Differs{
		Packet: int(state.Packet), Site: int(state.Site),
		Got:  Expect{state.Got.Hash, state.Got.Verdict, state.Got.Length},
		Want: Expect{state.Want.Hash, state.Want.Verdict, state.Want.Length},
	}, true, nil
}

// Close unloads the harness.
func (h *Harness) Close() error {
	h.coll.Close()
	return h.program.Close()
}

// Null loads a program that does nothing but pass, of the harness's kind.
func Null(o Options) (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{
		Name: "unthunk_null", Type: ebpf.XDP, License: "Dual BSD/GPL", AttachType: o.Attach,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	}
	if o.Frags {
		spec.Flags |= hasFrags
	}
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, refused(fmt.Errorf("load null program: %w", err))
	}
	return p, nil
}

// Hash is what the harness makes of the bytes of a packet. It is never 0.
func Hash(b []byte) uint64 {
	sum := uint64(len(b))
	for i := 0; i < len(b); i += 8 {
		var word [8]byte
		copy(word[:], b[i:])
		sum = (sum ^ binary.NativeEndian.Uint64(word[:])) * 0x9e3779b97f4a7c15
		sum ^= sum >> 29
	}
	return max(sum, 1)
}

// refused names the rights that a load needs.
func refused(err error) error {
	if errors.Is(err, unix.EPERM) {
		return feature.Refused(err, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON)
	}
	return err
}
