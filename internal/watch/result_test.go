package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/record"
)

// A program that is replaced each second leaves as many warnings as a record has room for, and a count of the others.
func TestReplacements(t *testing.T) {
	t.Parallel()
	w := &Watch{subject: &subject{device: device.Device{Name: "w0"}}}
	r := &Result{watch: w, Incomplete: true}
	if why := r.Nothing(); !strings.Contains(why, "before the end of the first second") {
		t.Errorf("stopped at once: %q", why)
	}
	const times = 20_000
	for i := range times {
		w.came(fmt.Sprintf("program id:%d was replaced by leaf id:%d", i, i+1))
	}
	const came = "in each second another program came onto w0, 20000 in all"
	if why := r.Nothing(); !strings.HasPrefix(why, "stopped before the end: until then "+came) {
		t.Errorf("replaced each second, and stopped: %q", why)
	}
	r.Incomplete = false
	if why := r.Nothing(); !strings.HasPrefix(why, came) {
		t.Errorf("replaced each second: %q", why)
	}
	doc := new(record.ProgWatch)
	w.warn(doc, tally{})
	if n := len(doc.Warnings); n != maxReplacements+1 || len(w.warnings) != maxReplacements {
		t.Fatalf("%d warnings, %d kept", n, len(w.warnings))
	}
	last := doc.Warnings[maxReplacements].Text
	if want := fmt.Sprintf("replaced %d more times", times-maxReplacements); !strings.Contains(last, want) {
		t.Errorf("%q does not say %q", last, want)
	}
	w.add(tally{length: time.Second})
	if why := r.Nothing(); why != "" {
		t.Errorf("with a second: %q", why)
	}
	w.tallies, r.Ended = tallies{}, "w0 went away"
	if why := r.Nothing(); why != r.Ended {
		t.Errorf("ended: %q", why)
	}
}

// A watch without a packet, and one without a sample of its packets, have no time of a packet.
func TestUnsampled(t *testing.T) {
	t.Parallel()
	w := &Watch{subject: &subject{device: device.Device{Name: "w0"}}}
	for _, test := range []struct {
		tally   tally
		refused string
	}{
		{tally{length: time.Second}, "no packet came"},
		{tally{length: time.Second, packets: 3}, "no sample was taken of its packets"},
		{tally{length: time.Second, packets: 3, samples: 1, program: 50}, ""},
	} {
		for _, row := range w.rows([]tally{test.tally}, test.tally, "veth") {
			if row.Name != "program" && row.Name != "path" {
				continue
			}
			if (row.Value == nil) != (test.refused != "") || !strings.HasPrefix(row.Refused, test.refused) {
				t.Errorf("%s of %d packets, %d samples: %v, refused %q", row.Name, test.tally.packets, test.tally.samples, row.Value, row.Refused)
			}
		}
	}
}
