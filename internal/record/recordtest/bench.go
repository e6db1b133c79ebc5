package recordtest

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Row makes a measured row of a ladder; ns is scaled by factor.
func Row(name string, labels map[string]string, ns []float64, factor float64) record.BenchRow {
	r := record.BenchRow{Name: name, Labels: labels, Samples: []float64{}, Rounds: []int{}}
	mpps := []float64{}
	for i, x := range ns {
		r.Samples = append(r.Samples, x*factor)
		r.Rounds = append(r.Rounds, i)
		mpps = append(mpps, 1e3/(x*factor))
	}
	q, m := stat.Summarize(r.Samples, "ns"), stat.Summarize(mpps, "Mpps")
	r.Ns, r.Mpps = &q, &m
	return r
}

func Document(run string, rows ...record.BenchRow) *record.Document[record.BenchRow] {
	return &record.Document[record.BenchRow]{
		Head: record.Head{Schema: record.Schema, Kind: "bench", Run: run,
			Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Host: host.Fingerprint{Kernel: "6.12"}},
		Rows:     rows,
		Warnings: []record.Warning{},
	}
}

var Steady = []float64{100, 101, 99, 100.5, 99.5, 100.2, 99.8, 100.7, 99.3, 100.1, 99.9, 100.4}

func ValidBench(t testing.TB) string {
	b, err := json.Marshal(Document("run", Row("drop/bulk=1", map[string]string{"bulk": "1"}, Steady, 1)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Ladder is a document of rows bulk 1, 16, 64, each slower by factor.
func Ladder(run string, seed uint64, factor float64) *record.Document[record.BenchRow] {
	r := rand.New(rand.NewPCG(seed, 0))
	doc := Document(run)
	for _, bulk := range []string{"1", "16", "64"} {
		ns := make([]float64, 20)
		for i := range ns {
			ns[i] = 100 * math.Exp(0.01*r.NormFloat64())
		}
		doc.Rows = append(doc.Rows, Row("redirect-map/bulk="+bulk,
			map[string]string{"scenario": "redirect-map", "bulk": bulk, "operation": "none"}, ns, factor))
	}
	return doc
}
