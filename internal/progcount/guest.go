package progcount

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/prog"
)

// Counted is what a guest counted. All lists are by packet, in the order of the job.
type Counted struct {
	// Refused says why nothing was counted; Log is what the verifier said of it.
	Refused string   `json:"refused,omitempty"`
	Log     []string `json:"log,omitempty"`
	// Tag is the hash of the program's instructions, JitedBytes the size of its machine code, Code how many instructions
	// that is.
	Tag        string `json:"tag"`
	JitedBytes uint32 `json:"jited-bytes"`
	Code       int    `json:"code"`
	// Instructions are those that the program takes a packet more than one that only passes: what most passes agree on.
	Instructions []int64 `json:"instructions"`
	// Varies are the packets whose passes do not agree; their number is the median.
	Varies []int `json:"varies,omitempty"`
	// Wrong are packets that came out otherwise than when they were run once, and in how many of Passes.
	Wrong  map[int]int `json:"wrong,omitempty"`
	Passes int         `json:"passes"`
	// First says what the first one was.
	First string `json:"first,omitempty"`
	// Verdicts, Lengths and Hashes are what comes out of a packet; a hash is 0 where bytes differ from run to run.
	Verdicts []uint32 `json:"verdicts"`
	Lengths  []int    `json:"lengths"`
	Hashes   []uint64 `json:"hashes"`
	// Learned, Unsteady and Varying are as of [prog.Clean].
	Learned  int `json:"learned"`
	Unsteady int `json:"unsteady"`
	Varying  int `json:"varying"`
	// Warnings are a sentence each.
	Warnings []string `json:"warnings,omitempty"`
}

// passes over the packets: a timer's tick is in few runs, and not in the same of most passes.
const passes = 7

// maxLog is how many of the last lines of the verifier are kept.
const maxLog = 400

// InGuest counts in the guest that it runs in, what a [Job] has put there. Its clock must count instructions. A program
// that cannot be loaded or replayed is no error, but Refused. Requires at least Linux 5.18.
func InGuest(ctx context.Context) (*Counted, error) {
	g, packets, err := readJob()
	if err != nil {
		return nil, err
	}
	target, err := program.Parse(objectFile + ":" + g.Name)
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread() // the replay is on one thread
	defer runtime.UnlockOSThread()
	c := new(Counted)
	opened, err := target.Open(ctx, g.Options)
	if refused, ok := errors.AsType[*program.LoadError](err); ok {
		refused.Program = g.Name
		c.Refused, c.Log = refused.Error(), refused.Log[max(0, len(refused.Log)-maxLog):]
		return c, nil
	}
	if err != nil {
		c.Refused = err.Error()
		return c, nil
	}
	defer opened.Close()
	c.Warnings = opened.Warnings
	for _, copied := range opened.Copies {
		if copied.Why != "" {
			c.Warnings = append(c.Warnings, fmt.Sprintf("map %s is not copied whole: %s", copied.Map, copied.Why))
		}
	}
	if err := c.identify(opened); err != nil {
		return nil, err
	}
	replay, err := prog.New(ctx, packets, prog.Options{Metadata: g.Metadata}, progcost.Replayable(opened))
	if err != nil {
		c.Refused = err.Error()
		return c, nil
	}
	defer replay.Close()
	c.outcomes(replay.Clean()[0])
	singles, err := replay.Singles(ctx, 0, passes)
	if err != nil {
		return nil, err
	}
	return c, c.count(singles)
}

func (c *Counted) identify(opened *program.Opened) error {
	id, err := progcost.Identify(opened)
	if err != nil {
		return err
	}
	c.Tag, c.JitedBytes, c.Code = id.Tag, id.JitedBytes, id.Instructions
	return nil
}

func (c *Counted) outcomes(clean prog.Clean) {
	c.Learned, c.Unsteady, c.Varying = clean.Learned, clean.Unsteady, clean.Varying
	for _, o := range clean.Outcomes {
		c.Verdicts, c.Lengths, c.Hashes = append(c.Verdicts, o.Verdict), append(c.Lengths, o.Length), append(c.Hashes, o.Hash)
	}
}

// count makes instructions of times. Runs of the null program all take the same way: where they do not take the same
// time the clock does not count instructions.
func (c *Counted) count(s prog.Singles) error {
	c.Passes, c.First, c.Wrong = passes, s.First, map[int]int{}
	null, agree := agreed(s.Null[0])
	for i, times := range s.Null {
		if n, ok := agreed(times); !ok || !agree || n != null {
			return fmt.Errorf("the guest's clock does not count instructions: a program that only passes took %d and %d", null, s.Null[i])
		}
	}
	for i, times := range s.Program {
		n, ok := agreed(times)
		if !ok {
			c.Varies = append(c.Varies, i)
		}
		c.Instructions = append(c.Instructions, int64(n)-int64(null))
		if s.Wrong[i] > 0 {
			c.Wrong[i] = s.Wrong[i]
		}
	}
	return nil
}

// agreed is the number that most of some are, or else their median.
func agreed(all []uint64) (n uint64, ok bool) {
	sorted := slices.Sorted(slices.Values(all))
	n = sorted[len(sorted)/2] // most are the same: then it is the one in the middle too
	same := 0
	for _, x := range all {
		if x == n {
			same++
		}
	}
	return n, same > len(all)/2
}
