package progcode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/kernel"
)

// Add adds the code of a program that runs as a part of this one: of a libxdp dispatcher,
// in place of one of its functions. Its functions follow those that are there; a map that
// both use is one.
func (c *Code) Add(part *Code) {
	first := len(c.Functions)
	c.Functions = append(c.Functions, part.Functions...)
	c.Programs += part.Programs
	c.Xlated += part.Xlated
	c.Native += part.Native
	c.Unpaired += part.Unpaired
	if c.Unseen == "" {
		c.Unseen = part.Unseen
	}
	if c.Hidden == "" {
		c.Hidden = part.Hidden
	}
	for thunk, n := range part.Returns {
		c.Returns[thunk] += n
	}
	moved := make([]int, len(part.Maps)) // where each map of the part is now
	for i, m := range part.Maps {
		at := slices.IndexFunc(c.Maps, func(o Map) bool { return o.ID == m.ID && m.ID != 0 })
		if at < 0 {
			at = len(c.Maps)
			c.Maps = append(c.Maps, m)
		}
		moved[i] = at
	}
	for _, s := range part.Sites {
		s.Function += first
		s.Maps, s.Inner = places(s.Maps, moved), places(s.Inner, moved)
		c.Sites = append(c.Sites, s)
	}
}

// places are where the numbers of a list are now.
func places(list, moved []int) (out []int) {
	for _, n := range list {
		out = append(out, moved[n])
	}
	return out
}

// AddID is [Code.Add] of a loaded program. One that is gone meanwhile is an error that wraps
// fs.ErrNotExist.
func (c *Code) AddID(id ebpf.ProgramID) error {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Errorf("read program %d: %w", id, err)
	}
	defer p.Close()
	part, err := Read(c.kernel, p)
	if err != nil {
		return err
	}
	c.Add(part)
	return nil
}

// maxFollowed bounds how many programs [Code.Follow] adds.
const maxFollowed = 128

// Follow adds the programs that tail calls may jump to now, and those that these may jump to.
// It returns how many it left out for their number.
func (c *Code) Follow(ctx context.Context) (left int, err error) {
	seen := map[ebpf.ProgramID]bool{c.ID: true}
	for i := 0; i < len(c.Maps); i++ { // those that are added have tables too
		for _, id := range c.Maps[i].targets {
			switch {
			case seen[id]:
			case len(seen) > maxFollowed:
				left++
			default:
				if err = c.AddID(id); errors.Is(err, kernel.ErrTooLarge) {
					left++
					err = nil
				}
				if err = cmp.Or(ctx.Err(), err); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return left, err
				}
			}
			seen[id] = true
		}
	}
	return left, nil
}
