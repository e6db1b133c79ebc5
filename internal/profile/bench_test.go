package profile

import (
	"runtime"
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
			s.end(table, nil, 1)
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
