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
	// Verdicts, Lengths and Hashes are what comes out of a packet; a hash is 0 where bytes differ from run to run, or from load
	// to load.
	Verdicts []uint32 `json:"verdicts"`
	Lengths  []int    `json:"lengths"`
	Hashes   []uint64 `json:"hashes"`
	// Targets are where packets are redirected to, as of [progcost.Destinations]; none where no packet is redirected, and where that cannot
	// be seen: TargetsUnseen says why.
	Targets       []string `json:"targets,omitempty"`
	TargetsUnseen string   `json:"targets-unseen,omitempty"`
	// Learned, Unsteady and Varying are as of [prog.Clean].
	Learned  int `json:"learned"`
	Unsteady int `json:"unsteady"`
	Varying  int `json:"varying"`
	// Traced are runs of single packets that were traced from outside, the null program's first; none without a trace.
	// Stands is which of them each packet is like, from 1 on: in instructions, verdict and lengths; 0 for none.
	Traced []TracedRun `json:"traced,omitempty"`
	Stands []int       `json:"stands,omitempty"`
	// Warnings are a sentence each.
	Warnings []string `json:"warnings,omitempty"`
}

// TracedRun is a run of a packet.
type TracedRun struct {
	Packet int `json:"packet"`
	// Slot is the number of what was traced, Ns how long the run took between its stamps: in instructions.
	Slot int    `json:"slot"`
	Ns   uint64 `json:"ns"`
}

// Mark has what run does traced from outside, and returns the number of that slot.
type Mark func(run func() error) (slot int, err error)

// passes over the packets: a timer's tick is in few runs, and not in the same of most passes.
const passes = 7

// maxLog is how many of the last lines of the verifier are kept.
const maxLog = 400

// InGuest counts in the guest that it runs in, what a [Job] has put there. Its clock must count instructions. A program
// that cannot be loaded or replayed is no error, but Refused. With mark, which may be nil, runs are traced. Requires at least
// Linux 5.18.
func InGuest(ctx context.Context, mark Mark) (*Counted, error) {
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
	if text := opened.NowhereText(); text != "" {
		c.Warnings = append(c.Warnings, text)
	}
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
	alone, err := replay.Alone(0)
	if err != nil {
		return nil, err
	}
	defer alone.Close()
	singles, err := alone.Singles(ctx, passes)
	if err != nil {
		return nil, err
	}
	if err := c.count(singles); err != nil {
		return c, err
	}
	if mark != nil {
		null, _ := agreed(singles.Null[0])
		err := c.trace(ctx, packets, null, func(isNull bool, packet int) (slot int, ns uint64, err error) {
			slot, err = mark(func() error {
				ns, _, err = alone.Time(ctx, isNull, packet)
				return err
			})
			return slot, ns, err
		})
		if err != nil {
			return c, err
		}
	}
	if err := c.loadAgain(ctx, target, g, packets); err != nil {
		return c, err
	}
	if slices.Contains(c.Verdicts, progcost.Redirected) {
		if c.Targets, err = targets(ctx, target, g, packets); err != nil {
			c.TargetsUnseen = err.Error()
		}
	}
	return c, nil
}

// loadAgain loads the program once more, after all counting, and forgets the bytes of packets that come out of it otherwise:
// they hold what a program draws at random once and keeps in its maps, as a port of a NAT, which no two boots have alike.
func (c *Counted) loadAgain(ctx context.Context, target program.Target, g guestJob, packets *prog.Packets) error {
	opened, err := target.Open(ctx, g.Options)
	if err != nil {
		return err
	}
	defer opened.Close()
	replay, err := prog.New(ctx, packets, prog.Options{Metadata: g.Metadata}, progcost.Replayable(opened))
	if err != nil {
		return err
	}
	defer replay.Close()
	c.forget(replay.Clean()[0].Outcomes)
	return nil
}

// targets are where packets are redirected to.
func targets(ctx context.Context, target program.Target, g guestJob, packets *prog.Packets) ([]string, error) {
	return progcost.NotedTwice(ctx, target, g.Options, func(noted *program.Opened) ([]string, error) {
		return progcost.DestinationsHere(ctx, packets, prog.Options{Metadata: g.Metadata}, noted, true)
	})
}

// forget takes the hash of each packet that comes out otherwise.
func (c *Counted) forget(outcomes []prog.Outcome) {
	for i, o := range outcomes {
		if c.Hashes[i] != 0 && c.Hashes[i] != o.Hash {
			c.Hashes[i] = 0
			c.Varying++
		}
	}
}

// maxTraced is how many kinds of packets are traced: a run takes some hundredths of a second. tracedTries are how many
// runs of each: a tick of the timer may fall into one.
const maxTraced, tracedTries = 32, 8

// trace has a run of the null program traced, and one of a packet of each kind, those of most packets first.
func (c *Counted) trace(
	ctx context.Context, packets *prog.Packets, null uint64, run func(null bool, packet int) (slot int, ns uint64, err error),
) error {
	type kind struct {
		count            int64
		verdict          uint32
		length, original int
	}
	of, first := map[kind][]int{}, []kind{}
	for i, count := range c.Instructions {
		k := kind{count, c.Verdicts[i], c.Lengths[i], len(packets.Frames[i])}
		if of[k] == nil {
			first = append(first, k)
		}
		of[k] = append(of[k], i)
	}
	slices.SortStableFunc(first, func(a, b kind) int { return len(of[b]) - len(of[a]) })
	c.Stands = make([]int, len(c.Instructions))
	one := func(isNull bool, packet int, want uint64) error {
		for range tracedTries {
			slot, ns, err := run(isNull, packet)
			if err != nil || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			if ns == want {
				c.Traced = append(c.Traced, TracedRun{packet, slot, ns})
				return nil
			}
		}
		return nil
	}
	if err := one(true, 0, null); err != nil || len(c.Traced) == 0 {
		return err
	}
	for _, k := range first[:min(len(first), maxTraced)] {
		before := len(c.Traced)
		if err := one(false, of[k][0], uint64(int64(null)+k.count)); err != nil {
			return err
		}
		if len(c.Traced) > before {
			for _, i := range of[k] {
				c.Stands[i] = before
			}
		}
	}
	return nil
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
