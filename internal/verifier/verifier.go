// Package verifier loads BPF objects that others made, in bounded memory: the verifier's log of a small one that it refuses
// can have 1 GiB.
package verifier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/memory"
)

const (
	// mostLog bounds the verifier's log of a program, in bytes, as it is estimated: read, and cut into lines, it takes
	// two to three times as much.
	mostLog = 128 << 20
	// eachInstruction and eachRegister are about what the log has at most of an instruction that was looked at, and of a
	// register, or a slot of the stack, of the state before it. The state is there for one in two at most: behind a branch.
	eachInstruction, eachRegister, registers = 256, 128, 11
)

// Load loads an object that others made, as [ebpf.NewCollectionWithOptions] does. That grows its buffer until
// it has all that the verifier says about a program that is refused, which is up to 1 GiB of a small object. Here a
// program that is refused is loaded once more for the verifier's last words and its figures (BPF_LOG_STATS, Linux 5.2),
// and only when whole is set, and the figures say that its log fits into 128 MiB, or an eighth of the memory, once more
// for all of it. Of a longer log the error has the last words, and a line before them that says so. A program that keeps the
// kernel, deaf to signals, for long, by its calls or as it is rewritten, is refused before.
func Load(spec *ebpf.CollectionSpec, o ebpf.CollectionOptions, whole bool) (*ebpf.Collection, error) {
	if err := cmp.Or(checkCalls(spec), checkRewrite(spec)); err != nil {
		return nil, err
	}
	o.Programs.LogDisabled = true
	c, err := load(spec, o)
	if err = explained(err); err == nil {
		return c, nil
	}
	if _, ok := errors.AsType[*ebpf.VerifierError](err); !ok {
		return c, err
	}
	o.Programs.LogDisabled = false
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		one := spec.Copy()
		maps.DeleteFunc(one.Programs, func(n string, _ *ebpf.ProgramSpec) bool { return n != name })
		for _, m := range one.Maps {
			if m.Type == ebpf.ProgramArray {
				m.Contents = nil // the others are not there
			}
		}
		o.Programs.LogLevel = ebpf.LogLevelStats
		refused := try(one, o)
		short, ok := errors.AsType[*ebpf.VerifierError](refused)
		if !ok {
			continue // it is not the one
		}
		if !whole {
			for len(short.Log) > 1 && Figure(short.Log[len(short.Log)-1]) { // an error has the last line
				short.Log = short.Log[:len(short.Log)-1]
			}
			return nil, fmt.Errorf("program %s: %w", name, short)
		}
		size, limit := logSize(one.Programs[name], short.Log), min(mostLog, memory.Limit()/8)
		if size > limit {
			short.Log = append([]string{fmt.Sprintf("(all that the verifier says may be %d MiB: what follows is its end)", size>>20)},
				short.Log...)
			return nil, refused
		}
		o.Programs.LogLevel = ebpf.LogLevelBranch
		if all := try(one, o); all != nil {
			return nil, all
		}
		return nil, refused
	}
	return nil, err
}

// explained is err; where the kernel says EFAULT, its text is not about options of package ebpf.
func explained(err error) error {
	if errors.Is(err, unix.EFAULT) {
		return fmt.Errorf("load program: %w: the verifier came upon a flaw of its own, of which dmesg tells", unix.EFAULT)
	}
	return err
}

// LoadContext is [Load] that ends with ctx: see [Await].
func LoadContext(ctx context.Context, spec *ebpf.CollectionSpec, o ebpf.CollectionOptions, whole bool) (*ebpf.Collection, error) {
	l, err := Await(ctx, func() (loaded, error) {
		c, err := Load(spec, o, whole)
		return loaded{c}, err
	})
	return l.Collection, err
}

// loaded is an [io.Closer].
type loaded struct{ *ebpf.Collection }

func (l loaded) Close() error {
	l.Collection.Close()
	return nil
}

// Await returns what load does, or the error of ctx soon after that ends: the verifier takes seconds for a large program, and
// its system call cannot be left. What load returns then is closed.
func Await[T io.Closer](ctx context.Context, load func() (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	type result struct {
		loaded T
		err    error
	}
	done, gone := make(chan result), make(chan struct{})
	go func() {
		loaded, err := load()
		select {
		case done <- result{loaded, err}:
		case <-gone:
			if err == nil {
				_ = loaded.Close() // nobody wants it any more
			}
		}
	}()
	select {
	case r := <-done:
		return r.loaded, r.err
	case <-ctx.Done():
		close(gone)
		return none, ctx.Err()
	}
}

// load is [ebpf.NewCollectionWithOptions], which changes the map of replacements.
func load(spec *ebpf.CollectionSpec, o ebpf.CollectionOptions) (*ebpf.Collection, error) {
	o.MapReplacements = maps.Clone(o.MapReplacements)
	return ebpf.NewCollectionWithOptions(spec, o)
}

// try says why a specification cannot be loaded; nil when it can.
func try(spec *ebpf.CollectionSpec, o ebpf.CollectionOptions) error {
	c, err := load(spec, o)
	if err == nil {
		c.Close()
	}
	return err
}

// The verifier's figures, behind what it says of the program.
var (
	processed  = regexp.MustCompile(`^processed (\d+) insns `)
	stackDepth = regexp.MustCompile(`^stack depth ([\d+]+)`)
)

// Figure tells whether a line of the verifier's log is empty or has figures alone, as those at its end.
func Figure(line string) bool {
	return line == "" || slices.ContainsFunc([]string{"processed ", "verification time", "stack depth", "max_states"},
		func(start string) bool { return strings.HasPrefix(line, start) })
}

// logSize is about how long the log of a program is at most, in bytes, by the verifier's figures. It is 0 of one that
// it refused before it looked at its instructions one by one.
func logSize(p *ebpf.ProgramSpec, figures []string) uint64 {
	var looked, slots uint64
	for _, line := range figures {
		if m := processed.FindStringSubmatch(line); m != nil {
			looked, _ = strconv.ParseUint(m[1], 10, 32)
		}
		if m := stackDepth.FindStringSubmatch(line); m != nil {
			for depth := range strings.SplitSeq(m[1], "+") {
				n, _ := strconv.ParseUint(depth, 10, 16)
				slots = max(slots, (n+7)/8)
			}
		}
	}
	return looked * (eachInstruction + longestLine(p.Instructions) + eachRegister*(registers+slots))
}

// longestLine is the length of the longest source line, in bytes: the log has it before its instructions.
func longestLine(ins asm.Instructions) (longest uint64) {
	for i := range ins {
		source := ins[i].Source()
		if source == nil {
			continue
		}
		n := len(source.String())
		if line, ok := source.(*btf.Line); ok {
			n += len(line.FileName())
		}
		longest = max(longest, uint64(n))
	}
	return longest
}
