package main

import (
	"time"

	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// forwardRow is one direction over a time. Rates are of frames sent.
type forwardRow struct {
	Name     string         `json:"name"`
	In       string         `json:"in"`
	Out      string         `json:"out"`
	Up       bool           `json:"up"`
	Mpps     float64        `json:"mpps"`
	NS       *float64       `json:"ns-per-packet"`
	Batch    *float64       `json:"batch-fill"`
	Bulk     *float64       `json:"bulk-fill"`
	Received uint64         `json:"received"`
	Sent     uint64         `json:"sent"`
	Passed   uint64         `json:"passed"`
	Bytes    uint64         `json:"bytes"`
	InFlight uint64         `json:"in-flight"`
	Drops    []forward.Drop `json:"drops"`

	down []string // those of both devices whose link is down
}

// devices are those of a row for a terminal: the kernel takes any character for a name but
// spaces and slashes.
func (r forwardRow) devices() string { return cells.Clean(r.In + " → " + r.Out) }

type forwardDocument struct {
	Schema  string         `json:"schema"`
	Kind    string         `json:"kind"`
	Time    time.Time      `json:"time"`
	Seconds float64        `json:"seconds"`
	Final   bool           `json:"final"`
	Mode    string         `json:"mode"`
	Workers int            `json:"workers"`
	Rows    []forwardRow   `json:"rows"`
	Queues  []queueRow     `json:"queues"`
	Links   []forward.Link `json:"links"`
	Passage []passageRow   `json:"passage"`
	// Events are what happened since the beginning, without what never did.
	Events []forward.Event `json:"events"`
	// LeftOut is how many documents were left out since the beginning, as nobody had read those before.
	LeftOut uint64 `json:"left-out"`
}

// rows are what happened between two readings.
func rows(before, after forward.Totals, took time.Duration) []forwardRow {
	var all uint64
	for i, d := range after.Directions {
		all += d.Received - previous(before, i).Received
	}
	list := []forwardRow{}
	for i, d := range after.Directions {
		p := previous(before, i)
		r := forwardRow{
			Name: d.In + "-to-" + d.Out, In: d.In, Out: d.Out, Up: d.Up, InFlight: d.InFlight,
			Received: d.Received - p.Received, Sent: d.Sent - p.Sent, Passed: d.Passed - p.Passed,
			Bytes: d.Bytes - p.Bytes,
			Mpps:  float64(d.Sent-p.Sent) / took.Seconds() / 1e6, Drops: []forward.Drop{},
		}
		r.Batch = ratio(float64(r.Received), float64(d.Batches-p.Batches))
		r.Bulk = ratio(float64(d.Handed-p.Handed), float64(d.Bulks-p.Bulks))
		if busy := after.Busy - before.Busy; busy > 0 {
			// The workers do all directions: that of one alone is not known.
			if r.Received > 0 {
				r.NS = ratio(float64(busy.Nanoseconds()), float64(all))
			}
		}
		for _, l := range after.Links {
			if !l.Up && (l.Device == d.In || l.Device == d.Out) {
				r.down = append(r.down, l.Device)
			}
		}
		for j, drop := range d.Drops {
			if j < len(p.Drops) {
				drop.Frames -= min(drop.Frames, p.Drops[j].Frames)
			}
			if drop.Frames > 0 {
				r.Drops = append(r.Drops, drop)
			}
		}
		list = append(list, r)
	}
	return list
}

func previous(t forward.Totals, i int) forward.Direction {
	if i < len(t.Directions) {
		return t.Directions[i]
	}
	return forward.Direction{}
}

// ratio is nil when there is nothing to divide by.
func ratio(a, b float64) *float64 {
	if b == 0 {
		return nil
	}
	r := a / b
	return &r
}
