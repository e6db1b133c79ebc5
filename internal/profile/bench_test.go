package profile

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
)

// BenchmarkMinute gathers and names a minute of samples of two CPUs at 10 kHz, of
// 20 000 distinct call chains through 200 functions: ten times what a run has.
func BenchmarkMinute(b *testing.B) {
	testutil.Root(b)
	const samples, rounds, chains, depth = 1_200_000, 12, 20_000, 20
	var text []ksym.Symbol
	table, err := ksym.Live()
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range table.Module("") {
		if s.Text() && s.Size > 16 {
			text = append(text, s)
		}
	}
	b.ReportAllocs()
	var before, after runtime.MemStats
	var named time.Duration
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := newStacks()
		chain := make([]uint64, depth)
		named = 0
		for range rounds {
			for i := range samples / rounds {
				n := i % chains
				chain[0] = text[n%200].Addr + uint64(n/200) // where the CPU was
				for at := 1; at < depth; at++ {
					chain[at] = text[200+(n+at)%40*depth+at].Addr + 5
				}
				s.add(chain, 0, circumstances{sink: i%5 == 0}, 1)
			}
			begin := time.Now()
			s.end(table, nil, unscaled)
			named += time.Since(begin)
		}
		if n := len(s.all()); n < chains {
			b.Fatalf("%d chains", n)
		}
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(s)
	}
	b.ReportMetric(named.Seconds(), "s-to-name")
	b.ReportMetric(float64(after.Sys)/1e6, "MB-of-process")
}

// BenchmarkFull is what all call chains take that are held at a time: those of the rounds before, and as many of the round
// that is named.
func BenchmarkFull(b *testing.B) {
	for _, depth := range []int{maxFrames / maxChains, 127} {
		b.Run(strconv.Itoa(depth), func(b *testing.B) { benchmarkFull(b, depth) })
	}
}

func benchmarkFull(b *testing.B, depth int) {
	table := madeTable(b)
	used := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	for b.Loop() {
		before := used()
		s := newStacks()
		chain := make([]uint64, depth)
		for round := range uint64(2) {
			for n := range uint64(maxChains) {
				chain[0], chain[1] = madeText+n%4096, madeText+4096*round+n/4096
				for at := 2; at < depth; at++ {
					chain[at] = madeText + (n+uint64(at))%8192
				}
				s.add(chain, 0, circumstances{}, 1)
			}
			if round == 0 {
				s.end(table, nil, unscaled)
			}
		}
		s.end(table, nil, func(float64) float64 {
			b.ReportMetric(used()-before, "MB-at-most")
			return 1
		})
		runtime.KeepAlive(s)
	}
}

const madeText = 0xffffffff81000000

// madeTable has functions of 4096 bytes each.
func madeTable(t testing.TB) *ksym.Table {
	var symbols []ksym.Symbol
	for i := range 200 {
		symbols = append(symbols, ksym.Symbol{Name: fmt.Sprintf("f%d", i), Addr: madeText + uint64(i)<<12, Size: 1 << 12, Type: 't'})
	}
	table, err := ksym.New(symbols)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func unscaled(float64) float64 { return 1 }
