package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

const benchmarks = `goos: linux
BenchmarkFleet/engine=sqlite/machines=100/who-2	3	52617666 ns/op	4.2 cpu-ms/op
BenchmarkFleet/engine=postgres/machines=1000/who-2	3	21000000 ns/op	30.2 cpu-ms/op
BenchmarkFleet/engine=postgres/machines=100/who-2	3	7000000 ns/op	17.9 cpu-ms/op
BenchmarkFleet/engine=postgres/machines=100/ingest-2	3	12822046154 ns/op	0.86 cpu-ms/record	312.0 records/s
PASS
`

// Points are those of one database, by machines; of each benchmark the first unit that it has.
func TestRead(t *testing.T) {
	t.Parallel()
	lines, err := read(strings.NewReader(benchmarks), "postgres", []string{"cpu-ms/op", "cpu-ms/record"})
	if err != nil || len(lines) != 2 || lines[0].name != "ingest" || lines[1].name != "who" {
		t.Fatalf("%+v: %v", lines, err)
	}
	who := lines[1].points
	if len(who) != 2 || who[0] != (point{100, 0.0179}) || who[1].machines != 1000 || lines[0].points[0] != (point{100, 0.00086}) {
		t.Errorf("%+v", lines)
	}
}

// What is drawn is XML with a line for each benchmark; without points it is an error.
func TestRun(t *testing.T) {
	t.Parallel()
	var out, said strings.Builder
	if code := run(nil, strings.NewReader(benchmarks), &out, &said); code != 0 {
		t.Fatalf("%d, %s", code, &said)
	}
	lines := 0
	for dec := xml.NewDecoder(strings.NewReader(out.String())); ; {
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "circle" {
			lines++
		}
	}
	if lines != 3 {
		t.Errorf("%d points", lines)
	}
	if code := run([]string{"-engine", "other"}, strings.NewReader(benchmarks), io.Discard, io.Discard); code != 1 {
		t.Errorf("of no benchmark the exit code is %d", code)
	}
	if code := run([]string{"-engine"}, strings.NewReader(benchmarks), io.Discard, io.Discard); code != 2 {
		t.Errorf("of wrong flags the exit code is %d", code)
	}
}
