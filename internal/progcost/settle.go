package progcost

import (
	"cmp"
	"context"
	"strconv"

	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/prog"
)

// Loads is how often each program is loaded to tell one that makes something else of a packet each time from one that does so from
// time to time. With each load a packet runs in passes, the first of which counts for nothing, as the program's maps learn in it.
const (
	Loads      = 8
	loadPasses = 9
)

// maxSettled is how many packets run so often. What varies of others is not compared.
const maxSettled = 4096

// AlwaysSame and EachTime are what one of two programs does and the other does not: they stand in [record.BehaviorChange].
const (
	AlwaysSame = "always the same"
	EachTime   = "other each time"
)

// Seen is what came out of a packet in one run. To is where it was redirected to, empty where it was not, and where that is not seen.
type Seen struct {
	Verdict uint32
	Length  int
	Hash    uint64 // 0 for more than [prog.MaxFrame] bytes
	To      string
}

// Unsettled are the packets, by index, of which something varies in one of the two programs alone, or may: the first of them. What varies
// in both is not compared.
func (raw *Raw) Unsettled(twins [2]*prog.Clean, to [2][]string) (packets []int) {
	for i := range raw.Clean[0].Outcomes {
		old, is := steady(&raw.Clean[0], twins[0], i), steady(&raw.Clean[1], twins[1], i)
		_, unsteady := compared(old, is, to, i)
		one := (old.Hash == 0) != (is.Hash == 0) || known(to[0], i) != known(to[1], i)
		if unsteady && (old.Unsteady || is.Unsteady || one) && len(packets) < maxSettled {
			packets = append(packets, i)
		}
	}
	return packets
}

// Runs runs packets of a plan some times through one load of a program, and adds to what was seen of each. noted says that it is one of
// [OpenNoted].
func Runs(ctx context.Context, plan Plan, o *program.Opened, noted bool, packets []int, seen [][]Seen) error {
	cpu, err := plan.CPU.Pick()
	if err != nil {
		return err
	}
	return onCPU(cpu, plan.Apart, func() error { return runs(ctx, plan, o, noted, packets, seen) })
}

func runs(ctx context.Context, plan Plan, o *program.Opened, noted bool, packets []int, seen [][]Seen) error {
	p := places{of: o, noted: noted, known: make(map[uint32]place)}
	defer p.close()
	frames := make([][]byte, len(packets))
	for n, i := range packets {
		frames[n] = plan.Packets.Frames[i]
	}
	return p.run(ctx, frames, plan.Replay, loadPasses, func(pass, n int, out replay.Output, to string) {
		if pass == 0 {
			return
		}
		now := Seen{Verdict: out.Verdict, Length: len(out.Data), To: to}
		if now.Length <= prog.MaxFrame {
			now.Hash = replay.Hash(out.Data)
		}
		seen[n] = append(seen[n], now)
	})
}

// settled is what one of two programs always does to a packet and the other does not, of many runs of each; false where there is no such
// thing. A program that does the same nearly always may do so for chance: at most two of three runs of the other may come out alike. That
// two programs that do the same at random look so is one packet in 10^7.
func settled(seen [2][]Seen) (b record.BehaviorChange, changed bool) {
	for _, aspect := range []struct {
		what string
		of   func(Seen) string
	}{
		{"verdict", func(s Seen) string { return verdict(s.Verdict) }},
		{"length", func(s Seen) string { return strconv.Itoa(s.Length) }},
		{"target", func(s Seen) string { return cmp.Or(s.To, Unknown) }},
		{"bytes", func(s Seen) string { return strconv.FormatUint(s.Hash, 16) }},
	} {
		old, oldVaries := usual(seen[0], aspect.of)
		is, isVaries := usual(seen[1], aspect.of)
		b := record.BehaviorChange{What: aspect.what, Old: old, New: is}
		hidden := aspect.what == "target" && (hides(seen[0], aspect.of, Unknown) || hides(seen[1], aspect.of, Unknown)) ||
			aspect.what == "bytes" && (hides(seen[0], aspect.of, "0") || hides(seen[1], aspect.of, "0"))
		switch {
		case hidden, old == "" && is == "", old == "" && !oldVaries, is == "" && !isVaries, old == is:
			continue
		case aspect.what == "bytes" && old != "" && is != "":
			b.Old, b.New = "", ""
		case old == "":
			b.Old, b.New = EachTime, AlwaysSame
			if aspect.what != "bytes" {
				b.New = is
			}
		case is == "":
			b.Old, b.New = AlwaysSame, EachTime
			if aspect.what != "bytes" {
				b.Old = old
			}
		}
		return b, true
	}
	return b, false
}

// usual is what all runs agree in, empty where they do not; varies tells whether they differ in more than one of three.
func usual(seen []Seen, of func(Seen) string) (same string, varies bool) {
	count, most := make(map[string]int), 0
	for _, s := range seen {
		count[of(s)]++
		most = max(most, count[of(s)])
	}
	if len(count) == 1 {
		return of(seen[0]), false
	}
	return "", most*3 <= len(seen)*2
}

// hides tells whether a run has a value that stands for what is not known.
func hides(seen []Seen, of func(Seen) string, unknown string) bool {
	for _, s := range seen {
		if of(s) == unknown {
			return true
		}
	}
	return len(seen) == 0
}
