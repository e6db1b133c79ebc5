package prog

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/stat"
)

// The cost of cold packets of which 15 % are slow is the mean of all, where neither verdict nor length tells them apart.
func TestColdMixture(t *testing.T) {
	const slow = 0xff // in the first byte
	p := assembled(t, ebpf.AttachXDP, func(int) asm.Instructions {
		return asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
			asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, 14),
			asm.JGT.Reg(asm.R4, asm.R3, "out"),
			asm.LoadMem(asm.R5, asm.R2, 0, asm.Byte),
			asm.JNE.Imm(asm.R5, slow, "out"),
			asm.Mov.Imm(asm.R4, 2500),
			asm.Mul.Imm(asm.R5, 12345).WithSymbol("turn"),
			asm.Add.Imm(asm.R4, -1),
			asm.JNE.Imm(asm.R4, 0, "turn"),
			asm.Mov.Imm(asm.R0, 2).WithSymbol("out"),
			asm.Return(),
		}
	})
	packets := &Packets{}
	rows := []Row{{Name: "all"}, {Name: "slow"}, {Name: "fast"}}
	for i := range 40 {
		f, row := frame(60, i), 2
		if f[0] = 0; i%7 == 0 {
			f[0], row = slow, 1
		}
		packets.Frames = append(packets.Frames, f)
		rows[0].Packets, rows[row].Packets = append(rows[0].Packets, i), append(rows[row].Packets, i)
	}
	r := opened(t, packets, Options{Cold: 1 << 20}, p)
	if err := r.SetRows(rows); err != nil {
		t.Fatal(err)
	}
	found := make([][]float64, len(rows))
	for range 9 {
		samples, err := r.Round(t.Context(), 200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range samples {
			found[i] = append(found[i], s.Cost[0])
		}
	}
	all, dear, cheap := stat.Median(found[0]), stat.Median(found[1]), stat.Median(found[2])
	want := (float64(len(rows[1].Packets))*dear + float64(len(rows[2].Packets))*cheap) / float64(len(packets.Frames))
	t.Logf("all %.0f ns, slow %.0f, fast %.0f: want %.0f", all, dear, cheap, want)
	if dear < 10*math.Abs(cheap) || math.Abs(all-want) > want/5 {
		t.Errorf("all %.0f ns, slow %.0f, fast %.0f: want %.0f", all, dear, cheap, want)
	}
}

// Cold packets take turns, and a part of the way has the mix of all.
func TestColdTurns(t *testing.T) {
	t.Parallel()
	for _, count := range []int{1, 2, 3, 5, 6, 40, 1000, 1024} {
		r := &row{count: count}
		seen := map[int]int{}
		quarter := 0
		for range count {
			p := r.coldPacket()
			for range coldTurns {
				if again := r.coldPacket(); again != p {
					t.Errorf("of %d: packet %d amid the turns of %d", count, again, p)
				}
				r.next++
			}
			if seen[p]++; p < count/4 && len(seen) <= count/2 {
				quarter++
			}
		}
		if len(seen) != count {
			t.Errorf("of %d packets %d had a turn", count, len(seen))
		}
		if math.Abs(float64(quarter)-float64(count)/8) > max(2, float64(count)/160) {
			t.Errorf("of %d: half of the turns have %d of the first quarter, want %d", count, quarter, count/8)
		}
	}
}

// spansOf are windows of one run that took these ns: by cycle, the null program's and two others'.
func spansOf(group []int, ns [][3]uint64) (windows []replay.Window, spans []replay.Span, cycles []cycle) {
	for i, some := range ns {
		c := cycle{group: group[i]}
		for _, took := range some {
			c.at = append(c.at, len(windows))
			windows, spans = append(windows, replay.Window{Timed: 1}), append(spans, replay.Span{Ns: took})
		}
		cycles = append(cycles, c)
	}
	return windows, spans, cycles
}

// A row always has a number, and what is cold and slow counts where it is slow twice.
func TestEstimate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		cold      int
		group     []int
		ns        [][3]uint64
		cost      float64 // of the first program
		disturbed int
	}{
		{"nothing", 0, []int{0, 0, 0}, [][3]uint64{{10, 20, 30}, {10, 20, 30}, {10, 20, 30}}, 10, 0},
		{"one disturbed", 0, []int{0, 0, 0}, [][3]uint64{{10, 20, 30}, {10, 900, 30}, {10, 20, 30}}, 10, 1},
		{"each disturbed", 0, []int{0, 0, 0}, [][3]uint64{{10, 20, 900}, {10, 920, 30}, {910, 20, 30}}, 10, 0},
		{"slow packet", 1, []int{0, 0, 1, 1, 2, 2}, [][3]uint64{
			{10, 20, 20}, {10, 20, 20}, {10, 620, 20}, {10, 600, 20}, {10, 20, 20}, {10, 20, 20},
		}, 206.67, 0},
		{"disturbed packet", 1, []int{0, 0, 1, 1, 2, 2}, [][3]uint64{
			{10, 20, 20}, {10, 20, 20}, {10, 620, 20}, {10, 20, 20}, {10, 20, 20}, {10, 20, 20},
		}, 10, 1},
	} {
		r := &Replay{programs: make([]Program, 2), opts: Options{Cold: test.cold}, rows: []row{{count: 3, groups: []group{{0, 3}}}}}
		windows, spans, cycles := spansOf(test.group, test.ns)
		ns := func(at int) float64 { return float64(spans[at].Ns) }
		disturbed := 0
		for _, d := range r.disturbed(cycles, ns) {
			if d {
				disturbed++
			}
		}
		s := r.estimate(windows, spans, cycles, []int{0})[0]
		got := s.Cost[0]
		if test.name == "each disturbed" { // whatever it is, it is a number
			got = test.cost
		}
		if math.IsNaN(s.Cost[0]+s.Null+s.Between) || math.Abs(got-test.cost) > 0.01 || disturbed != test.disturbed {
			t.Errorf("%s: %s, %d disturbed; want %g, %d", test.name, fmt.Sprintf("%+v", s), disturbed, test.cost, test.disturbed)
		}
	}
}
