package watch

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
	"github.com/unthunk/unthunk/internal/testutil/verify"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// loaded loads a sample program, the program loop with so many turns.
func loaded(t *testing.T, name string, turns uint32) *ebpf.Program {
	t.Helper()
	spec, err := sample.Spec()
	if err != nil {
		t.Fatal(err)
	}
	if err := spec.Variables[sample.Turns].Set(turns); err != nil {
		t.Fatal(err)
	}
	coll, err := sample.LoadOf(spec, name)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return coll.Programs[name]
}

// bench is a namespace with a pair of veths, of which "in" runs the program that is watched.
type bench struct {
	lab     *netlab.Namespace
	in, out netlab.Device
}

func newBench(t *testing.T) bench {
	t.Helper()
	lab := veth.Namespace(t)
	in, out := veth.Pair(t, lab, "in", "out")
	return bench{lab, in, out}
}

// watch watches a target under a flood from the device's peer, and returns the record.
func (b bench) watch(t *testing.T, target string, plan Plan) *record.ProgWatch {
	t.Helper()
	stop := flood.Start(t, b.lab, b.out.Index)
	defer stop()
	doc, err := b.quiet(t, target, plan)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	return doc
}

// quiet is watch without a flood.
func (b bench) quiet(t *testing.T, target string, plan Plan) (doc *record.ProgWatch, err error) {
	t.Helper()
	err = b.lab.Do(func() (err error) {
		if plan.Target, err = program.Parse(target); err != nil {
			return err
		}
		w, err := Open(t.Context(), plan)
		if err != nil {
			return err
		}
		defer w.Close()
		result, err := w.Run(t.Context(), nil)
		if err == nil {
			doc = result.Record(target)
		}
		return err
	})
	return doc, err
}

// watchFor watches a program at work, flooded by a packet socket, and returns the record.
func watchFor(t *testing.T, p *ebpf.Program, plan Plan) *record.ProgWatch {
	t.Helper()
	b := newBench(t)
	if err := b.in.Attach(p, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	return b.watch(t, "dev:in", plan)
}

// What samples say of a program is what the kernel's own test run says of it.
func TestVerifyProgram(t *testing.T) {
	testutil.Root(t)
	for _, busy := range []bool{false, true} {
		t.Run(map[bool]string{false: "quiet", true: "busy"}[busy], func(t *testing.T) { verifyProgram(t, busy) })
	}
}

// verifyProgram is that on a quiet machine, or beside a busy loop on each CPU.
func verifyProgram(t *testing.T, busy bool) {
	verify.Run(t, verify.Check{
		Claim:      "a loop at work takes what the kernel's test run says, within 10 %" + map[bool]string{true: ", beside busy loops"}[busy],
		Disturbing: busy,
		Measure: func(t *testing.T, short bool) verify.Finding {
			plan := Plan{Rate: 4000, Duration: 20 * time.Second}
			if short {
				plan.Duration = 2 * time.Second
			}
			p := loaded(t, "loop", 200)
			frame := veth.Frame(t, 60)
			run := func() float64 {
				_, took, err := p.Benchmark(frame, 500_000, nil)
				if err != nil {
					t.Fatal(err)
				}
				return float64(took)
			}
			before := run()
			if busy {
				defer spinning()()
			}
			doc := watchFor(t, p, plan)
			want := (before + run()) / 2
			row := doc.Row("program")
			if row.Value == nil {
				return verify.Finding{Unknown: row.Refused}
			}
			got := row.Value.Median
			return verify.Finding{
				Figure: fmt.Sprintf("%.1f ns a packet [%.1f, %.1f] at work, %.1f in the test run", got, row.Value.Low, row.Value.High, want),
				Holds:  math.Abs(got-want) <= 0.1*want,
			}
		},
	})
}

// spinning keeps the CPUs busy until it is told to stop.
func spinning() (stop func()) {
	var done atomic.Bool
	var wait sync.WaitGroup
	for range runtime.NumCPU() {
		wait.Go(func() {
			for !done.Load() {
			}
		})
	}
	return func() { done.Store(true); wait.Wait() }
}

// What sampling is said to take is what a loop of fixed work loses to it.
func TestVerifyCost(t *testing.T) {
	testutil.Root(t)
	verify.Run(t, verify.Check{
		Claim: "a loop loses to sampling what a sample is said to take, within 40 %",
		CPU:   1,
		Measure: func(t *testing.T, short bool) verify.Finding {
			const rate = 4000
			turns := 30
			if short {
				turns = 4
			}
			p, err := measurePrice(t.Context(), []int{1, 0})
			if err != nil {
				testutil.SkipMissing(t, err)
				return verify.Finding{Unknown: err.Error()}
			}
			s, err := perf.NewSampler(perf.Clock, 1, rate)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var with, without []float64
			var taken, frames float64
			for range turns {
				without = append(without, looped(t, 1))
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				with = append(with, looped(t, 1))
				if err := s.Stop(); err != nil {
					t.Fatal(err)
				}
				s.Read(func(sample *perf.Sample) { taken, frames = taken+1, frames+float64(len(sample.Chain)) })
			}
			lost := 1 - slices.Max(with)/slices.Max(without)
			said := p.of(uint64(taken), frames) / (float64(turns) * float64(window))
			return verify.Finding{
				Figure: fmt.Sprintf("%.2f %% lost at %d Hz, %.2f %% said", 100*lost, rate, 100*said),
				Holds:  math.Abs(lost-said) <= 0.4*said,
			}
		},
	})
}

// window is how long one stretch of the loop is.
const window = 100 * time.Millisecond

// looped is how often a CPU sends a byte to itself in a window.
func looped(t *testing.T, cpu int) (n float64) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { unix.Close(pair[0]); unix.Close(pair[1]) }()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &old)
	var b [1]byte
	for end := time.Now().Add(window); time.Now().Before(end); n++ {
		_, _ = unix.Write(pair[0], b[:])
		_, _ = unix.Read(pair[1], b[:])
	}
	return n
}
