package datapath

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Passage counts frames by how long they were with a worker: from when it began to take a batch from
// the rings until all of the batch was handed to ports and their drivers were told. [i] are those of
// less than 2^i ns, and not less than 2^(i-1); the last are all longer ones too. What frames waited
// for in a ring before, and what a device takes, is not in it. A frame that one worker hands to
// another is counted by both.
type Passage [PassageBuckets]uint64

// PassageBuckets is the length of a [Passage]: up to 34 s.
const PassageBuckets = 36

// Add sums those of workers.
func (p *Passage) Add(o Passage) {
	for i := range p {
		p[i] += o[i]
	}
}

// passage is a Passage that others read while it is written.
type passage [PassageBuckets]atomic.Uint64

// count counts the frames of a poll that took so long.
func (p *passage) count(frames int, took time.Duration) {
	i := min(bits.Len64(uint64(max(took, 0))), PassageBuckets-1)
	p[i].Add(uint64(frames))
}

// Passage is how long frames were with the worker while Run polled it.
func (d *Datapath) Passage() (p Passage) {
	for i := range p {
		p[i] = d.passage[i].Load()
	}
	return p
}

// Passage is that of all workers together.
func (w *Workers) Passage() (sum Passage) {
	for _, d := range w.datapaths {
		sum.Add(d.Passage())
	}
	return sum
}
