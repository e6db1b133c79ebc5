package main

import (
	"github.com/spf13/cobra"

	"unthunk/report"
	"unthunk/result"
)

// outputFlags say where a record goes.
type outputFlags struct {
	json bool
	save string
}

func (o *outputFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON document and nothing else")
	cmd.Flags().StringVar(&o.save, "save", "", "also save the record in `FILE`")
}

// check finds out before a run whether its record can be saved after it.
func (o outputFlags) check() error {
	if o.save == "" {
		return nil
	}
	return result.CheckWritable(o.save)
}

// publish writes a record to where it was asked for; text is how people see
// it.
func (o outputFlags) publish(s std, doc any, text func() error) error {
	if o.save != "" {
		if err := result.Save(o.save, doc); err != nil {
			return err
		}
	}
	if o.json {
		return report.JSON(s.out, doc)
	}
	return text()
}
