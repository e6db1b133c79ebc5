package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/listen"
	"github.com/unthunk/unthunk/internal/report"
)

func newFleetIngest(s std) *cobra.Command {
	var store, tokenFile string
	var o outputFlags
	var serve listen.Options
	cmd := &cobra.Command{
		Use:   "ingest [FILE|DIR|-]…",
		Short: "Put records of agent into the store",
		Long: `Put records of agent into the store: files, the files *.json of folders and of those below
them, and what comes on standard input, where records may stand one a line or one after
another with other lines between them. Without an argument that is standard input. Files
stay where they are.

A record is taken once: what the store has is left as it is, so a run that was stopped,
or that a database ended, is repeated. What is no record of agent is counted by its
reason (truncated, foreign, schema, kind, impossible, large, unreadable, store, run) and
stops nothing. Records of a clock more than a day ahead are kept, and left out of answers.

With --listen it takes what unthunk agent --post sends, until a signal. Beyond the loopback
that needs --token-file, or users in --web-config.

A password is never on the command line: PGPASSFILE (~/.pgpass), PGPASSWORD and service
files say it, as with psql.`,
		Example: `  unthunk fleet ingest --store fleet.db /var/lib/unthunk/records
  unthunk fleet ingest --store postgres://fleet@db/fleet records`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkIngest(store, args); err != nil {
				return err
			}
			if err := checkListen(serve, tokenFile, args, o); err != nil {
				return err
			}
			if err := checkFiles(append(storeFiles(store), args...), outFile{"save", o.save}); err != nil {
				return err
			}
			for _, file := range storeFiles(store) { // it is read and written
				if err := checkFiles(append(serve.Files(), tokenFile), outFile{"store", file}); err != nil {
					return err
				}
			}
			if err := o.check(); err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{"-"}
			}
			ctx := cmd.Context()
			db, err := fleet.Create(ctx, store)
			if err != nil {
				return interrupted(ctx, err)
			}
			if serve.Address != "" {
				return errors.Join(receive(ctx, s, db, serve, tokenFile), db.Close())
			}
			in := fleet.Ingest{Store: db, In: s.in, Now: time.Now()}
			doc, err := in.Run(ctx, args...)
			doc.Settings = map[string]string{"version": buildVersion()}
			err = errors.Join(err, db.Close())
			errOut := o.publish(s, doc, func() error { return report.FleetIngest(s.out, textOptions(s.out), doc) })
			switch {
			case err != nil && ctx.Err() != nil:
				return errors.Join(errStopped, errOut)
			case err != nil:
				return errors.Join(fmt.Errorf("ingest: %w: what was stored stays, and another run takes the rest", err), errOut)
			case doc.New+doc.Known == 0:
				return errors.Join(errors.New("ingest: there was no record of agent"), errOut)
			}
			return errOut
		},
	}
	addStore(cmd, &store)
	o.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&serve.Address, "listen", "", "take records by HTTP at `[HOST:]PORT`; without a host on the loopback")
	fl.StringVar(&serve.WebConfig, "web-config", "", "TLS and users of --listen: a web configuration `FILE` of Prometheus")
	fl.StringVar(&tokenFile, "token-file", "", "with --listen: the bearer token that agents have to send is in `FILE`")
	return cmd
}

// checkListen refuses flags that do not go together.
func checkListen(serve listen.Options, tokenFile string, args []string, o outputFlags) error {
	if serve.Address == "" {
		if serve.WebConfig != "" || tokenFile != "" {
			return usagef("--web-config and --token-file go with --listen")
		}
		return nil
	}
	if _, err := listen.Host(serve.Address); err != nil {
		return usagef("--listen: %w", err)
	}
	if len(args) > 0 || o.json || o.save != "" {
		return usagef("--listen takes records by HTTP: files, --json and --save are of another run")
	}
	return nil
}

// checkIngest refuses what cannot be read, before anything is.
func checkIngest(store string, args []string) error {
	if err := checkStore(store); err != nil {
		return err
	}
	for i, arg := range args {
		if slices.Contains(args[:i], arg) {
			return usagef("%s is named twice", arg)
		}
		if _, err := os.Stat(arg); arg != "-" && err != nil {
			return fmt.Errorf("ingest: %w", err)
		}
	}
	return nil
}
