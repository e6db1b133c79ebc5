package main

import (
	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

func newCheck(s std) *cobra.Command {
	var (
		o       outputFlags
		verbose bool
	)
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what this machine does to XDP_REDIRECT",
		Long: `Say what this machine does to XDP_REDIRECT: CPU, kernel, what an indirect call
and a return really are in kernel memory, mitigations, BPF, NICs, IOMMU.

Each row is what was found, → what it means for a redirected packet, and what
to do about it: what costs packets first. It changes nothing. Without root it shows what it can and
names what it could not see (?).`,
		Example: `  unthunk check
  unthunk check --save machine.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			fp, findings, err := host.Check(cmd.Context(), host.Options{})
			if err != nil {
				return err
			}
			doc := record.New[host.Finding]("check", fp)
			doc.Rows = record.Findings(findings)
			return o.publish(s, doc, func() error {
				return report.Check(s.out, textOptions(s.out), fp, findings, verbose)
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "also say what a row that is fine means")
	return cmd
}
