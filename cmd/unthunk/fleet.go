package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/page"
)

// newFleet has the verbs about many machines. Each is in a file of its own.
func newFleet(s std) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Many machines: who pays what, which are odd, what a rollout costs",
		Long: `Many machines: who pays what, which are unlike their twins, what a rollout costs. fleet ingest
puts records of agent into a store, a SQLite file or a PostgreSQL database; the other verbs ask it.`,
		Example: `  unthunk fleet ingest --store fleet.db records
  unthunk fleet who --store fleet.db --by kernel,indirect`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(cmd, args[0])
			}
			return usagef("fleet needs a verb: see unthunk fleet --help")
		},
	}
	cmd.AddCommand(newFleetIngest(s), newFleetWho(s), newFleetOdd(s), newFleetCompare(s), newFleetReport())
	return cmd
}

// fleetFlags say of which records a question is.
type fleetFlags struct {
	store     string
	since, at string
	where     []string
}

func addStore(cmd *cobra.Command, store *string) {
	cmd.Flags().StringVar(store, "store", "", "the records: a SQLite `FILE` or its folder, or postgres://USER@HOST/DATABASE")
}

func (f *fleetFlags) add(cmd *cobra.Command) {
	addStore(cmd, &f.store)
	cmd.Flags().StringVar(&f.since, "since", "30d", "the newest record of each machine in that `TIME` counts: 30d, 12h")
	cmd.Flags().StringVar(&f.at, "at", "", "ask as of a `DATE`, 2026-11-01 or 2026-11-01T12:00:00Z")
}

func (f *fleetFlags) addWhere(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.where, "where", nil,
		"only machines that meet a `CONDITION`: kernel=6.12*,label:rack=r12; may be repeated")
}

// checkStore refuses a store that cannot be one.
func checkStore(store string) error {
	if store == "" {
		return usagef("--store is missing: the SQLite file that has the records, or postgres://USER@HOST/DATABASE")
	}
	if err := fleet.CheckStore(store); err != nil {
		return usageError{err}
	}
	return nil
}

// storeFiles are the files of a store.
func storeFiles(store string) []string {
	if fleet.IsPostgres(store) {
		return nil
	}
	return []string{fleet.File(store)}
}

// window is the time that a question is about.
func (f *fleetFlags) window() (w fleet.Window, err error) {
	if err := checkStore(f.store); err != nil {
		return w, err
	}
	if w.Since, err = parseDays(f.since); err != nil {
		return w, usagef("--since %v", err)
	}
	w.Until = time.Now()
	if f.at == "" {
		return w, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, f.at); err == nil {
			w.Until = at
			if layout == time.DateOnly {
				w.Until = at.Add(24*time.Hour - time.Second)
			}
			return w, nil
		}
	}
	return w, usagef("--at %q is no date: 2026-11-01, or 2026-11-01T12:00:00Z", f.at)
}

var days = regexp.MustCompile(`^([0-9]{1,5})([dw])$`)

// parseDays is a duration, which may be in days (d) or weeks (w).
func parseDays(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if m := days.FindStringSubmatch(text); m != nil {
		n, errNumber := strconv.Atoi(m[1])
		d, err = time.Duration(n)*24*time.Hour, errNumber
		if m[2] == "w" {
			d *= 7
		}
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no time: 30d, 4w or 12h", text)
	}
	return d, nil
}

// answerFlags say how an answer is written.
type answerFlags struct {
	output outputFlags
	format string
}

func (a *answerFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.format, "format", "text", "text, json, csv or markdown")
	a.output.add(cmd)
}

var answerFormats = []string{"text", "json", "csv", "markdown"}

// check finds out before the question whether its answer can be written.
func (a *answerFlags) check(store string) error {
	switch {
	case !slices.Contains(answerFormats, a.format):
		return unknownValue(fmt.Errorf("format %q is not one of %s", a.format, strings.Join(answerFormats, ", ")), []string{a.format},
			answerFormats)
	case a.output.json && a.format != "text" && a.format != "json":
		return usagef("--json and --format %s are two outputs: choose one", a.format)
	}
	a.output.json = a.output.json || a.format == "json"
	if err := checkFiles(storeFiles(store), outFile{"save", a.output.save}); err != nil {
		return err
	}
	return a.output.check()
}

// publish writes an answer; text is how people see it.
func (a *answerFlags) publish(ctx context.Context, s std, doc record.Doc, text func(w io.Writer) error) error {
	source := page.Source{Records: []*record.Saved{record.NewSaved(doc)}, Version: buildVersion()}
	return a.output.publishRead(ctx, s, doc, func(s std) error {
		switch a.format {
		case "csv":
			return page.CSV(ctx, s.out, source)
		case "markdown":
			return page.Markdown(ctx, s.out, source)
		}
		return text(s.out)
	})
}

// asked is the answer to a question to a store.
func asked[T any](ctx context.Context, where string, ask func(store *fleet.Store) (T, error)) (T, error) {
	return reading(ctx, func() (answer T, err error) {
		store, err := fleet.Open(ctx, where)
		if err != nil {
			return answer, err
		}
		answer, err = ask(store)
		return answer, errors.Join(err, store.Close())
	})
}

// parseWhere reads the conditions of a flag.
func parseWhere(flag string, texts []string) (fleet.Where, error) {
	where, err := fleet.ParseWhere(texts...)
	if err != nil {
		return nil, usagef("--%s: %w", flag, err)
	}
	return where, nil
}

// noRecords refuses arguments of a verb that reads a store: they are likely to be records.
func noRecords(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q: %s reads a store, into which unthunk fleet ingest puts records", args[0], verbOf(cmd))
	}
	return nil
}
