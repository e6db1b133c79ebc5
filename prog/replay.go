package prog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/replay"
)

// MaxPrograms is how many programs can be measured side by side.
const MaxPrograms = replay.Sites - 1

// Program is an XDP program to measure.
type Program struct {
	// Name is for errors.
	Name string
	// Loaded is the program. It stays the caller's.
	Loaded *ebpf.Program
	// Reload loads it once more, with the same maps, and may be nil. Where in memory the kernel puts a program
	// moves its cost by some percent; a program that is loaded anew for each round has the cost of the mean place.
	// The caller's program is not closed, what Reload returns is.
	Reload func() (*ebpf.Program, error)
}

// Options of a replay. The zero value replays hot packets on the loopback device.
type Options struct {
	// WorkingSet is how many packets take turns: a packet comes again after N-1 others, as far as
	// the row has them. 0 is [DefaultWorkingSet].
	WorkingSet int
	// Cold is how many bytes of memory each run walks through before it, so that caches of that size hold nothing
	// of the program or its maps; 0 for none. The packet itself is in the cache, as where a NIC writes into it.
	Cold int
	// Device and Queue are ingress_ifindex and rx_queue_index of the packets. The device is of the calling thread's
	// network namespace, and has XDP queues; 0 is loopback.
	Device, Queue uint32
	// Metadata stands before each packet: up to 216 bytes, in steps of 4.
	Metadata []byte
	// FirstBuffer is how many bytes of a packet its first buffer has, of programs for fragments (xdp.frags): 14 to MaxBuffer,
	// as a device gives them. What is behind is in fragments of 4096 bytes. 0 is MaxBuffer; all else requires at
	// least Linux 6.18.
	FirstBuffer int
}

// MaxMetadata is the longest metadata in bytes: XDP's headroom less what the kernel keeps of it.
const MaxMetadata = replay.MaxMetadata

// DefaultWorkingSet is how many packets take turns in a replay that is hot.
const DefaultWorkingSet = 64

// Outcome is what comes out of a packet.
type Outcome struct {
	// Verdict is XDP's: 0 for XDP_ABORTED to 4 for XDP_REDIRECT.
	Verdict uint32
	// Length is that of the packet in bytes.
	Length int
	// Hash is of its bytes; 0 when they differ from run to run, or when there are more than [MaxFrame].
	Hash uint64
	// Unsteady is set when the next run had another verdict or length.
	Unsteady bool
}

// Clean is what a program made of packets that were run once each, by plain BPF_PROG_TEST_RUN.
type Clean struct {
	// Outcomes are those of the second of three passes, by packet.
	Outcomes []Outcome
	// Learned is how many packets came out of the first pass otherwise, as when the first packet of a flow makes an
	// entry of a map. Unsteady is how many came out of the third with another verdict or length, Varying how many with
	// other bytes alone: their bytes are not compared.
	Learned, Unsteady, Varying int
}

// Row is a set of packets that is measured as one.
type Row struct {
	Name string
	// Packets are indexes of frames. Their order does not matter. Of more than [Options.MostTimed] a spread of them is
	// timed.
	Packets []int
}

// MaxRow is how many packets of a row are timed, but for a working set that is larger.
const MaxRow = 1024

// MostTimed is how many packets of a row are timed.
func (o Options) MostTimed() int { return max(MaxRow, o.WorkingSet) }

// MaxRows is how many rows a replay can have.
const MaxRows = 64

// Replay measures programs on packets. It is not safe for concurrent use. All methods that run programs do so
// on the calling thread.
type Replay struct {
	programs []Program
	packets  *Packets
	opts     Options
	kind     replay.Options // of the programs
	clean    []Clean

	harness *replay.Harness
	null    *ebpf.Program
	fresh   []*ebpf.Program // loaded anew, by program; nil for the caller's
	// rows are parts of the caller's rows, of which there are so many as wholes says; shapes are those of their packets.
	rows   []row
	wholes int
	shapes []shape
	call   int     // of the harness
	pacing float64 // ns of a run of the last call
	waste  time.Duration
	found  [][]Mismatch
}

// New makes a replay of at most [MaxPrograms] programs: it runs each packet three times through each of them,
// one by one, to know what has to come out. It returns an error in one line for a program that cannot be run
// on packets, and a feature.Missing where BPF programs cannot be loaded.
func New(ctx context.Context, packets *Packets, opts Options, programs ...Program) (*Replay, error) {
	switch {
	case len(programs) < 1 || len(programs) > MaxPrograms:
		return nil, fmt.Errorf("%d programs: 1 to %d can be replayed", len(programs), MaxPrograms)
	case len(packets.Frames) == 0:
		return nil, errNoPackets
	case len(opts.Metadata) > replay.MaxMetadata || len(opts.Metadata)%4 != 0:
		return nil, fmt.Errorf("metadata of %d bytes: up to %d, in steps of 4", len(opts.Metadata), replay.MaxMetadata)
	case opts.WorkingSet < 0 || opts.Cold < 0:
		return nil, errors.New("a working set is not negative")
	case opts.FirstBuffer != 0 && (opts.FirstBuffer < replay.MinPacket || opts.FirstBuffer > MaxBuffer):
		return nil, fmt.Errorf("a first buffer of %d bytes is not within %d … %d", opts.FirstBuffer, replay.MinPacket, MaxBuffer)
	case opts.Queue > 0 && opts.Device == 0:
		return nil, fmt.Errorf("queue %d of no device", opts.Queue)
	}
	opts.WorkingSet = cmp.Or(opts.WorkingSet, DefaultWorkingSet)
	r := &Replay{programs: programs, packets: packets, opts: opts, fresh: make([]*ebpf.Program, len(programs))}
	for _, p := range programs {
		if p.Loaded.Type() != ebpf.XDP {
			return nil, fmt.Errorf("program %s is of type %v: only XDP can be replayed", p.Name, p.Loaded.Type())
		}
		clean, err := r.runClean(ctx, p)
		if err != nil {
			return nil, err
		}
		r.clean = append(r.clean, clean)
	}
	if err := r.findKind(); err != nil {
		return nil, err
	}
	return r, r.checkBuffers()
}

// checkBuffers refuses packets that no device gives to the programs.
func (r *Replay) checkBuffers() error {
	if !r.kind.Frags {
		for i, frame := range r.packets.Frames {
			if isInFragments(frame) {
				return fmt.Errorf("packet %d has %d bytes: %s", i+1, len(frame), forFragments)
			}
		}
		if r.opts.FirstBuffer != 0 {
			return fmt.Errorf("a first buffer of %d bytes: %s", r.opts.FirstBuffer, forFragments)
		}
	}
	return nil
}

// forFragments is about programs that were loaded without BPF_F_XDP_HAS_FRAGS.
const forFragments = "a device gives fragments only to programs for them (xdp.frags)"

// For are the packets that a device gives to the programs: when one of them is not for fragments (xdp.frags) those
// that fit into one buffer. It is an error when none is left.
func (p *Packets) For(programs ...Program) (*Packets, error) {
	if !p.anyInFragments() {
		return p, nil
	}
	for _, program := range programs {
		frags, err := hasFrags(program)
		if err != nil {
			return nil, err
		}
		if !frags {
			return p.OneBuffer("which a device gives in fragments, to programs for them alone (xdp.frags)")
		}
	}
	return p, nil
}

// hasFrags tells whether a program is for fragments. One that cannot be replayed is not.
func hasFrags(p Program) (bool, error) {
	for _, kind := range kinds() {
		switch err := fits(kind, p); {
		case err == nil:
			return kind.Frags, nil
		case !errors.Is(err, unix.EINVAL):
			return false, err
		}
	}
	return false, nil
}

// Clean is what each program made of the packets.
func (r *Replay) Clean() []Clean { return r.clean }

// runClean runs each packet once in each of three passes.
func (r *Replay) runClean(ctx context.Context, p Program) (Clean, error) {
	n := len(r.packets.Frames)
	c := Clean{Outcomes: make([]Outcome, n)}
	first := make([]Outcome, n)
	for pass := range 3 {
		for i, frame := range r.packets.Frames {
			// A signal does not end a single run: it is seen between two.
			if ctx.Err() != nil {
				return c, ctx.Err()
			}
			got, err := r.runOnce(ctx, p, frame)
			if err != nil {
				return c, err
			}
			switch pass {
			case 0:
				first[i] = got
			case 1:
				c.Outcomes[i] = got
				if got != first[i] {
					c.Learned++
				}
			case 2:
				want := &c.Outcomes[i]
				switch {
				case got.Verdict != want.Verdict || got.Length != want.Length:
					c.Unsteady++
					want.Unsteady = true
				case got.Hash != want.Hash:
					c.Varying++
					want.Hash = 0
				}
			}
		}
	}
	return c, nil
}

func (r *Replay) runOnce(ctx context.Context, p Program, frame []byte) (Outcome, error) {
	in := replay.Input{Data: frame, Metadata: r.opts.Metadata, Device: r.opts.Device, Queue: r.opts.Queue,
		FirstBuffer: r.opts.FirstBuffer}
	out, err := replay.TestRunOnce(ctx, p.Loaded, in)
	switch {
	case errors.Is(err, unix.EINTR):
		return Outcome{}, ctx.Err()
	case errors.Is(err, unix.ENODEV):
		return Outcome{}, fmt.Errorf("there is no device with index %d in this network namespace", r.opts.Device)
	case errors.Is(err, unix.EINVAL) && r.opts.FirstBuffer != 0:
		return Outcome{}, &feature.Missing{
			Feature: "a first buffer of a given size in test runs", Since: "6.18", Err: err,
		}
	case errors.Is(err, unix.EINVAL) && r.opts.Device != 0:
		return Outcome{}, fmt.Errorf("device %d, queue %d: the kernel refuses it for a test run: it has no such queue, or no "+
			"XDP on it", r.opts.Device, r.opts.Queue)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, notSupported):
		return Outcome{}, fmt.Errorf("program %s cannot be replayed: %w", p.Name, ErrKind)
	case err != nil:
		return Outcome{}, fmt.Errorf("program %s: %w", p.Name, err)
	}
	o := Outcome{Verdict: out.Verdict, Length: len(out.Data)}
	if o.Length <= MaxFrame {
		o.Hash = replay.Hash(out.Data)
	}
	return o, nil
}

// notSupported is the kernel's ENOTSUPP, which user space has no name for.
const notSupported = unix.Errno(524)

// ErrKind is about programs that the kernel runs on no packet but a device's.
var ErrKind = errors.New("the kernel test-runs no program that is bound to a device, or is for entries of a devmap or cpumap")

// kinds are those that a program may be of.
func kinds() []replay.Options {
	return []replay.Options{{Attach: ebpf.AttachXDP}, {}, {Attach: ebpf.AttachXDP, Frags: true}, {Frags: true}}
}

// findKind finds out what kind of program a harness has to be, to be able to jump to these: the kernel does
// not tell how a program was loaded, but refuses entries of a program array that are of another kind.
func (r *Replay) findKind() error {
	kinds := kinds()
	common, frags := kinds, make([]bool, len(r.programs))
	for i, p := range r.programs {
		fit, err := fitting(kinds, p)
		if err != nil {
			return err
		}
		frags[i] = fit[0].Frags
		common = slices.DeleteFunc(slices.Clone(common), func(k replay.Options) bool {
			return !slices.ContainsFunc(fit, func(f replay.Options) bool { return f.Frags == k.Frags && f.Attach == k.Attach })
		})
	}
	switch {
	case len(common) > 0:
		r.kind = common[0]
		r.kind.FirstBuffer = r.opts.FirstBuffer
		return nil
	case frags[0] != frags[1]:
		return errors.New("the two programs are of two kinds: one of them is for fragments (xdp.frags)")
	}
	return errors.New("the two programs are of two kinds: one of them was loaded with the attach type of XDP, the other without one")
}

// fitting are the kinds of a harness that can jump to a program: at least one.
func fitting(kinds []replay.Options, p Program) (fit []replay.Options, err error) {
	var first error
	for _, kind := range kinds {
		err := fits(kind, p)
		switch {
		case err == nil:
			fit = append(fit, kind)
		case !errors.Is(err, unix.EINVAL):
			return nil, err
		case first == nil:
			first = err
		}
	}
	if len(fit) == 0 {
		return nil, fmt.Errorf("program %s cannot be tail-called, so not be replayed: %w", p.Name, first)
	}
	return fit, nil
}

// fits tries one kind.
func fits(kind replay.Options, p Program) (err error) {
	h, err := replay.Load(kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	return h.Place(1, p.Loaded)
}

// Close unloads what the replay loaded.
func (r *Replay) Close() error {
	var errs []error
	if r.harness != nil {
		errs = append(errs, r.harness.Close())
	}
	for _, p := range append(r.fresh, r.null) {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	r.harness, r.null, r.fresh = nil, nil, make([]*ebpf.Program, len(r.programs))
	return errors.Join(errs...)
}
