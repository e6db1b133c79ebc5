package redirect

import (
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
)

// The kernel takes nearly each byte as the name of a device: a run on any of them can be saved and loaded again.
func TestDeviceNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"d\u009b2Jq", "r\u202eq", "v\xffq", "e\x1b[2J", "é|x"} {
		for _, plan := range []DevicePair{{Scenario: Drop, In: name}, {Scenario: Map, In: name, Out: name + "2"}} {
			r := pairRun{plan: plan.withDefaults()}
			row, _ := r.record()
			doc := record.New[record.BenchRow]("bench", host.Fingerprint{})
			doc.Rows = append(doc.Rows, row)
			b, err := record.Encode(doc)
			if err != nil {
				t.Errorf("%q: %v", name, err)
				continue
			}
			if _, err := record.Parse(b); err != nil {
				t.Errorf("%q: %v", name, err)
			}
			if record.Sentence(row.Refused) != row.Refused || row.Refused == "" {
				t.Errorf("%q: %q", name, row.Refused)
			}
		}
	}
}
