package main

import (
	"bytes"
	"context"
	"errors"
	"io"
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

// Of all series those that the archive has no more are left out, each in one line; a kernel that was named is not.
func TestLeaveOut(t *testing.T) {
	t.Parallel()
	gone := errors.New("download: 404 Not Found")
	resolve := func(kernel string) error {
		if kernel != "debian:6.12" {
			return gone
		}
		return nil
	}
	var said bytes.Buffer
	kept, err := leaveOut(t.Context(), &said, []string{"debian:5.10", "debian:6.12", "named"}, []string{"debian:5.10", "debian:6.12"}, resolve)
	if err != nil || !slices.Equal(kept, []string{"debian:6.12", "named"}) {
		t.Errorf("%q, %v", kept, err)
	}
	if got, want := said.String(), "unthunk: debian:5.10 is left out: download: 404 Not Found\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := leaveOut(t.Context(), io.Discard, []string{"debian:5.10"}, []string{"debian:5.10"}, resolve); !errors.Is(err, gone) {
		t.Errorf("none is left: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if kept, err := leaveOut(ctx, io.Discard, []string{"debian:5.10"}, []string{"debian:5.10"}, resolve); err != nil || len(kept) != 1 {
		t.Errorf("stopped: %q, %v", kept, err)
	}
}
