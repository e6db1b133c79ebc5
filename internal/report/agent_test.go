package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// A run of agent fits on a screen of 24 lines.
func TestAgentGolden(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		width  int
		change func(*record.Agent)
	}{
		{"agent.txt", 80, func(*record.Agent) {}},
		{"agent-60.txt", 60, func(*record.Agent) {}},
		{"agent-refused.txt", 80, func(a *record.Agent) {
			a.Rows, a.Redirect, a.Measured, a.Cost.CPU = nil, nil, nil, nil
			a.Programs, a.Code, a.Machine.Drivers = nil, nil, nil
			a.Refused = []record.AgentRefusal{
				{Part: "prog-xray", Reason: "rights", Text: "CAP_SYSLOG is missing"},
				{Part: "measure", Reason: "load", Text: "the load average is 3.20 a CPU: at most 0.70 is measured beside"},
			}
		}},
		{"agent-disturbed.txt", 80, func(a *record.Agent) {
			a.Rows, a.Redirect, a.Measured = nil, nil, nil
			a.Refused = []record.AgentRefusal{{Part: "measure", Reason: "time", Text: "it took longer than 3s"}}
		}},
		{"agent-partly.txt", 80, func(a *record.Agent) {
			a.Rows[1].Price, a.Rows[1].Refused = nil, "already direct here: the code of both sides makes the same indirect branches"
			a.Redirect[0].Hop, a.Redirect[0].Refused = nil, "no round was finished"
			a.Programs[0].Attached = []record.Attachment{{Device: "eth0", Mode: "native"}}
			a.Programs[0].Dispatcher = record.OutOfDispatcher
			a.Warn("control", "drifted by +7 % from first to last round: the interval is too narrow")
		}},
	} {
		doc := recordtest.Agent("run", 1, 12)
		test.change(doc)
		var b bytes.Buffer
		if err := Agent(&b, Options{Width: test.width}, doc); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), test.width)
		if n := strings.Count(b.String(), "\n"); test.name == "agent.txt" && n > 23 {
			t.Errorf("%s: %d lines", test.name, n)
		}
		reporttest.Golden(t, test.name, b.String())
	}
}
