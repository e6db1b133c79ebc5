package prog

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/verifier"
)

// B is a benchmark: what of [testing.B] is used.
type B interface {
	Context() context.Context
	Fatal(args ...any)
	Helper()
	Loop() bool
	ReportMetric(n float64, unit string)
}

// benchRound is how long a round of a benchmark takes.
const benchRound = 110 * time.Millisecond

// Bench reports what the XDP program of a specification costs a packet: ns/packet, and with six rounds or more
// ±ns/packet, half the width of its 95 % interval. name is the program's when the specification has several. It is
// loaded with maps of its own, nothing is pinned, and the specification stays as it is.
//
//	func BenchmarkBalancer(b *testing.B) {
//		spec, err := ebpf.LoadCollectionSpec("lb.o")
//		if err != nil {
//			b.Fatal(err)
//		}
//		packets, err := prog.MakePackets("udp4,tcp-syn4")
//		if err != nil {
//			b.Fatal(err)
//		}
//		prog.Bench(b, spec, packets, "balancer")
//	}
//
// Each turn of the benchmark's loop is a round of 110 ms, with the program loaded anew. The benchmark fails when the
// program cannot be replayed, and when its runs differ from a single run of the same packet: there is no number of a
// program that takes another way when it is repeated. It needs the rights of [New].
func Bench(b B, spec *ebpf.CollectionSpec, packets *Packets, name ...string) {
	b.Helper()
	spec = spec.Copy()
	main, err := choose(spec, name)
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	coll, err := verifier.Load(spec, ebpf.CollectionOptions{}, false)
	if err != nil {
		b.Fatal(fmt.Errorf("load %s: %w", main, err))
	}
	defer coll.Close()
	bench(b, packets, Program{Name: main, Loaded: coll.Programs[main], Reload: Reloader(spec, main, coll.Maps)})
}

// BenchProgram is [Bench] of a program that is loaded, with the maps that it has, which may change.
func BenchProgram(b B, program *ebpf.Program, packets *Packets) {
	b.Helper()
	bench(b, packets, Program{Name: "of the benchmark", Loaded: program})
}

// choose finds the program to measure.
func choose(spec *ebpf.CollectionSpec, name []string) (string, error) {
	var xdp []string
	for _, n := range slices.Sorted(maps.Keys(spec.Programs)) {
		if spec.Programs[n].Type == ebpf.XDP {
			xdp = append(xdp, n)
		}
	}
	switch {
	case len(name) == 1 && slices.Contains(xdp, name[0]):
		return name[0], nil
	case len(name) == 1:
		return "", fmt.Errorf("no XDP program %q: there are %s", name[0], strings.Join(xdp, ", "))
	case len(xdp) == 1:
		return xdp[0], nil
	case len(xdp) == 0:
		return "", fmt.Errorf("the specification has no XDP program")
	}
	return "", fmt.Errorf("the specification has several XDP programs, name one: %s", strings.Join(xdp, ", "))
}

// Reloader returns what loads a program of a specification once more, with the maps that it was loaded with: see
// [Program].
func Reloader(spec *ebpf.CollectionSpec, name string, with map[string]*ebpf.Map) func() (*ebpf.Program, error) {
	return func() (*ebpf.Program, error) {
		spec := spec.Copy()
		maps.DeleteFunc(spec.Programs, func(n string, _ *ebpf.ProgramSpec) bool { return n != name })
		for _, m := range spec.Maps {
			switch m.Type {
			case ebpf.ProgramArray, ebpf.ArrayOfMaps, ebpf.HashOfMaps:
				m.Contents = nil // its programs and maps are in it already, and are not loaded again
			}
		}
		coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
			MapReplacements: maps.Clone(with),
			Programs:        ebpf.ProgramOptions{LogDisabled: true}, // it was taken once; the log of a refusal may be 1 GiB
		})
		if err != nil {
			return nil, fmt.Errorf("load %s anew: %w", name, err)
		}
		defer coll.Close()
		return coll.DetachProgram(name), nil
	}
}

func bench(b B, packets *Packets, p Program) {
	b.Helper()
	defer pin(b)()
	r, err := New(b.Context(), packets, Options{}, p)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	all := Row{Name: "all"}
	for i := range packets.Frames {
		all.Packets = append(all.Packets, i)
	}
	if err := r.SetRows([]Row{all}); err != nil {
		b.Fatal(err)
	}
	checked, err := r.Check(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	refuse(b, p, checked[0][0])
	var costs []float64
	for b.Loop() {
		s, err := r.Round(b.Context(), benchRound)
		if err != nil {
			b.Fatal(err)
		}
		costs = append(costs, s[0].Cost[0])
	}
	refuse(b, p, r.Mismatches()[0][0])
	ns := stat.Location(costs, "ns")
	b.ReportMetric(0, "ns/op") // a round has no meaning
	b.ReportMetric(ns.Median, "ns/packet")
	if len(costs) >= stat.MinRounds {
		b.ReportMetric((ns.High-ns.Low)/2, "±ns/packet")
	}
}

// refuse fails the benchmark of a program whose runs differ from a single run.
func refuse(b B, p Program, m Mismatch) {
	b.Helper()
	if !m.Tolerable() {
		b.Fatal(fmt.Sprintf("program %s: %d of %d runs differ from a single run of their packet: %s", p.Name, m.Wrong(), m.Runs, m.First))
	}
}

// pin keeps the goroutine on a thread that stays on the last CPU that the process may run on, until what it returns is
// called.
func pin(b B) (unpin func()) {
	b.Helper()
	runtime.LockOSThread()
	var usable, last unix.CPUSet
	err := unix.SchedGetaffinity(0, &usable)
	for cpu := range len(usable) * 64 {
		if usable.IsSet(cpu) {
			last.Zero()
			last.Set(cpu)
		}
	}
	if err == nil {
		err = unix.SchedSetaffinity(0, &last)
	}
	if err != nil {
		b.Fatal(fmt.Errorf("pin thread: %w", err))
	}
	return func() {
		if unix.SchedSetaffinity(0, &usable) == nil {
			runtime.UnlockOSThread() // else the thread ends with the goroutine
		}
	}
}
