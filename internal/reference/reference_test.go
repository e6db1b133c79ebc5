package reference

import (
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func BenchmarkSample(b *testing.B) {
	testutil.Root(b)
	cpu, err := rounds.CPU{}.Pick()
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	w, err := Open(cpu)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(begun).Seconds()*1e3, "ms/open")
	defer w.Close()
	w.Begin(0)
	for b.Loop() {
		if err := w.Samples(1); err != nil {
			b.Fatal(err)
		}
	}
	w.End()
	for _, r := range w.Record() {
		b.ReportMetric(r.Value.Median, r.Name)
	}
}
