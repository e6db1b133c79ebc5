package redirect

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/reference"
)

// PairReferences times fixed work on the CPU that handles most of a device's frames, beside its traffic. Where no
// frames come there is no such CPU, and no references.
type PairReferences struct{ watch *reference.Watch }

const (
	// arrivalTime is how long frames may take to show which CPU handles them.
	arrivalTime = 200 * time.Millisecond
	arrivalPoll = 10 * time.Millisecond
	// besideTraffic is between two samples: one takes 80 µs of the CPU, so 0.2 % of what it could do for frames.
	besideTraffic = 50 * time.Millisecond
)

// References prepares references once frames arrive. warning says why there are none though frames do.
func (p *AttachedPair) References(ctx context.Context) (r *PairReferences, warning string, err error) {
	before, err := p.Handled()
	if err != nil {
		return nil, "", err
	}
	for end := time.Now().Add(arrivalTime); time.Now().Before(end); {
		if err := pause(ctx, arrivalPoll); err != nil {
			return &PairReferences{}, "", nil // the run says that it was stopped
		}
		now, err := p.Handled()
		if err != nil {
			return nil, "", err
		}
		for cpu := range now {
			now[cpu] -= before[cpu]
		}
		most := slices.Max(now)
		if most == 0 {
			continue
		}
		watch, err := reference.OpenBeside(slices.Index(now, most))
		if err != nil { // such as a CPU that this process may not run on
			return &PairReferences{}, fmt.Sprintf("no references: %v", err), nil
		}
		return &PairReferences{watch}, "", nil
	}
	return &PairReferences{}, "", nil
}

// Begin begins the round of that number.
func (r *PairReferences) Begin(round int) {
	if r.watch != nil {
		r.watch.Begin(round)
	}
}

// Sample takes one sample, unless the last one is less than 50 ms old.
func (r *PairReferences) Sample() error {
	if r.watch == nil {
		return nil
	}
	return r.watch.SampleAfter(besideTraffic)
}

// pause waits for d, or until ctx ends, and takes samples meanwhile.
func (r *PairReferences) pause(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		if err := r.Sample(); err != nil {
			return err
		}
		if err := pause(ctx, min(time.Until(end), besideTraffic)); err != nil {
			return err
		}
	}
}

// End ends the round.
func (r *PairReferences) End() {
	if r.watch != nil {
		r.watch.End()
	}
}

// Record returns what was found, nil for no round.
func (r *PairReferences) Record() []record.Reference {
	if r.watch == nil {
		return nil
	}
	return r.watch.Record()
}

// Close gives back what [AttachedPair.References] took.
func (r *PairReferences) Close() error {
	if r.watch == nil {
		return nil
	}
	return r.watch.Close()
}
