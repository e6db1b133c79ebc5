package replay

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// ipv4 is a UDP packet of n bytes with a TTL of 64 and a right header checksum.
func ipv4(n int) []byte {
	f := make([]byte, n)
	copy(f, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, byte((n - 14) >> 8), byte(n - 14), 0, 0, 0, 0, 64, 17})
	copy(f[26:], []byte{192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 0, 53, byte((n - 34) >> 8), byte(n - 34)})
	sum := uint32(0)
	for i := 14; i < 34; i += 2 {
		sum += uint32(f[i])<<8 | uint32(f[i+1])
	}
	sum = ^(sum>>16 + sum&0xffff)
	f[24], f[25] = byte(sum>>8), byte(sum)
	return f
}

// harness is one with a sample program at site 1 and the null program at the two others.
func harness(t *testing.T, name string, o Options) (*Harness, *ebpf.Program) {
	t.Helper()
	testutil.Root(t)
	coll, program, err := sample.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	o.Attach, o.Programs = ebpf.AttachXDP, 2
	h, err := Load(o)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	null, err := Null(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	for site, p := range []*ebpf.Program{null, program, null} {
		if err := h.Place(site, p); err != nil {
			t.Fatal(err)
		}
	}
	return h, program
}

// expectClean tells the harness what single runs give, with the packets as they are of the null program.
func expectClean(t *testing.T, h *Harness, p *ebpf.Program) []Expect {
	t.Helper()
	expect := make([][]Expect, 2)
	for _, packet := range h.opts.Packets {
		out, err := TestRun(p, Input{Data: packet, Metadata: h.opts.Metadata})
		if err != nil {
			t.Fatal(err)
		}
		expect[0] = append(expect[0], Expect{Hash(packet), pass, uint32(len(packet))})
		expect[1] = append(expect[1], Expect{Hash(out.Data), out.Verdict, uint32(len(out.Data))})
	}
	for i, e := range expect {
		if err := h.Expect(i, e); err != nil {
			t.Fatal(err)
		}
	}
	return expect[1]
}

// Programs that push a header, or rewrite bytes, find the whole packet in each run: a thousand runs come out as one.
// A test run of the kernel with a repeat does not restore packets: the same programs come to their error paths.
func TestRestores(t *testing.T) {
	packets := [][]byte{ipv4(60), ipv4(1514), ipv4(61), ipv4(MaxPacket), ipv4(129)}
	metadata := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, test := range []struct {
		program string
		first   uint32 // verdict of one run
		last    uint32 // and of the last of a thousand by the kernel
	}{
		{"encap", 3, 1}, {"ttl", 3, 1}, {"nat", 3, 3}, {"pass", 2, 2},
	} {
		for _, o := range []Options{
			{Packets: packets, Schedule: []uint32{4, 0, 3, 2, 1}, Windows: 4},
			{Packets: packets, Schedule: []uint32{1, 0, 2}, Windows: 4, Metadata: metadata},
		} {
			h, program := harness(t, test.program, o)
			want := expectClean(t, h, program)
			for i, e := range want {
				if e.Verdict != test.first {
					t.Errorf("%s: packet %d comes out with verdict %d, want %d", test.program, i, e.Verdict, test.first)
				}
			}
			n := uint32(len(o.Schedule))
			w := Window{Group: n, Warm: n, Timed: 999 * n, Bytes: true}
			spans, err := h.Run(t.Context(), []Window{w, {Site: 1, Program: 1, Group: n, Warm: n, Timed: 999 * n, Bytes: true}, w}, 0)
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range spans {
				if s.Verdicts+s.Lengths+s.Bytes+s.Lost > 0 || s.Ns == 0 {
					d, _, err := h.Differs()
					t.Errorf("%s, window %d: %+v, first %+v (%v)", test.program, i, s, d, err)
				}
			}
			out, err := TestRun(program, Input{Data: packets[0], Repeat: 1000})
			for try := 0; errors.Is(err, unix.EINTR) && try < 100; try++ { // Go's own signals
				out, err = TestRun(program, Input{Data: packets[0], Repeat: 1000})
			}
			if err != nil || out.Verdict != test.last {
				t.Errorf("%s: the kernel's last run of a thousand: verdict %d (%v), want %d", test.program, out.Verdict, err, test.last)
			}
		}
	}
}

// What comes out otherwise is counted by what differs, and the first one is told.
func TestDiffers(t *testing.T) {
	packets := [][]byte{ipv4(60), ipv4(100)}
	h, program := harness(t, "ttl", Options{Packets: packets, Schedule: []uint32{0, 1}, Windows: 4})
	right := expectClean(t, h, program)
	for _, test := range []struct {
		name  string
		wrong func(*Expect)
		want  Span
	}{
		{"nothing", func(*Expect) {}, Span{}},
		{"verdict", func(e *Expect) { e.Verdict = 1 }, Span{Verdicts: 4}},
		{"length", func(e *Expect) { e.Length++ }, Span{Lengths: 4}},
		{"bytes", func(e *Expect) { e.Hash++ }, Span{Bytes: 4}},
		{"any bytes", func(e *Expect) { e.Hash = 0 }, Span{}},
	} {
		expect := []Expect{right[0], right[1]}
		test.wrong(&expect[1])
		if err := h.Expect(1, expect); err != nil {
			t.Fatal(err)
		}
		spans, err := h.Run(t.Context(), []Window{{Site: 1, Program: 1, Group: 2, Warm: 2, Timed: 6, Bytes: true}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := spans[0]
		got.Ns = 0
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
		d, ok, err := h.Differs()
		if err != nil || ok != (test.want != Span{}) || ok && (d.Packet != 1 || d.Got.Verdict != 3 || d.Got.Hash != right[1].Hash) {
			t.Errorf("%s: first %+v, %v (%v)", test.name, d, ok, err)
		}
	}
}

// A site without a program is not taken for a program that returns -1.
func TestNone(t *testing.T) {
	h, _ := harness(t, "pass", Options{Packets: [][]byte{ipv4(60)}, Schedule: []uint32{0}, Windows: 4})
	if err := h.coll.Maps[replayMapTargets].Delete(uint32(1)); err != nil {
		t.Fatal(err)
	}
	for _, verdict := range []uint32{0xffffffff, 0xfffffffe, pass} {
		if err := h.Expect(1, []Expect{{Verdict: verdict, Length: 60}}); err != nil {
			t.Fatal(err)
		}
		spans, err := h.Run(t.Context(), []Window{{Site: 1, Program: 1, Group: 1, Timed: 5}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if spans[0].Verdicts != 5 {
			t.Errorf("expected verdict %#x: %+v, want 5 other verdicts", verdict, spans[0])
		}
	}
}

// A harness that was loaded anew has the same packets, and memory that it walks through.
func TestRenew(t *testing.T) {
	h, program := harness(t, "encap", Options{
		Packets: [][]byte{ipv4(70)}, Schedule: []uint32{0}, Windows: 4, Walk: 4 << 20,
	})
	expectClean(t, h, program)
	window := []Window{{Site: 1, Program: 1, Group: 1, Timed: 10, Bytes: true, Walk: true}}
	for range 3 {
		if err := h.Renew(); err != nil {
			t.Fatal(err)
		}
		spans, err := h.Run(t.Context(), window, 0)
		if err != nil {
			t.Fatal(err)
		}
		if s := spans[0]; s.Verdicts+s.Lengths+s.Bytes+s.Lost > 0 {
			t.Errorf("%+v", s)
		}
	}
	var state replayRun
	if err := h.coll.Variables[replayVarRun].Get(&state); err != nil {
		t.Fatal(err)
	}
	if state.Next != 1 || state.Left != 0 {
		t.Errorf("after a window: %d begun, %d runs left", state.Next, state.Left)
	}
}

func TestRefuses(t *testing.T) {
	testutil.Root(t)
	for name, o := range map[string]Options{
		"short":    {Packets: [][]byte{make([]byte, MinPacket-1)}},
		"long":     {Packets: [][]byte{make([]byte, MaxPacket+1)}},
		"longer":   {Packets: [][]byte{make([]byte, MaxFragmented+1)}, Frags: true},
		"buffer":   {FirstBuffer: 100},
		"small":    {FirstBuffer: MinPacket - 1, Frags: true},
		"large":    {FirstBuffer: MaxPacket + 1, Frags: true},
		"metadata": {Metadata: make([]byte, 3)},
		"much":     {Metadata: make([]byte, MaxMetadata+4)},
	} {
		if h, err := Load(o); err == nil {
			h.Close()
			t.Errorf("%s: no error", name)
		}
	}
	h, _ := harness(t, "pass", Options{Packets: [][]byte{ipv4(60)}, Schedule: []uint32{0}, Windows: 1})
	if _, err := h.Run(t.Context(), make([]Window, 2), 0); err == nil {
		t.Error("more windows than there is room for: no error")
	}
	if _, err := h.Run(t.Context(), []Window{{First: 9, Group: 1, Timed: 1}}, 0); err == nil {
		t.Error("a window without packets: no error")
	}
}

// Packets are in as many fragments as the kernel makes.
func TestFragmentsOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ first, length, want int }{
		{0, 60, 0}, {0, MaxPacket, 0}, {0, MaxPacket + 1, 1}, {0, MaxPacket + FragmentSize, 1}, {0, MaxPacket + FragmentSize + 1, 2},
		{0, 9000, 2}, {0, 60000, 14}, {0, MaxFragmented, 16}, {256, 256, 0}, {256, 257, 1}, {256, 9000, 3}, {14, MaxFragmented, 16},
	} {
		if got := (Options{FirstBuffer: test.first}).Fragments(test.length); got != test.want {
			t.Errorf("%d bytes behind a first buffer of %d: %d fragments, want %d", test.length, test.first, got, test.want)
		}
	}
}

// A packet in fragments is restored as a whole, and one of another number of fragments is counted as lost.
func TestRestoresFragments(t *testing.T) {
	testutil.Root(t)
	packets := [][]byte{ipv4(9000), ipv4(60000), ipv4(8000)}
	for i := range packets {
		for at := 34; at < len(packets[i]); at++ {
			packets[i][at] = byte(at * (i + 3) >> 4)
		}
	}
	o := Options{Packets: packets, Schedule: []uint32{0, 2, 1}, Windows: 4, Programs: 1, Frags: true, Attach: ebpf.AttachXDP}
	h, err := Load(o)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	null, err := Null(o)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var expect []Expect
	for _, p := range packets {
		expect = append(expect, Expect{Hash(p), pass, uint32(len(p))})
	}
	if err := errors.Join(h.Place(0, null), h.Expect(0, expect)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		first, group uint32
		lost         bool
	}{{0, 2, false}, {1, 1, false}, {2, 1, false}, {0, 3, true}} {
		spans, err := h.Run(t.Context(), []Window{{First: test.first, Group: test.group, Timed: 100, Bytes: true}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if s := spans[0]; s.Lost > 0 != test.lost || s.Verdicts > 0 || !test.lost && s.Lengths+s.Bytes > 0 {
			t.Errorf("packets %d to %d of the schedule: %+v", test.first, test.first+test.group-1, s)
		}
	}
}

// The hash sees each byte, its place, and the length.
func TestHash(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		b := make([]byte, 14+r.IntN(100))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		other := bytes.Clone(b)
		i, j := r.IntN(len(b)), r.IntN(len(b))
		other[i], other[j] = other[j], other[i]
		if Hash(b) == Hash(other) != bytes.Equal(b, other) || Hash(b) == Hash(append(other, 0)) {
			t.Fatalf("%x and %x", b, other)
		}
	}
	if Hash(nil) == 0 {
		t.Error("the hash of nothing is 0")
	}
}
