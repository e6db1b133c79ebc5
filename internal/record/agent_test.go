package record_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// A record of agent is read as it was written; what no machine can give is not read.
func TestAgent(t *testing.T) {
	good := recordtest.Agent("run", 1, 12)
	saved, err := record.Parse([]byte(recordtest.Marshal(t, good)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(good, saved.Agent()); d != "" {
		t.Error(d)
	}
	if p := saved.Agent().Price("callback/loop"); p == nil || p.Price.Median < 11 || p.Price.Median > 13 {
		t.Errorf("price of the thunk: %v", p)
	}
	for want, change := range map[string]func(*record.Agent){
		"impossible identity":  func(a *record.Agent) { a.Machine.ID = "edge-1" },
		"impossible label":     func(a *record.Agent) { a.Machine.Labels["a"] = "\x1b" },
		"impossible reason":    func(a *record.Agent) { a.Reason = "" },
		"without a time":       func(a *record.Agent) { a.Measured = nil },
		"or the other way":     func(a *record.Agent) { a.Rows, a.Redirect, a.Measured = nil, nil, new(time.Time) },
		"slots":                func(a *record.Agent) { a.Cost.Slots = 49 },
		"impossible time":      func(a *record.Agent) { a.Cost.Seconds = -1 },
		"no part":              func(a *record.Agent) { a.Refused = []record.AgentRefusal{{Part: "measure"}} },
		"impossible counts of": func(a *record.Agent) { a.Code[0].Indirect = -1 },
		`of "veth"`:            func(a *record.Agent) { a.Paths[0].PerBulk = -1 },
		`counts of "veth"`:     func(a *record.Agent) { a.Paths[0].PacketMaybe = new(a.Paths[0].PerPacket + 1) },
		"impossible level":     func(a *record.Agent) { a.Findings[0].Level = "x" },
	} {
		a := recordtest.Agent("run", 1, 12)
		change(a)
		if _, err := record.Parse([]byte(recordtest.Marshal(t, a))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A packet runs through what each packet does, and a sixteenth of what each bulk and each poll does.
func TestAgentPathBranches(t *testing.T) {
	none := new(0)
	for want, p := range map[[2]float64]record.AgentPath{
		{0.125, 2.1875}:  {PerPacket: 2, PacketMaybe: new(2), PerBulk: 1, BulkMaybe: none, PerPoll: 2, PollMaybe: new(1)},
		{1.0625, 1.0625}: {PerPacket: 1, PacketMaybe: none, PerBulk: 1, BulkMaybe: none},
		{0, 1.125}:       {PerPacket: 1, PerBulk: 1, PerPoll: 1}, // of an agent that did not tell them apart
	} {
		if least, most := p.Branches(); [2]float64{least, most} != want {
			t.Errorf("%+v: %v to %v, want %v", p, least, most, want)
		}
	}
}

// The bulk of answers has one number.
func TestAnswerBulk(t *testing.T) {
	if got := fmt.Sprint(record.AnswerFrames); got != record.AnswerBulk {
		t.Errorf("%s frames are a bulk of %s", got, record.AnswerBulk)
	}
}
