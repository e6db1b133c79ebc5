package reporttest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Trends are those of made-up records, one row of which gets slower.
func Trends(t testing.TB) *record.History {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 24 {
		doc := Bench(fmt.Sprint(i), uint64(i), 1)
		doc.Time = doc.Time.Add(time.Duration(i) * 24 * time.Hour)
		if i >= 16 {
			doc.Host.Kernel = "6.18.2"
		}
		for j := range doc.Rows {
			factor := 1 + 0.01*r.NormFloat64()
			if j == 6 && i >= 8 {
				factor *= 1.3
			}
			for _, q := range []*stat.Quantity{doc.Rows[j].Ns} {
				q.Median, q.Low, q.High = q.Median*factor, q.Low*factor, q.High*factor
			}
		}
		if err := record.Save(filepath.Join(dir, fmt.Sprintf("%02d.json", i)), doc); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := compare.LoadHistory(new(record.Together), dir)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// HostileTrends are trends with s wherever a record may hold a string.
func HostileTrends(t testing.TB, s string) *record.History {
	h := Trends(t)
	for i := range h.Rows {
		h.Rows[i].Name = s
	}
	for i := range h.Groups {
		h.Groups[i].Host.Kernel = s
		for j := range h.Groups[i].Records {
			h.Groups[i].Records[j].File = s
		}
	}
	h.Left = []record.LeftFile{{File: s, Why: s}}
	return h
}

// Evil is a string that is more than text almost anywhere.
const Evil = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`${{.}}]]>-->" +
	" @maintainer https://evil.example #1 [x](javascript:alert(1)) |"
