package prog_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/prog"
)

// encap is an object with one program, which pushes a header.
func encap() (*ebpf.CollectionSpec, error) {
	spec, err := sample.Spec()
	if err != nil {
		return nil, err
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{"encap": spec.Programs["encap"]}
	spec.Maps, spec.Variables = nil, nil
	return spec, nil
}

// Example is what a test of a load balancer has.
func Example() {
	_ = func(b *testing.B) {
		spec, err := ebpf.LoadCollectionSpec("lb.o")
		if err != nil {
			b.Fatal(err)
		}
		packets, err := prog.MakePackets("udp4,tcp-syn6,vlan-udp4:1500")
		if err != nil {
			b.Fatal(err)
		}
		prog.Bench(b, spec, packets)
	}
	packets, err := prog.MakePackets("udp4,tcp-syn6,vlan-udp4:1500")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, frame := range packets.Frames {
		fmt.Println(len(frame), prog.Flow(frame))
	}
	// Output:
	// 60 udp 192.0.2.1:40000 > 198.51.100.2:53
	// 74 tcp [2001:db8::1]:40000 > [2001:db8::2]:443
	// 1500 udp 192.0.2.1:40000 > 198.51.100.2:53
}

func BenchmarkEncap(b *testing.B) {
	testutil.Root(b)
	spec, err := encap()
	if err != nil {
		b.Fatal(err)
	}
	packets, err := prog.MakePackets("udp4,udp4:1500")
	if err != nil {
		b.Fatal(err)
	}
	prog.Bench(b, spec, packets)
}

// A benchmark reports ns/packet, and nothing of a round; of several rounds also the interval.
func TestBench(t *testing.T) {
	testutil.Root(t)
	spec, err := encap()
	if err != nil {
		t.Fatal(err)
	}
	packets, err := prog.MakePackets("udp4")
	if err != nil {
		t.Fatal(err)
	}
	result := testing.Benchmark(func(b *testing.B) { prog.Bench(b, spec, packets) })
	found := regexp.MustCompile(`^\s*\d+\s+([0-9.]+) ns/packet(?:\s+([0-9.]+) ±ns/packet)?$`).FindStringSubmatch(result.String())
	if found == nil {
		t.Fatalf("%q", result.String())
	}
	if ns, err := strconv.ParseFloat(found[1], 64); err != nil || ns < 4 || ns > 1000 {
		t.Errorf("%s ns (%v)", found[1], err)
	}
}

// A program for fragments is benchmarked on packets in them.
func TestBenchFragments(t *testing.T) {
	testutil.Root(t)
	spec, err := sample.Spec()
	if err != nil {
		t.Fatal(err)
	}
	packets, err := prog.MakePackets("udp4:9000")
	if err != nil {
		t.Fatal(err)
	}
	result := testing.Benchmark(func(b *testing.B) { prog.Bench(b, spec, packets, "lasttwo") })
	if !strings.Contains(result.String(), " ns/packet") {
		t.Errorf("%q", result.String())
	}
}

// fatal is a benchmark that keeps what it fails with.
type fatal struct {
	*testing.B
	said string
}

func (f *fatal) Fatal(args ...any) {
	f.said = fmt.Sprint(args...)
	f.FailNow()
}

// A program without a number fails the benchmark in one line.
func TestBenchRefuses(t *testing.T) {
	testutil.Root(t)
	packets, err := prog.MakePackets("udp4")
	if err != nil {
		t.Fatal(err)
	}
	random := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"random": {
		Name: "random", Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "GPL",
		Instructions: asm.Instructions{asm.FnGetPrandomU32.Call(), asm.And.Imm(asm.R0, 1), asm.Return()},
	}}}
	whole, err := sample.Spec()
	if err != nil {
		t.Fatal(err)
	}
	jumbo, err := prog.MakePackets("udp4:9000")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		spec  *ebpf.CollectionSpec
		named []string
		on    *prog.Packets
		want  string
	}{
		"random":    {random, nil, packets, "differ from a single run of their packet: packet 1: XDP_"},
		"several":   {whole, nil, packets, "the specification has several XDP programs, name one: each, encap"},
		"none":      {&ebpf.CollectionSpec{}, nil, packets, "the specification has no XDP program"},
		"another":   {random, []string{"x"}, packets, `no XDP program "x": there are random`},
		"fragments": {whole, []string{"ttl"}, jumbo, "packet 1 has 9000 bytes: a device gives fragments only to programs for them"},
		"releases":  {whole, []string{"snap"}, jumbo, "program snap cannot be replayed: it releases fragments"},
	} {
		var f fatal
		testing.Benchmark(func(b *testing.B) {
			f.B = b
			prog.Bench(&f, test.spec, test.on, test.named...)
		})
		if !strings.Contains(f.said, test.want) || strings.Contains(f.said, "\n") {
			t.Errorf("%s: %q, want %q", name, f.said, test.want)
		}
	}
}

// What the verifier says of a program that it refuses may be 1 GiB: a benchmark reads its last words.
func TestBenchRefusedByVerifier(t *testing.T) {
	testutil.Root(t)
	packets, err := prog.MakePackets("udp4")
	if err != nil {
		t.Fatal(err)
	}
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"long": {
		Name: "long", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, 0),
			asm.Add.Imm(asm.R1, 1).WithSymbol("turn"),
			asm.JLT.Imm(asm.R1, 60_000, "turn"),
			asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord), // a number is no pointer
			asm.Return(),
		},
	}}}
	var f fatal
	testutil.Allocates(t, 8<<20, func() {
		testing.Benchmark(func(b *testing.B) {
			f.B = b
			prog.Bench(&f, spec, packets)
		})
	})
	if !strings.Contains(f.said, "load long: ") || !strings.Contains(f.said, "invalid mem access 'scalar'") || strings.Contains(f.said, "\n") {
		t.Errorf("%q", f.said)
	}
}
