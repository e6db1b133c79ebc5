package progcost

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/program/lines"
	"github.com/unthunk/unthunk/prog"
)

// Redirected is the verdict XDP_REDIRECT.
const Redirected = 4

// Unknown is the destination of a packet that goes elsewhere from run to run, or from load to load.
const Unknown = "?"

// Redirects tells whether packets come out of a program as redirects.
func (raw *Raw) Redirects() bool {
	for _, clean := range raw.Clean {
		for _, o := range clean.Outcomes {
			if o.Verdict == Redirected {
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

// NotedTwice is what run says of two loads of a copy that notes redirects, and [Unknown] of packets in which they do not agree: what a
// load draws at random is no other behavior.
func NotedTwice(
	ctx context.Context, t program.Target, o program.Options, run func(noted *program.Opened) ([]string, error),
) ([]string, error) {
	var both [2][]string
	for i := range both {
		noted, err := OpenNoted(ctx, t, o)
		if err != nil {
			return nil, err
		}
		both[i], err = run(noted)
		if err := errors.Join(err, noted.Close()); err != nil {
			return nil, err
		}
	}
	for i, to := range both[0] {
		if to != both[1][i] {
			both[0][i] = Unknown
		}
	}
	return both[0], nil
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

// destinationPasses is how often each packet runs. One that goes to one of two devices at random must not be sent to the same in all
// passes but the first of both loads of a program, nor to the other in all of another program: that is one packet of 5 × 10^11.
const destinationPasses = 11

// DestinationsHere is [Destinations] on the calling thread. byEntry says that entries of maps are told apart, whatever device they
// hold: in a guest all have the loopback.
func DestinationsHere(ctx context.Context, packets *prog.Packets, opts prog.Options, o *program.Opened, byEntry bool) ([]string, error) {
	p := places{of: o, noted: true, byEntry: byEntry, known: make(map[uint32]place)}
	defer p.close()
	to := make([]string, len(packets.Frames))
	err := p.run(ctx, packets.Frames, opts, destinationPasses, func(pass, i int, _ replay.Output, now string) {
		if pass > 1 && now != to[i] {
			now = Unknown
		}
		to[i] = now
	})
	return to, err
}

// run runs frames in passes on the calling thread. took gets the pass, the frame's index, what came out of it, and where it was
// redirected to: empty where it was not, and where the program does not note it.
func (p *places) run(
	ctx context.Context, frames [][]byte, opts prog.Options, passes int, took func(pass, frame int, out replay.Output, to string),
) error {
	for pass := range passes {
		for i, frame := range frames {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			out, err := replay.TestRunOnce(ctx, p.of.Program, replay.Input{Data: frame, Metadata: opts.Metadata, Device: opts.Device,
				Queue: opts.Queue, FirstBuffer: opts.FirstBuffer})
			if err != nil {
				return err
			}
			to := ""
			if p.noted { // also of a packet that is not redirected, so that the next has its own
				last, err := lines.LastRedirect(p.of.Maps)
				if err != nil {
					return err
				}
				if out.Verdict == Redirected && last != nil {
					to = p.destination(last)
				}
			}
			took(pass, i, out, to)
		}
	}
	return nil
}

// places are the maps that redirects of a program go by.
type places struct {
	of      *program.Opened
	noted   bool // of is one of [OpenNoted]
	byEntry bool
	known   map[uint32]place // by the map's id
	opened  []*ebpf.Map
}

// place is a map with its name; the zero value is one that is not found.
type place struct {
	name string
	*ebpf.Map
}

func (p *places) close() {
	for _, m := range p.opened {
		m.Close()
	}
}

// destination names where a redirect leads. Two entries with the same device lead to the same place.
func (p *places) destination(r *lines.Redirect) string {
	if r.Map == 0 {
		return fmt.Sprintf("device %d", r.To)
	}
	by, known := p.known[r.Map]
	if !known {
		by = p.find(ebpf.MapID(r.Map))
		p.known[r.Map] = by
	}
	switch {
	case by.Map == nil:
		return Unknown
	case r.ButIngress:
		return "all of " + by.name + " but the ingress"
	case r.All:
		return "all of " + by.name
	}
	switch kind := by.Type(); {
	case kind == ebpf.CPUMap:
		return fmt.Sprintf("CPU %d", r.To)
	case !p.byEntry && (kind == ebpf.DevMap || kind == ebpf.DevMapHash):
		if value, err := by.LookupBytes(r.To); err == nil && len(value) >= 4 {
			return fmt.Sprintf("device %d", binary.NativeEndian.Uint32(value))
		}
	}
	return fmt.Sprintf("entry %d of %s", r.To, by.name)
}

// find is the map of an id: one of the object's, or one in a map of maps, whose name is then that map's and the first key that has it.
func (p *places) find(id ebpf.MapID) (found place) {
	for name, m := range p.of.Maps {
		if info, err := m.Info(); err == nil {
			if is, ok := info.ID(); ok && is == id {
				return place{name, m}
			}
		}
	}
	for outer, m := range p.of.Maps {
		if m.Type() != ebpf.ArrayOfMaps && m.Type() != ebpf.HashOfMaps {
			continue
		}
		var key []byte
		var inner ebpf.MapID
		for entries := m.Iterate(); entries.Next(&key, &inner); {
			if inner != id {
				continue
			}
			name := fmt.Sprintf("%s[0x%x]", outer, key)
			if len(key) == 4 {
				name = fmt.Sprintf("%s[%d]", outer, binary.NativeEndian.Uint32(key))
			}
			if found.name == "" || name < found.name {
				found.name = name
			}
		}
	}
	if found.name == "" {
		return place{}
	}
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return place{}
	}
	p.opened = append(p.opened, m)
	found.Map = m
	return found
}
