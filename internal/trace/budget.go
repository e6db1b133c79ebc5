package trace

import (
	"fmt"
	"sync/atomic"
)

// Budget is what logs that are read at the same time, and what is kept of them, may take together.
type Budget struct {
	most  int64
	taken atomic.Int64
}

// NewBudget is one of most bytes.
func NewBudget(most int) *Budget { return &Budget{most: int64(most)} }

// Take takes bytes, or none where there are not as many left, which is an error.
func (b *Budget) Take(size int) error {
	if b.taken.Add(int64(size)) > b.most {
		b.Give(size)
		return fmt.Errorf("more than %d MiB of traces at a time", b.most>>20)
	}
	return nil
}

// Give gives back bytes that were taken.
func (b *Budget) Give(size int) { b.taken.Add(-int64(size)) }

// Taken is how many bytes are taken.
func (b *Budget) Taken() int { return int(b.taken.Load()) }
