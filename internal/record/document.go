package record

import (
	"time"

	"github.com/unthunk/unthunk/internal/host"
)

// Schema is the version of the JSON documents this package writes.
const Schema = "unthunk/1"

// Document is one record. Row is the row type of its kind: [BenchRow] for
// "bench" and "run", [TaxRow] for "tax", [ProfileRow] for "profile", [SiteRow] for
// "xray", host.Finding for "check".
type Document[Row any] struct {
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
	Incomplete bool  `json:"incomplete,omitempty"`
	Rows       []Row `json:"rows"`
	// Prices are those of indirect calls. Only a record of run has them
	// beside its rows.
	Prices []TaxRow `json:"prices,omitempty"`
	// Stages are where a packet's ns go, and Profile what else its profile has.
	// Only a record of run has them beside its rows.
	Stages  []ProfileRow  `json:"stages,omitempty"`
	Profile *ProfileParts `json:"profile,omitempty"`
	// Conclusion is what a run comes to. Only a record of run has it.
	Conclusion *Conclusion `json:"verdict,omitempty"`
	// Partial are functions that could not be followed to their end. Only a
	// record of xray has them.
	Partial []PartialFunction `json:"partial,omitempty"`
	// Code is that of the thunks which indirect calls and returns go through, as it
	// stands in memory. Records of xray have it, of the running kernel.
	Code     []Listing `json:"code,omitempty"`
	Warnings []Warning `json:"warnings"`
}

// Warning travels with the numbers it casts doubt on.
type Warning struct {
	// Row is the name of the row concerned; empty when all are.
	Row string `json:"row,omitempty"`
	// Text is one sentence without a full stop.
	Text string `json:"text"`
}
