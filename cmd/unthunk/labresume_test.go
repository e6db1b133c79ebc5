package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// A record that is saved after each guest keeps those that the run does not name.
func TestSaveSoFar(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "lab.json")
	if err := record.Save(file, recordtest.GateLab("debian:6.1-cloud")); err != nil {
		t.Fatal(err)
	}
	f := labFlags{resume: true, output: outputFlags{save: file}}
	had, err := f.earlier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plan := lab.Plan{Kernels: []string{"debian:6.12-cloud"}, Bulks: []int{1, 16}, Earlier: had}
	if err := f.checkKept(plan); err != nil {
		t.Error(err)
	}
	var errs bytes.Buffer
	cells := []lab.CellResult{{Cell: lab.Cell{Kernel: "debian:6.12-cloud", NIC: lab.Veth}}}
	f.saveSoFar(t.Context(), std{nil, nil, &errs}, had.Document, cells, plan)
	saved, err := f.earlier(t.Context())
	if err != nil || errs.Len() > 0 {
		t.Fatal(err, &errs)
	}
	var names []string
	for _, r := range saved.Rows {
		names = append(names, r.Name)
	}
	want := []string{"debian:6.1-cloud/bulk=1", "debian:6.1-cloud/bulk=16", "debian:6.12-cloud/bulk=1", "debian:6.12-cloud/bulk=16"}
	if !slices.Equal(names, want) {
		t.Errorf("rows %q, want %q", names, want)
	}
	// A signal: what comes then is saved at the end.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	f.saveSoFar(ctx, std{nil, nil, &errs}, had.Document, cells, plan)
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) || errs.Len() > 0 {
		t.Errorf("a stopped run writes its record once more: %v %s", err, &errs)
	}
	for range record.MaxRows - 3 {
		had.Rows = append(had.Rows, record.LabRow{Name: "another"})
	}
	if err := f.checkKept(plan); err == nil {
		t.Error("a record of more rows than one may have: no error")
	}
}

// A signal ends the reading of the record that a run goes on with.
func TestEarlierInterrupted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "lab.json")
	if err := os.WriteFile(file, []byte("no record"), 0o600); err != nil { // of which the error is another
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := labFlags{resume: true, output: outputFlags{save: file}}
	if _, err := f.earlier(ctx); !errors.Is(err, errInterrupted) {
		t.Error(err)
	}
}
