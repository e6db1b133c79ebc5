package datapath

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Passage is how long frames were with a worker: from when it began to take a batch from the rings
// until all of the batch was handed to ports and their drivers were told. What frames waited for in
// a ring before, and what a device takes, is not in it. A frame that one worker hands to another is
// counted by both.
type Passage struct {
	// Frames[i] took less than 2^i ns, and not less than 2^(i-1); the last are all longer ones too.
	Frames [PassageBuckets]uint64
	// Sum is what all frames took together.
	Sum time.Duration
}

// PassageBuckets is how many buckets a [Passage] has: up to 34 s.
const PassageBuckets = 36

// Add sums those of workers.
func (p *Passage) Add(o Passage) {
	for i := range p.Frames {
		p.Frames[i] += o.Frames[i]
	}
	p.Sum += o.Sum
}

// Less is what came since an earlier one.
func (p Passage) Less(earlier Passage) Passage {
	for i := range p.Frames {
		p.Frames[i] -= earlier.Frames[i]
	}
	p.Sum -= earlier.Sum
	return p
}

// Below is a time that this part of the frames, 0 to 1, took less than: the end of their bucket. It
// is 0 without frames.
func (p Passage) Below(part float64) time.Duration {
	var all, sum uint64
	for _, n := range p.Frames {
		all += n
	}
	for i, n := range p.Frames {
		if sum += n; n > 0 && float64(sum) >= part*float64(all) {
			return time.Duration(1) << i
		}
	}
	return 0
}

// passage is a Passage that others read while it is written.
type passage struct {
	frames [PassageBuckets]atomic.Uint64
	sum    atomic.Int64
}

// count counts the frames of a poll that took so long.
func (p *passage) count(frames int, took time.Duration) {
	took = max(took, 0)
	p.frames[min(bits.Len64(uint64(took)), PassageBuckets-1)].Add(uint64(frames))
	p.sum.Add(int64(frames) * int64(took))
}

// Passage is how long frames were with the worker while Run polled it.
func (d *Datapath) Passage() (p Passage) {
	for i := range p.Frames {
		p.Frames[i] = d.passage.frames[i].Load()
	}
	p.Sum = time.Duration(d.passage.sum.Load())
	return p
}

// Passage is that of all workers together.
func (w *Workers) Passage() (sum Passage) {
	for _, d := range w.datapaths {
		sum.Add(d.Passage())
	}
	return sum
}
