package main

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

// outputFlags say where a record goes.
type outputFlags struct {
	json bool
	save string
	// given is the flag --save.
	given *pflag.Flag
}

func (o *outputFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON document and nothing else")
	cmd.Flags().StringVar(&o.save, "save", "", "also save the record in `FILE`")
	o.given = cmd.Flags().Lookup("save")
}

// check finds out before a run whether its record can be saved after it.
func (o outputFlags) check() error {
	if o.given != nil && o.given.Changed && o.save == "" {
		return usagef("--save is empty")
	}
	if o.save == "" {
		return nil
	}
	return record.CheckWritable(o.save)
}

// publish writes a record to where it was asked for; text is how people see
// it. It is shown first: what cannot be saved is not lost.
func (o outputFlags) publish(s std, doc any, text func() error) error {
	if o.json {
		text = func() error { return report.JSON(s.out, doc) }
	}
	err := text()
	if o.save != "" {
		err = errors.Join(err, record.Save(o.save, doc))
	}
	return err
}
