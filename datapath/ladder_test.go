package datapath

import (
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/traffic"
	"github.com/unthunk/unthunk/xsk"
)

// rung is the datapath with some of what makes it fast taken away again. Each rung
// of the ladder has what the one before has, and one thing more.
type rung struct {
	name string
	// transmit and giveBack are done in bulk: one call for many frames.
	transmit, giveBack bool
	// mapped frames stay where they are from port to port. Else each port has
	// memory of its own, as it is with one UMEM a socket, and frames are copied;
	// or, registered, as much memory as each bulk takes is registered with the
	// kernel, and given up, as it is where drivers map for DMA at each hop.
	mapped, registered bool
	// program is called for a whole batch, and ports without an interface: the
	// datapath as it is.
	program bool
}

var ladder = []rung{
	{name: "per-packet"},
	{name: "bulk-transmit", transmit: true},
	{name: "bulk-return", transmit: true, giveBack: true},
	{name: "registered", transmit: true, giveBack: true, registered: true},
	{name: "kept-mapped", transmit: true, giveBack: true, mapped: true},
	{name: "whole-batch", transmit: true, giveBack: true, mapped: true, program: true},
}

// port is what the rung makes of a port.
func (r rung) port(u *xsk.UMEM, p Port) Port {
	if r.program {
		return p
	}
	return &hop{Port: p, rung: r, umem: u, own: make([]byte, len(u.Bytes()))}
}

// programs is what the rung makes of a program.
func (r rung) programs(p Program) Program {
	if r.program {
		return p
	}
	return func(frames []Frame, actions []Action) {
		for i := range frames {
			p(frames[i:i+1], actions[i:i+1])
		}
	}
}

// hop is a port that is called for each packet.
type hop struct {
	Port
	rung rung
	umem *xsk.UMEM
	own  []byte
}

func (h *hop) Transmit(frames []xsk.Desc) (n int, err error) {
	switch {
	case h.rung.registered:
		if err := register(h.own[:len(frames)*h.umem.Config().FrameSize]); err != nil {
			return 0, err
		}
	case !h.rung.mapped:
		for _, d := range frames {
			copy(h.own[d.Addr:d.Addr+uint64(d.Len)], h.umem.Data(d))
		}
	}
	if h.rung.transmit {
		return h.Port.Transmit(frames)
	}
	for i := range frames {
		if n, err := h.Port.Transmit(frames[i : i+1]); n == 0 || err != nil {
			return i, err
		}
		if _, err := h.Port.Flush(); err != nil {
			return i + 1, nil // the next Flush says so
		}
	}
	return len(frames), nil
}

// register pins memory as an AF_XDP socket's UMEM, and gives it up with the socket.
func register(mem []byte) (err error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var reg [24]byte // struct xdp_umem_reg, linux/if_xdp.h: address, length, chunk size, headroom
	binary.NativeEndian.PutUint64(reg[:], uint64(reflect.ValueOf(mem).Pointer()))
	binary.NativeEndian.PutUint64(reg[8:], uint64(len(mem)))
	binary.NativeEndian.PutUint32(reg[16:], 2048)
	return unix.SetsockoptString(fd, unix.SOL_XDP, unix.XDP_UMEM_REG, string(reg[:]))
}

func (h *hop) Fill(chunks []uint64) int {
	if h.rung.giveBack {
		return h.Port.Fill(chunks)
	}
	for i := range chunks {
		if h.Port.Fill(chunks[i:i+1]) == 0 {
			return i
		}
	}
	return len(chunks)
}

func (h *hop) Complete(chunks []uint64) int {
	if h.rung.giveBack {
		return h.Port.Complete(chunks)
	}
	for i := range chunks {
		if h.Port.Complete(chunks[i:i+1]) == 0 {
			return i
		}
	}
	return len(chunks)
}

// work is a program with something to do: it lets IPv4 pass, swaps the Ethernet
// addresses and finds the port in a table.
func work(t testing.TB) Program {
	t.Helper()
	var table [256]Action
	for i := range table {
		table[i] = Redirect(1)
	}
	return func(frames []Frame, actions []Action) {
		for i := range frames {
			h := frames[i].Data
			if len(h) < 34 || binary.BigEndian.Uint16(h[12:]) != 0x0800 || h[14] != 0x45 {
				continue
			}
			a, b := binary.LittleEndian.Uint64(h), binary.LittleEndian.Uint32(h[8:])
			dst, src := a&0xffffffffffff, a>>48|uint64(b)<<16
			binary.LittleEndian.PutUint64(h, src|dst<<48)
			binary.LittleEndian.PutUint32(h[8:], uint32(dst>>16))
			actions[i] = table[h[33]]
		}
	}
}

// Each rung does the same to the same frames.
func TestLadder(t *testing.T) {
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(frame[6:12], frame[:6], frame[12:])
	arp := slices.Clone(frame)
	arp[13] = 6
	for _, r := range ladder {
		t.Run(r.name, func(t *testing.T) {
			if r.registered {
				testutil.Root(t)
			}
			u := newUMEM(t, xsk.Config{Frames: 1024, FrameSize: 2048})
			in, out := newMemory(t, u, 256), newMemory(t, u, 256)
			sent := 0
			out.Sent = func(parts [][]byte) {
				if sent++; len(parts) != 1 || string(parts[0]) != string(want) {
					t.Fatalf("sent %x, want %x", parts, want)
				}
			}
			d := newDatapath(t, Config{UMEM: u, Ports: []Port{r.port(u, in), r.port(u, out)}, Program: r.programs(work(t))})
			for range 10 {
				for i := range 100 {
					if f := frame; !in.Inject(map[bool][]byte{true: f, false: arp}[i%4 > 0]) {
						t.Fatal("no room for a frame")
					}
				}
				for n := 1; n > 0; {
					if n, err = d.Poll(); err != nil {
						t.Fatal(err)
					}
				}
			}
			c := d.Counters(nil)
			got := []uint64{uint64(sent), c[0].Received, c[0].DroppedByProgram, c[1].Transmitted}
			if diff := cmp.Diff([]uint64{750, 1000, 250, 750}, got); diff != "" {
				t.Errorf("sent, received, dropped, transmitted (-want +got):\n%s", diff)
			}
		})
	}
}

// BenchmarkLadder climbs it on ports that cost next to nothing: what is left is user
// space. ns/packet is CPU time.
func BenchmarkLadder(b *testing.B) {
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range ladder {
		b.Run(r.name, func(b *testing.B) {
			if r.registered {
				testutil.Root(b)
			}
			u := newUMEM(b, xsk.Config{Frames: 4096, FrameSize: 2048})
			in, out := newMemory(b, u, 2048), newMemory(b, u, 2048)
			if err := in.Generate(frame); err != nil {
				b.Fatal(err)
			}
			d := newDatapath(b, Config{UMEM: u, Ports: []Port{r.port(u, in), r.port(u, out)}, Program: r.programs(work(b))})
			b.ReportAllocs()
			began := testutil.CPUTime(b)
			for b.Loop() {
				for range 16 {
					d.Poll()
				}
			}
			b.ReportMetric(float64(testutil.CPUTime(b)-began)/float64(d.Counters(nil)[1].Transmitted), "ns/packet")
		})
	}
}

// BenchmarkRings moves frames as whole-batch does, with nothing between the ports but the program: neither is a
// chunk's owner known, nor a frame counted. What it takes is the ports' and the program's part of the ladder.
func BenchmarkRings(b *testing.B) {
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("rings/program-alone", func(b *testing.B) {
		u := newUMEM(b, xsk.Config{Frames: 4096, FrameSize: 2048})
		in, out := newMemory(b, u, 2048), newMemory(b, u, 2048)
		if err := in.Generate(frame); err != nil {
			b.Fatal(err)
		}
		chunks := make([]uint64, in.FillSize())
		in.Fill(chunks[:u.Alloc(chunks)])
		descs, frames, actions := make([]xsk.Desc, DefaultBatch), make([]Frame, DefaultBatch), make([]Action, DefaultBatch)
		program, mem := work(b), u.Bytes()
		sent := 0
		b.ReportAllocs()
		began := testutil.CPUTime(b)
		for b.Loop() {
			for range 16 {
				n, _ := in.Receive(descs)
				for i := range descs[:n] {
					a, end := descs[i].Addr, descs[i].Addr+uint64(descs[i].Len)
					frames[i].Data = mem[a:end:end]
				}
				program(frames[:n], actions)
				out.Transmit(descs[:n])
				out.Flush()
				sent += in.Fill(chunks[:out.Complete(chunks)])
			}
		}
		if sent != 16*b.N*DefaultBatch {
			b.Fatalf("%d frames, want %d in each of %d rounds", sent, 16*DefaultBatch, b.N)
		}
		b.ReportMetric(float64(testutil.CPUTime(b)-began)/float64(sent), "ns/packet")
	})
}

// BenchmarkLadderVeth climbs it between veths in copy mode, flooded from another
// CPU: ns per packet that came through.
func BenchmarkLadderVeth(b *testing.B) {
	for _, r := range ladder {
		b.Run("veth/"+r.name, func(b *testing.B) {
			lab := newBench(b)
			u := newUMEM(b, xsk.Config{Frames: 8192, FrameSize: 2048})
			in, out := lab.port(b, u, lab.in.Index, true), lab.port(b, u, lab.out.Index, false)
			d := newDatapath(b, Config{UMEM: u, Ports: []Port{r.port(u, in), r.port(u, out)}, Program: r.programs(work(b))})
			stop := start(d)
			b.ReportAllocs()
			for b.Loop() {
				lab.flood(b, 1<<19)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(d.Counters(nil)[1].Transmitted), "ns/packet")
			if err := stop(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkGather sends frames in two parts: by copying them together into one chunk
// first, or as the gather list that they are.
func BenchmarkGather(b *testing.B) {
	frame, err := traffic.UDPFrame(1514)
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"copied-together", "gather-list"} {
		b.Run("parts/"+name, func(b *testing.B) {
			u := newUMEM(b, xsk.Config{Frames: 4096, FrameSize: 2048})
			in, out := newMemory(b, u, 2048), newMemory(b, u, 2048)
			var port Port = out
			if name == "copied-together" {
				port = &linear{Memory: out, umem: u}
			}
			d := newDatapath(b, Config{UMEM: u, Ports: []Port{&halves{Memory: in}, port}, Program: work(b)})
			if err := in.Generate(frame[:len(frame)/2]); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			began := testutil.CPUTime(b)
			for b.Loop() {
				for range 16 {
					d.Poll()
				}
			}
			c := d.Counters(nil)[1]
			if c.AcceptedBytes != c.Accepted*uint64(len(frame)) {
				b.Fatalf("%d bytes in %d frames", c.AcceptedBytes, c.Accepted)
			}
			b.ReportMetric(float64(testutil.CPUTime(b)-began)/float64(c.Transmitted), "ns/packet")
		})
	}
}

// halves makes one frame of two that the port receives.
type halves struct{ *Memory }

func (p *halves) Receive(frames []xsk.Desc) (int, error) {
	n, err := p.Memory.Receive(frames[:len(frames)&^1])
	for i := 0; i+1 < n; i += 2 {
		frames[i].Options |= xsk.Continued
	}
	return n, err
}

// linear copies the parts of a frame together before it transmits them.
type linear struct {
	*Memory
	umem  *xsk.UMEM
	space [4096]byte
}

func (p *linear) Transmit(frames []xsk.Desc) (int, error) {
	at := 0
	for _, d := range frames {
		at += copy(p.space[at:], p.umem.Data(d))
		if d.Options&xsk.Continued == 0 {
			at = 0
		}
	}
	return p.Memory.Transmit(frames)
}
