package progcost

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/program/lines"
	"github.com/unthunk/unthunk/prog"
)

// redirected is XDP_REDIRECT.
const redirected = 4

// Unknown is the destination of a packet that goes elsewhere from run to run, or from load to load.
const Unknown = "?"

// Redirects tells whether packets come out of a program as redirects.
func (raw *Raw) Redirects() bool {
	for _, clean := range raw.Clean {
		for _, o := range clean.Outcomes {
			if o.Verdict == redirected {
				return true
			}
		}
	}
	return false
}

// OpenNoted opens an object's program once more, as one that notes where its redirects go.
func OpenNoted(ctx context.Context, t program.Target, o program.Options) (*program.Opened, error) {
	o.Change = lines.NoteRedirects
	opened, err := t.Open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("load a copy that notes redirects: %w", err)
	}
	return opened, nil
}

// Destinations say where a program that notes it, of [OpenNoted], redirects each packet to: a device, a CPU, or an entry of a map. One
// that is not redirected has an empty text. The first of some passes counts for nothing, as the program's maps learn in it.
func Destinations(ctx context.Context, plan Plan, o *program.Opened) (to []string, err error) {
	cpu, err := plan.CPU.Pick()
	if err != nil {
		return nil, err
	}
	err = onCPU(cpu, plan.Apart, func() error {
		to, err = DestinationsHere(ctx, plan.Packets, plan.Replay, o, false)
		return err
	})
	return to, err
}

// destinationPasses is how often each packet runs: one that goes to one of two devices at random is hardly sent to the same in all.
const destinationPasses = 6

// DestinationsHere is [Destinations] on the calling thread. byEntry says that entries of maps are told apart, whatever device they
// hold: in a guest all have the loopback.
func DestinationsHere(ctx context.Context, packets *prog.Packets, opts prog.Options, o *program.Opened, byEntry bool) ([]string, error) {
	to := make([]string, len(packets.Frames))
	for pass := range destinationPasses {
		for i, frame := range packets.Frames {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			verdict, err := runNoted(ctx, o.Program, replay.Input{Data: frame, Metadata: opts.Metadata, Device: opts.Device, Queue: opts.Queue,
				FirstBuffer: opts.FirstBuffer})
			if err != nil {
				return nil, err
			}
			last, err := lines.LastRedirect(o.Maps)
			if err != nil {
				return nil, err
			}
			now := ""
			if verdict == redirected && last != nil {
				now = destination(o, last, byEntry)
			}
			if pass > 1 && now != to[i] {
				now = Unknown
			}
			to[i] = now
		}
	}
	return to, nil
}

// runNoted runs a packet. A signal does not end it.
func runNoted(ctx context.Context, p *ebpf.Program, in replay.Input) (uint32, error) {
	for {
		out, err := replay.TestRun(p, in)
		if err == nil || ctx.Err() != nil || !isInterrupted(err) {
			return out.Verdict, err
		}
	}
}

// destination names where a redirect leads. Two entries with the same device lead to the same place.
func destination(o *program.Opened, r *lines.Redirect, byEntry bool) string {
	if r.Map == 0 {
		return fmt.Sprintf("device %d", r.To)
	}
	for name, m := range o.Maps {
		info, err := m.Info()
		if err != nil {
			continue
		}
		if id, ok := info.ID(); !ok || uint32(id) != r.Map {
			continue
		}
		if r.All {
			return "all of " + name
		}
		switch kind := m.Type(); {
		case kind == ebpf.CPUMap:
			return fmt.Sprintf("CPU %d", r.To)
		case !byEntry && (kind == ebpf.DevMap || kind == ebpf.DevMapHash) && r.To <= math.MaxUint32:
			if value, err := m.LookupBytes(uint32(r.To)); err == nil && len(value) >= 4 {
				return fmt.Sprintf("device %d", binary.NativeEndian.Uint32(value))
			}
		}
		return fmt.Sprintf("entry %d of %s", r.To, name)
	}
	return fmt.Sprintf("entry %d of a map in a map", r.To)
}

// Agree makes unknown what two loads of a program do not agree in.
func Agree(a, b []string) []string {
	out := make([]string, len(a))
	for i := range a {
		if out[i] = a[i]; i >= len(b) || a[i] != b[i] {
			out[i] = Unknown
		}
	}
	return out
}

func isInterrupted(err error) bool { return errors.Is(err, unix.EINTR) }
