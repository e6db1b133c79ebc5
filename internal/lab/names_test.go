package lab

import (
	"errors"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
)

// Guests of kernels in folders of any name, with a command line as long as a plan takes, are rows of a record that can be loaded.
func TestNames(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("folder/", 500)
	line := strings.TrimSpace(strings.Repeat("option=x ", record.MaxName/len("option=x ")))
	var cells, ofProgram []CellResult
	for _, kernel := range []string{"debian:6.12", long + "a/bzImage", long + "b/bzImage", "/k\u202e", "/k\u009b", "/k\xff"} {
		c := CellResult{Cell: Cell{Kernel: kernel, NIC: Veth, Append: line}, Err: errors.New("no " + kernel)}
		cells = append(cells, c)
		c.job = &progcount.Job{Target: kernel, Program: &program.Packed{Name: kernel}}
		ofProgram = append(ofProgram, c)
	}
	for name, cells := range map[string][]CellResult{"redirect": cells, "program": ofProgram} {
		l := Record(cells, []Row{{DefaultScenario, 16}}, nil)
		doc := record.New[record.LabRow]("lab", host.Fingerprint{})
		doc.Rows, doc.Warnings = l.Rows, l.Warnings
		l.Document = *doc
		b, err := record.Encode(l)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s, err := record.Parse(b); err != nil || len(s.Lab().Rows) != len(cells) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := cells[0].Name(); !strings.HasPrefix(got, "debian:6.12/option=x/option=x") {
		t.Errorf("name %q", got)
	}
	for _, plan := range []Plan{
		{Kernels: []string{"a"}, Appends: []string{line + " " + line}},
		{Kernels: []string{"a"}, Appends: []string{"a\u202e"}},
		{Kernels: []string{"a"}, CPUs: []string{"a\u009b"}},
	} {
		if err := plan.Validate(); err == nil || !strings.Contains(err.Error(), "more than 1000 bytes, or a character that no terminal shows") {
			t.Errorf("%.60q: %v", plan.Appends, err)
		}
	}
	if err := (Plan{Kernels: []string{"a"}, Appends: []string{line, " a  b "}}).Validate(); err != nil {
		t.Error(err)
	}
}

// What a guest says of its kernel where it counted nothing is checked too: else one guest could keep those of others from being saved.
func TestRefusedGuest(t *testing.T) {
	t.Parallel()
	want := BulkCount{Scenario: DefaultScenario, Bulk: 16}
	refused := want
	refused.Refused = "it cannot"
	for thunk, possible := range map[string]bool{"retpoline": true, "a\x1b[2J": false, strings.Repeat("x", 2*maxWhy): false} {
		c := CellResult{Measurement: &Measurement{Host: host.Fingerprint{IndirectThunk: thunk}}}
		if err := c.checkCount(&refused, &want); (err == nil) != possible {
			t.Errorf("%.20q: %v", thunk, err)
		}
	}
}
