package kernel

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/unthunk/unthunk/branch"
)

// Totals are the branches of a whole kernel.
type Totals struct {
	// Functions is how many were read, Size how many bytes the kernel's text has.
	Functions int
	Size      uint64
	// Branches is how many there are of a class.
	Branches map[branch.Class]int
}

// textPiece is how much of the text one CPU reads at a time, in bytes.
const textPiece = 256 << 10

// Totals counts the branches between _stext and _etext on all CPUs: modules and BPF
// programs are not in it.
func (k *Kernel) Totals(ctx context.Context) (*Totals, error) {
	start, end, err := k.textBounds()
	if err != nil {
		return nil, err
	}
	var (
		total = &Totals{Size: end - start, Branches: make(map[branch.Class]int)}
		mu    sync.Mutex
		group sync.WaitGroup
		errs  []error
		next  atomic.Uint64 // piece
	)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			own := k.newCounter()
			var err error
			for err == nil {
				from := start + (next.Add(1)-1)*textPiece
				if from >= end {
					break
				}
				err = errors.Join(ctx.Err(), own.count(k.functionEnd(from, start), k.functionEnd(min(from+textPiece, end), start)))
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			total.Functions += own.functions
			for class, n := range own.branches {
				total.Branches[class] += n
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("count branches: %w", err)
	}
	return total, nil
}

// functionEnd is addr, or the end of the function that addr lies inside of. It cuts the
// text, which begins at start, between functions.
func (k *Kernel) functionEnd(addr, start uint64) uint64 {
	if f, off, ok := k.Symbols.Find(addr); ok && off > 0 && f.Addr >= start {
		return f.Addr + f.Size
	}
	return addr
}

// EachBranch yields the calls, jumps and returns of the function at addr, one at a time and in memory that the next one
// takes.
type EachBranch func(code []byte, addr uint64) iter.Seq[*branch.Branch]

// Classifier is [Kernel.Branches] for many functions: it reads each thunk once. It is not safe for concurrent use.
func (k *Kernel) Classifier() EachBranch {
	if k.Arch == "arm64" {
		return k.Branches
	}
	return branch.NewClassifier(k.Symbols.Starts, nil, k.Follow).EachBranch
}

// counter counts for one CPU.
type counter struct {
	kernel    *Kernel
	classify  EachBranch
	functions int
	branches  map[branch.Class]int
	text      []byte // of a piece, taken again for the next
}

func (k *Kernel) newCounter() *counter {
	return &counter{kernel: k, classify: k.Classifier(), branches: make(map[branch.Class]int)}
}

// count counts the functions from from to end.
func (c *counter) count(from, end uint64) error {
	return c.each(from, end, func(b *branch.Branch) { c.branches[b.Class]++ })
}

// each yields the branches of the functions from from to end, in memory that the next one takes.
func (c *counter) each(from, end uint64, yield func(*branch.Branch)) error {
	if end <= from {
		return nil
	}
	if size := int(end - from); size <= cap(c.text) {
		c.text = c.text[:size]
	} else {
		c.text = make([]byte, size)
	}
	if err := c.kernel.Text.ReadAddr(c.text, from); err != nil {
		return err
	}
	for addr := from; addr < end; {
		f, off, ok := c.kernel.Symbols.Find(addr)
		next := f.Addr + f.Size
		if !ok || off != 0 || next <= addr || next > end {
			addr++
			continue
		}
		c.functions++
		code := c.text[addr-from : next-from]
		if c.kernel.Arch == "arm64" {
			code = withoutOps(code)
		}
		for b := range c.classify(code, addr) {
			yield(b)
		}
		addr = next
	}
	return nil
}
