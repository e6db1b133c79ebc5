package redirect

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/program/lines"
	"github.com/unthunk/unthunk/internal/verifier"
)

// maxTailCalled is how many programs of tail-call tables are looked at.
const maxTailCalled = 64

// Programs returns the program under test and those that its tail-call tables hold, for the caller to close.
func (c *Chain) Programs() (all []*ebpf.Program, err error) {
	own, err := c.programs.Tested.Clone()
	if err != nil {
		return nil, fmt.Errorf("clone program: %w", err)
	}
	all = append(all, own)
	if c.spec.Target == nil {
		return all, nil
	}
	for _, m := range c.spec.Target.opened.Maps {
		if m.Type() != ebpf.ProgramArray {
			continue
		}
		var key, id uint32
		for it := m.Iterate(); it.Next(&key, &id) && len(all) < maxTailCalled; {
			// One that has gone meanwhile takes no time.
			if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id)); err == nil {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// LineRuns is how often a source line ran for a packet.
type LineRuns struct {
	File, Text string
	Line       int
	Runs       float64
}

// CountLines counts how often each source line of the target runs for a packet, by a copy with counters in it that is in a
// chain of its own for a slot: never the program that is timed. Tail-call tables of the copy are its own, the other maps
// are the target's.
func (t *Target) CountLines(ctx context.Context, bulk, cpu int) (runs []LineRuns, err error) {
	if t.opened.Spec == nil {
		return nil, errors.New("a loaded program cannot be copied: give its object file")
	}
	spec, counters, err := lines.Instrument(t.spec())
	if err != nil {
		return nil, err
	}
	maps := make(map[string]*ebpf.Map)
	for name, m := range t.opened.Maps {
		if m.Type() != ebpf.ProgramArray {
			maps[name] = m
		}
	}
	coll, err := verifier.LoadContext(ctx, spec, ebpf.CollectionOptions{MapReplacements: maps}, false)
	if err != nil {
		return nil, fmt.Errorf("load a copy of %s with counters: %w", t.Name, err)
	}
	defer coll.Close()
	namespace, err := netlab.New(cpu)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, namespace.Close()) }()
	counted := *t
	counted.instead = coll.Programs[t.opened.Name]
	c, err := BuildTarget(ctx, namespace, 0, &counted, false, cpu)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	m, err := c.Measure(ctx, bulk)
	if err != nil {
		return nil, err
	}
	before, err := counters.Read(coll.Maps[lines.MapName])
	if err != nil {
		return nil, err
	}
	if err := m.Slot(ctx); err != nil {
		return nil, err
	}
	after, err := counters.Read(coll.Maps[lines.MapName])
	if err != nil {
		return nil, err
	}
	if m.slots.Bad > 0 {
		return nil, m.counts.Disagree()
	}
	for i, n := range after {
		line := LineRuns{n.File, n.Text, int(n.Line), float64(n.Runs-before[i].Runs) / float64(m.counts.Sent)}
		// An inlined function is in several.
		at := slices.IndexFunc(runs, func(r LineRuns) bool { return r.File == line.File && r.Line == line.Line })
		if at >= 0 {
			runs[at].Runs += line.Runs
		} else {
			runs = append(runs, line)
		}
	}
	return runs, nil
}
