package report

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestFleetGolden(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(io.Writer, Options) error{
		"fleet-ingest":  func(w io.Writer, o Options) error { return FleetIngest(w, o, reporttest.FleetIngest()) },
		"fleet-who":     func(w io.Writer, o Options) error { return FleetWho(w, o, reporttest.FleetWho()) },
		"fleet-odd":     func(w io.Writer, o Options) error { return FleetOdd(w, o, reporttest.FleetOdd()) },
		"fleet-compare": func(w io.Writer, o Options) error { return FleetCompare(w, o, reporttest.FleetCompare()) },
	} {
		for _, width := range []int{80, 60} {
			var b bytes.Buffer
			if err := write(&b, Options{Width: width}); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				if n := len([]rune(strings.TrimRight(line, "\n"))); n > width {
					t.Errorf("%s: %d columns: %s", name, n, line)
				}
			}
			if width == 80 {
				reporttest.Golden(t, name+".txt", b.String())
			}
		}
	}
}

// Texts of records reach no terminal as they are.
func TestFleetHostile(t *testing.T) {
	t.Parallel()
	odd := reporttest.FleetOdd()
	odd.Rows[0].Name, odd.Where = "\x1b[2J", "\x1b]0;x"
	odd.Rows[1].Fields[0].Value, odd.Rows[1].Labels["cpu"] = "\r\x07", "\x1b[31m"
	who := reporttest.FleetWho()
	who.Rows[0].Name, who.Rows[0].Refused["\x1b[1m"], who.Rows[0].Numbers[2].Row = "\x1b[2J", 1, "\x1b[3m"
	var b bytes.Buffer
	if err := FleetOdd(&b, Options{}, odd); err != nil {
		t.Fatal(err)
	}
	if err := FleetWho(&b, Options{}, who); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\r\x07") {
		t.Errorf("%q", b.String())
	}
}

// What indirect branches would take is no part of a redirect that takes less.
func TestFleetBranches(t *testing.T) {
	for ns, want := range map[float64]bool{1.04: false, 120: true} {
		who := reporttest.FleetWho()
		who.Rows[0].Number("indirect/bulk=16").Median = ns
		var b bytes.Buffer
		if err := FleetWho(&b, Options{Width: 200}, who); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), "which is more than bulk=16 takes"); got != want || !strings.HasPrefix(b.String(), "Who pays: ") {
			t.Errorf("%v ns: %s", ns, b.String())
		}
	}
}
