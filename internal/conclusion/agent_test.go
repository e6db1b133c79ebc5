package conclusion

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
)

// Branches of which it is not known whether each packet runs through them are not said to be run.
func TestAgentPaths(t *testing.T) {
	for want, p := range map[string]record.AgentPath{
		"at most 2 a packet, at most 1 a bulk, at most 2 a poll (5 thunk); at most 2.19 a packet in bulks of 16.": {
			PerPacket: 2, PerBulk: 1, PerPoll: 2, Kinds: map[string]int{"thunk": 5},
		},
		"1 a packet, 1 a packet?, 1 a bulk, 2 a poll? (5 thunk); 1.06 to 2.19 a packet in bulks of 16.": {
			PerPacket: 2, PacketMaybe: new(1), PerBulk: 1, BulkMaybe: new(0), PerPoll: 2, PollMaybe: new(2), Kinds: map[string]int{"thunk": 5},
		},
	} {
		p.Device = "veth"
		want = "Redirect path of veth, indirect branches: " + want
		if got := AgentPaths(&record.Agent{AgentParts: record.AgentParts{Paths: []record.AgentPath{p}}}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// One entry is no entries.
func TestAgentCost(t *testing.T) {
	t.Parallel()
	for slots, want := range map[int]string{0: "at most 0 entries of", 1: "at most 1 entry of", 4: "at most 4 entries of"} {
		a := &record.Agent{}
		a.Cost.Slots = slots
		if got := AgentCost(a); !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}
