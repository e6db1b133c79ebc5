package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// The numbers that the store has of a record by their place among them: in ns, and how many indirect branches a packet runs
// through at most, in bulks of 16.
const (
	control    = 0
	directCall = 1
	firstCall  = 2
	redirect   = firstCall + maxCalls
	branches   = redirect + len(redirectBulks)
	numbers    = branches + 1
)

// redirectBulks are those whose redirects the store has.
var redirectBulks = [3]string{"1", record.AnswerBulk, "64"}

// place is where the number of that name is; -1 for one that there is not.
func (s *Setup) place(name string) int {
	switch name {
	case record.FleetControl:
		return control
	case record.FleetDirectCall:
		return directCall
	}
	if bulk, ok := strings.CutPrefix(name, record.FleetRedirect); ok {
		if i := slices.Index(redirectBulks[:], bulk); i >= 0 {
			return redirect + i
		}
		return -1
	}
	if i := slices.Index(s.calls, name); i >= 0 {
		return firstCall + i
	}
	return -1
}

// numberNames are the names of the numbers that machines have, each once: the control, the direct call, indirect calls, redirects.
func numberNames(machines ...*Machine) []string {
	calls := make(map[string]bool)
	for _, m := range machines {
		for i, name := range m.Setup.calls {
			if m.Setup.place(name) == firstCall+i && name != record.FleetIndirect {
				calls[name] = true
			}
		}
	}
	names := append([]string{record.FleetControl, record.FleetDirectCall}, slices.Sorted(maps.Keys(calls))...)
	for _, bulk := range redirectBulks {
		names = append(names, record.FleetRedirect+bulk)
	}
	return names
}

// maxRecord is the most bytes a record of agent may have; one of 40 programs has some 60 kB.
const maxRecord = 4 << 20

// firstRecord is when there was no agent yet.
var firstRecord = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// maxAhead is how much later than now a record may be: clocks differ.
const maxAhead = 24 * time.Hour

// entry is a record as the store keeps it.
type entry struct {
	run, machine, name, boot string
	at                       int64 // seconds since 1970
	clock                    int   // 1: ahead, -1: behind
	refused                  string
	numbers                  [numbers]float64 // NaN where there is none
	setup                    *Setup
	setupID                  int64
	labels                   string
	doc                      []byte
	// from is the file that it is from.
	from string
}

// refusal is a document that is not taken, and why: one of the Refused constants of package record.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// newEntry makes an entry of a document. An error is a [refusal].
func newEntry(doc []byte, now time.Time) (*entry, error) {
	if len(doc) > maxRecord {
		return nil, &refusal{record.RefusedLarge, fmt.Errorf("larger than %d MiB", maxRecord>>20)}
	}
	saved, err := record.Parse(doc)
	if err != nil {
		return nil, &refusal{reasonOf(doc), err}
	}
	a := saved.Agent()
	if a == nil {
		return nil, &refusal{record.RefusedKind, fmt.Errorf("a record of %s: a fleet has those of agent", saved.Kind)}
	}
	if len(a.Run) > 64 || a.Time.Year() < 1970 || a.Time.Year() > 9999 {
		return nil, &refusal{record.RefusedImpossible, errors.New("impossible run identity or time")}
	}
	doc, err = onOneLine(doc)
	if err != nil {
		return nil, &refusal{record.RefusedForeign, err}
	}
	e := &entry{
		run: a.Run, machine: a.Machine.ID, name: a.Machine.Name, boot: a.Machine.Boot, at: a.Time.Unix(),
		numbers: numbersOf(a), setup: newSetup(a), doc: doc,
	}
	switch {
	case a.Time.After(now.Add(maxAhead)):
		e.clock = 1
	case a.Time.Before(firstRecord):
		e.clock = -1
	}
	for _, r := range a.Refused {
		if r.Part == record.PartMeasure {
			e.refused = r.Reason
		}
	}
	if e.labels, err = e.setup.labelsText(); err != nil {
		return nil, &refusal{record.RefusedImpossible, err}
	}
	e.setupID = e.setup.id(e.labels)
	return e, nil
}

// onOneLine is a document without the blanks between its values, when it has more lines than one.
func onOneLine(doc []byte) ([]byte, error) {
	doc = bytes.TrimSpace(doc)
	if bytes.IndexByte(doc, '\n') < 0 {
		return doc, nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, doc); err != nil {
		return nil, err
	}
	return compact.Bytes(), nil
}

// reasonOf is why a document that is no record cannot be read.
func reasonOf(doc []byte) string {
	var head struct {
		Schema *string `json:"schema"`
		Kind   string  `json:"kind"`
	}
	err := json.Unmarshal(doc, &head)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax) && syntax.Offset >= int64(len(bytes.TrimRight(doc, " \t\r\n"))):
		return record.RefusedTruncated
	case err != nil || head.Schema == nil:
		return record.RefusedForeign
	case *head.Schema != record.Schema:
		return record.RefusedSchema
	case head.Kind != "agent":
		return record.RefusedKind
	}
	return record.RefusedImpossible
}

// numbersOf are the numbers of a record.
func numbersOf(a *record.Agent) [numbers]float64 {
	var ns [numbers]float64
	for i := range ns {
		ns[i] = math.NaN()
	}
	set := func(n int, q *stat.Quantity) {
		if q != nil {
			ns[n] = q.Median
		}
	}
	for i, name := range append([]string{record.FleetControl, record.FleetDirectCall}, callsOf(a)...) {
		if row := a.Price(name); row != nil {
			set(i, row.Price)
		}
	}
	for i := range a.Redirect {
		for bulk, name := range redirectBulks {
			if a.Redirect[i].Labels["bulk"] == name {
				set(redirect+bulk, a.Redirect[i].Hop)
			}
		}
	}
	for i := range a.Paths { // of several drivers the one with most
		if _, most := a.Paths[i].Branches(); !(most <= ns[branches]) {
			ns[branches] = most
		}
	}
	return ns
}

// measured tells whether an entry has a number.
func (e *entry) measured() bool { return hasNumber(e.numbers) }

// hasNumber tells whether one of them was measured: branches are counted in code.
func hasNumber(ns [numbers]float64) bool {
	for _, x := range ns[:branches] {
		if !math.IsNaN(x) {
			return true
		}
	}
	return false
}
