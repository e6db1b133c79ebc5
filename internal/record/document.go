package record

import (
	"time"

	"github.com/unthunk/unthunk/internal/host"
)

// Schema is the version of the JSON documents this package writes.
const Schema = "unthunk/1"

// Head is what every record begins with.
type Head struct {
	Schema string `json:"schema"`
	// Kind is the verb that made the record.
	Kind string `json:"kind"`
	// Time the run began.
	Time time.Time `json:"time"`
	// Run is a random identity. Rows of two documents with the same Run
	// were measured interleaved and may be compared pair by pair.
	Run string `json:"run"`
	// Host is the machine.
	Host host.Fingerprint `json:"host"`
	// Settings the run was made with, by option name.
	Settings map[string]string `json:"settings,omitempty"`
	// Incomplete is set when the run was stopped before its end.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Document is one record. Row is the row type of its kind: [BenchRow] for
// "bench" and "run", [TaxRow] for "tax", [ProfileRow] for "profile", [SiteRow] for
// "xray", host.Finding for "check".
type Document[Row any] struct {
	Head
	Rows []Row `json:"rows"`
	// References are what fixed work took in the rounds of the rows; none in records of versions that did not take them.
	References []Reference `json:"references,omitempty"`
	RunParts
	XrayParts
	Warnings []Warning `json:"warnings"`
}

// New is a record of a run that begins now, with no rows.
func New[Row any](kind string, machine host.Fingerprint) *Document[Row] {
	return &Document[Row]{
		Head: Head{
			Schema: Schema, Kind: kind, Time: time.Now().UTC().Truncate(time.Second), Run: NewRunID(), Host: machine,
		},
		Rows: []Row{}, Warnings: []Warning{},
	}
}

// Warning travels with the numbers it casts doubt on.
type Warning struct {
	// Row is the name of the row concerned; empty when all are.
	Row string `json:"row,omitempty"`
	// Text is one sentence without a full stop.
	Text string `json:"text"`
}

// Doc is a record of any kind.
type Doc interface {
	head() *Head
	warnings() []Warning
	references() []Reference
}

func (d *Document[Row]) head() *Head         { return &d.Head }
func (d *Document[Row]) warnings() []Warning { return d.Warnings }

func (d *Document[Row]) references() []Reference { return d.References }

// Warn adds a warning: of the row of that name, of all rows when it is empty.
func (d *Document[Row]) Warn(row, text string) {
	d.Warnings = append(d.Warnings, Warning{Row: row, Text: text})
}
