package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

// Events of the forwarder as a whole, which have no device.
const (
	eventReloaded    = "reloaded"
	eventNotReloaded = "reload-failed"
)

// forwardEvents tells people of warnings and events, a line each, and programs of each event, a
// document each. Any goroutine may call its methods.
type forwardEvents struct {
	text, documents io.Writer // which hold up nobody; documents is nil without --json

	mu                    sync.Mutex
	reloaded, notReloaded uint64
	last                  []string // of what was told, with the time
}

// lastLines is how many lines that were told a screen shows.
const lastLines = 4

func (e *forwardEvents) warn(text string) { e.note("warning: " + text) }

func (e *forwardEvents) note(text string) {
	text = line(text) // it may have the name of a device
	e.mu.Lock()
	e.last = append(e.last, time.Now().Format("15:04:05 ")+text)
	e.last = e.last[max(0, len(e.last)-lastLines):]
	e.mu.Unlock()
	fmt.Fprintln(e.text, text)
}

// lastTold are the last lines that were told, with their times.
func (e *forwardEvents) lastTold() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.last)
}

// forwardEvent is the document of one event.
type forwardEvent struct {
	Schema string    `json:"schema"`
	Kind   string    `json:"kind"`
	Time   time.Time `json:"time"`
	forward.Event
	Text string `json:"text"`
}

func (e *forwardEvents) happened(h forward.Happening) {
	if h.Warning {
		e.warn(h.Text)
	} else {
		e.note(h.Text)
	}
	if e.documents != nil {
		// Where nobody reads any more the next line ends the verb.
		_ = report.JSONLine(e.documents, forwardEvent{
			Schema: record.Schema, Kind: "forward-event", Time: h.Time.UTC(), Event: h.Event, Text: h.Text,
		})
	}
}

// reload counts that the files were read again, and tells of it; err is why nothing changed.
func (e *forwardEvents) reload(err error) {
	h := forward.Happening{Time: time.Now(), Event: forward.Event{Name: eventReloaded}, Text: "reloaded"}
	e.mu.Lock()
	if err != nil {
		e.notReloaded++
		h.Name, h.Times = eventNotReloaded, e.notReloaded
		h.Text, h.Warning = fmt.Sprintf("not reloaded: %v", err), true
	} else {
		e.reloaded++
		h.Times = e.reloaded
	}
	e.mu.Unlock()
	e.happened(h)
}

// reloads are how often the files were read again, and how often that changed nothing.
func (e *forwardEvents) reloads() (done, failed uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reloaded, e.notReloaded
}

// since are the events since the beginning, without what never happened.
func (e *forwardEvents) since(t forward.Totals) []forward.Event {
	done, failed := e.reloads()
	own := []forward.Event{{Name: eventReloaded, Times: done}, {Name: eventNotReloaded, Times: failed}}
	list := []forward.Event{}
	for _, event := range slices.Concat(t.Events, own) {
		if event.Times > 0 {
			list = append(list, event)
		}
	}
	return list
}
