package main

import (
	"time"

	"github.com/spf13/cobra"

	"unthunk/host"
	"unthunk/report"
	"unthunk/result"
)

func newCheck(s std) *cobra.Command {
	var (
		asJSON bool
		save   string
	)
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what this machine does to XDP_REDIRECT",
		Long: `Say what this machine does to XDP_REDIRECT: CPU, kernel, what an indirect call
and a return really are in kernel memory, mitigations, BPF, NICs, IOMMU.

Each row is what was found, → what it means for a redirected packet, and what
to do about it. It changes nothing. Without root it shows what it can and
names what it could not see (?).`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			begin := time.Now()
			fp, findings, err := host.Check(cmd.Context(), host.Options{})
			if err != nil {
				return err
			}
			doc := result.Document[host.Finding]{
				Schema: result.Schema, Kind: "check", Time: begin, Run: result.NewRunID(), Host: fp,
				Rows: findings, Warnings: []result.Warning{},
			}
			if save != "" {
				if err := result.Save(save, doc); err != nil {
					return err
				}
			}
			if asJSON {
				return report.JSON(s.out, doc)
			}
			return report.Check(s.out, textOptions(s.out), fp, findings)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write one JSON document to standard output")
	cmd.Flags().StringVar(&save, "save", "", "save the JSON document to `file`")
	return cmd
}
