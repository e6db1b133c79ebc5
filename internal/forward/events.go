package forward

import (
	"fmt"
	"sync"
	"time"
)

// Event is what happened to a device, and how often.
type Event struct {
	Device string `json:"device"`
	Name   string `json:"event"`
	Times  uint64 `json:"times"`
}

// Happening is an event as it happens.
type Happening struct {
	Time  time.Time
	Event // Times with this one
	// Text says it in a line. Warning is set when frames do not pass for it.
	Text    string
	Warning bool
}

// Events that are counted for each device.
const (
	eventLinkDown   = "link-down"    // it was found down after it had been up
	eventLinkUp     = "link-up"      // it was found up after it had been down
	eventLost       = "device-lost"  // it went, or was moved to another namespace
	eventBack       = "device-back"  // and came back, with all it needs
	eventNoProgram  = "program-gone" // somebody took its XDP program off, or put another in its place
	eventReattached = "program-back" // and it got its program again
	eventQueue      = "queue-added"  // it has a queue more, which is used
)

// events counts what happens to devices, and tells of it.
type events struct {
	tell func(Happening)

	mu    sync.Mutex
	times map[Event]uint64 // of an event whose Times is 0
}

func newEvents(c Config) *events { return &events{tell: c.Happened, times: make(map[Event]uint64)} }

// note is an event that nobody was told of yet.
type note struct {
	event   string
	warning bool
	text    string
}

func notef(event string, warning bool, format string, args ...any) note {
	return note{event, warning, fmt.Sprintf(format, args...)}
}

// happen counts an event and tells of it. The caller holds no lock: who listens may take long.
func (e *events) happen(device string, n note) {
	key := Event{Device: device, Name: n.event}
	e.mu.Lock()
	e.times[key]++
	h := Happening{time.Now(), Event{device, n.event, e.times[key]}, n.text, n.warning}
	e.mu.Unlock()
	e.tell(h)
}

// list are the events of devices, with those that never happened.
func (e *events) list(devices []string) (list []Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range devices {
		for _, event := range []string{eventLinkDown, eventLinkUp, eventLost, eventBack, eventNoProgram, eventReattached, eventQueue} {
			key := Event{Device: d, Name: event}
			list = append(list, Event{d, event, e.times[key]})
		}
	}
	return list
}
