package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
)

// Names of devices and folders may hold any character: none of them speaks to a terminal, nor
// to the shell that completes.
func TestNamesWithEscapes(t *testing.T) {
	t.Parallel()
	const escape = "a\x1b]0;P\x07b\u202e"
	var out, errs bytes.Buffer
	w := forwardWriter{out: &out, events: &forwardEvents{}, started: time.Now()}
	totals := forward.Totals{Mode: "copy", Directions: []forward.Direction{{In: escape, Out: escape}}}
	if err := w.interval(totals, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := w.final(totals, nil); err != nil {
		t.Fatal(err)
	}
	sample := progSample{Device: escape, File: escape, Warnings: []string{escape}}
	if err := sample.write(&out, &errs, false); err != nil {
		t.Fatal(err)
	}
	if err := sample.write(&out, &errs, true); err != nil || strings.Contains(out.String(), "\u202e") {
		t.Errorf("%v, %q", err, out.String())
	}
	refused := &program.LoadError{Log: []string{"; " + escape}}
	flags := targetFlags{verifierLog: true}
	if err := flags.explain(t.Context(), std{err: &errs}, refused); err != refused {
		t.Error(err)
	}
	bench := record.New[record.BenchRow]("bench", host.Fingerprint{})
	bench.Warnings = []record.Warning{{Row: "drop/in=" + escape, Text: escape}}
	if err := writeGoBench(std{out: &out, err: &errs}, bench); err != nil {
		t.Fatal(err)
	}
	out.WriteString(progressLine("", rounds.Progress{What: escape}) + labProgressLine(1, 2, time.Second, escape))
	notThere := func(string) error { return errors.New(escape) }
	if _, err := leaveOut(t.Context(), &errs, []string{escape, "b"}, []string{escape}, notThere); err != nil {
		t.Error(err)
	}
	warner(&errs)("what " + escape + " sends is not counted")
	code, stdout, stderr := unthunk(t, "man", filepath.Join(t.TempDir(), escape))
	if code != exitDone {
		t.Error(code)
	}
	for _, text := range []string{out.String(), errs.String(), stdout + stderr} {
		if text == "" || strings.ContainsAny(text, "\x1b\x07\u202e") || !strings.Contains(text, "a\ufffd]0;P\ufffdb\ufffd") {
			t.Errorf("%q", text)
		}
	}
	devices := func(context.Context, []string, string) []string { return []string{escape, "eth0"} }
	if found, _ := completer(devices, true)(newRoot(std{out: &out, err: &errs}), nil, ""); !slices.Equal(found, []string{"eth0"}) {
		t.Errorf("%q", found)
	}
}
