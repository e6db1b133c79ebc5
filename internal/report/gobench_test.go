package report

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestGoBenchGolden(t *testing.T) {
	t.Parallel()
	doc := reporttest.FullBench()
	for i := range doc.Rows {
		if row := &doc.Rows[i]; row.Refused == "" {
			row.Samples = row.Samples[:2]
		}
	}
	var b bytes.Buffer
	if err := GoBench(&b, doc); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^goarch: .*`).ReplaceAllString(b.String(), "goarch: amd64")
	reporttest.Golden(t, "bench.gobench", text)
}

// benchstat reads what GoBench writes, and sees what is there.
func TestGoBenchOracle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, doc := range map[string]*record.Document[record.BenchRow]{"old": reporttest.Bench("one", 1, 1),
		"new": reporttest.Bench("two", 2, 2)} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := GoBench(f, doc); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var stderr bytes.Buffer
	cmd := exec.Command("go", "tool", "benchstat", "-format", "csv", filepath.Join(dir, "old"),
		filepath.Join(dir, "new"))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("benchstat: %v\n%s", err, &stderr)
	}
	if strings.Contains(stderr.String(), "syntax") || strings.Contains(stderr.String(), "need >=") {
		t.Errorf("benchstat complains:\n%s", &stderr)
	}
	want := reporttest.Bench("one", 1, 1).Rows[6].Ns.Median
	line := regexp.MustCompile(`(?m)^XDP/scenario=redirect-map/bulk=64,(\S+?),`).FindStringSubmatch(string(out))
	if line == nil {
		t.Fatalf("benchstat prints no row:\n%s", out)
	}
	var got float64
	if _, err := fmt.Sscan(line[1], &got); err != nil || math.Abs(got*1e9/want-1) > 1e-5 {
		t.Errorf("benchstat's median is %v s, ours %v ns", got, want)
	}
	if !strings.Contains(string(out), "sec/pkt") || !strings.Contains(string(out), "Mpps") ||
		!regexp.MustCompile(`bulk=64,.*\+9\d|bulk=64,.*\+10\d`).Match(out) {
		t.Errorf("benchstat misses units or the change:\n%s", out)
	}
}
