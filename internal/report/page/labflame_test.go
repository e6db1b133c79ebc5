package page

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// A trace is drawn as a profile is: one row, how two differ, and both on a page.
func TestLabFlame(t *testing.T) {
	t.Parallel()
	l := reporttest.Traced()
	compare.LabTraces(t.Context(), l)
	draw := func(rows ...*record.LabRow) string {
		var b bytes.Buffer
		if err := LabFlame(t.Context(), &b, rows); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		svg  string
		want []string
	}{
		"one row": {draw(&l.Rows[0]), []string{"debian:6.1-cloud/bulk=16: 150.6875 instructions a packet",
			"veth_poll: 80.4 instructions a packet, 31.2 of itself", "entered by an indirect call", "return 49.1",
			"19288 instructions of 128 packets, each counted"}},
		"two rows": {draw(&l.Rows[0], &l.Rows[1]), []string{"From debian:6.1-cloud/bulk=16 to debian:6.12-cloud/bulk=16",
			"page_pool_put_unrefed_netmem", "0.00 → 72.1 instructions a packet", `fill="` + changeColor(1) + `"`}},
	} {
		for _, want := range test.want {
			if !strings.Contains(test.svg, want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
		if strings.Contains(test.svg, " ns a packet") || strings.Contains(test.svg, "samples") {
			t.Errorf("%s: instructions are called ns, or samples", name)
		}
	}
	for _, rows := range [][]*record.LabRow{nil, {&l.Rows[0], &l.Rows[1], &l.Rows[0]}} {
		err := LabFlame(t.Context(), new(bytes.Buffer), rows)
		if err == nil || !strings.Contains(err.Error(), "of one, or of the difference of two") {
			t.Errorf("%d rows: %v", len(rows), err)
		}
	}
	var svg bytes.Buffer
	err := SVG(t.Context(), &svg, Source{Records: []*record.Saved{savedAs(t, "a.json", l)}})
	if err != nil || !strings.Contains(svg.String(), "each counted") {
		t.Errorf("a record of lab: %v", err)
	}
	text := string(pageOf(t, Source{Records: []*record.Saved{savedAs(t, "lab.json", l)}}))
	for _, want := range []string{"From debian:6.1-cloud/bulk=16 to debian:6.12-cloud/bulk=16: instructions a packet",
		"debian:6.12-cloud/bulk=16: where its instructions are executed", "Which functions make the differences", "28.4765625"} {
		if !strings.Contains(text, want) {
			t.Errorf("page: no %q", want)
		}
	}
}
