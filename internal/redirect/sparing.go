package redirect

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/netlab"
)

// SparingSlots is how many entries of the BPF dispatcher a sparing run takes: generator, program under test, sink, and the
// program that drops.
const SparingSlots = 4

// errSparing refuses plans that a sparing run cannot measure.
var errSparing = errors.New("a sparing run measures redirect-map in native mode on one core, and nothing else")

// validSparing says whether a sparing run can measure the plan.
func (p Plan) validSparing() error {
	p = p.withDefaults()
	plain := len(p.Scenarios) == 1 && p.Scenarios[0] == Map && len(p.Operations) == 1 && p.Operations[0] == (Operation{})
	if p.Target != nil || !plain || p.Mode != Native || p.Layout != OneCore {
		return errSparing
	}
	return nil
}

// buildTwins makes the chain of a row and the same without the redirect, of one set of programs: two chains take six
// entries of the BPF dispatcher, and twins [SparingSlots]. The generator sends to one of them at a time.
func (r *run) buildTwins(ctx context.Context, namespace *netlab.Namespace, b *built) error {
	spec := r.plan.Rows()[0].ChainSpec
	with, err := build(ctx, namespace, 0, spec, r.cpus, twin)
	if err != nil {
		return err
	}
	b.chains = append(b.chains, with)
	without := &Chain{
		spec: spec.without(), cpus: r.cpus, namespace: namespace, number: 1, counted: true,
		patience: patience{most: patientPolls}, programs: with.programs, twin: true,
	}
	if without.generator, without.tested, err = without.vethPair(0, "g"); err != nil {
		return fmt.Errorf("build chain %s: %w", without.spec.Scenario, err)
	}
	if err := without.tested.Attach(with.programs.Drop, link.XDPDriverMode); err != nil {
		return fmt.Errorf("build chain %s: %w", without.spec.Scenario, err)
	}
	if err := b.measure(map[ChainSpec]*Chain{with.spec: with, without.spec: without}, r.raw.Rows); err != nil {
		return err
	}
	if r.plan.Built == nil {
		return nil
	}
	p := with.programs
	return r.plan.Built([]*ebpf.Program{p.Generate, p.Tested, p.Sink, p.Drop})
}

// sendHere makes the generator send to this chain, and not to its twin.
func (c *Chain) sendHere() error {
	return c.namespace.Do(func() error { return c.programs.SendTo(c.generator.Index) })
}
