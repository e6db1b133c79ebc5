package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/page"
)

// reportFlags are what the user typed.
type reportFlags struct {
	output, format, section string
}

// maxReported is the most records a report is made of.
const maxReported = 64

func newReport(s std) *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "report FILE…|DIR",
		Short: "Make one page of saved records: pictures, tables, machines, warnings",
		Long: `Make one page of saved records: of run, bench, tax, profile, xray, lab, prog and compare
(what --save and --json write), in any mix. The page shows where a packet's ns go and
its indirect branches, the bulk ladder, prices, what is in the code of programs,
differences, flame graphs, machines and warnings; of a folder, what history shows. It is one file that loads nothing, for any
browser, printer or phone.

--format markdown is for issue trackers, --format csv has one number a line, --format svg
is the flame graph of one profile, or what differs between two, or, of lab on several kernels, what a packet takes by
kernel; they go to stdout without -o. --section writes one section alone, by the name that links to it have.`,
		Example: `  unthunk report run.json -o report.html
  unthunk report run.json lab.json runs -o report.html
  unthunk report before.json after.json change.json --format markdown
  unthunk report old.json new.json --format svg -o change.svg
  unthunk report history.json --format markdown --section kernels`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("report needs a saved record: --save of run, bench and others writes one")
			case len(args) > maxReported:
				return usagef("report of %d records: at most %d fit on a page", len(args), maxReported)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runReport(cmd.Context(), s, f, args) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "write to `FILE`")
	fl.StringVar(&f.format, "format", "html", "html, markdown, csv or svg")
	fl.StringVar(&f.section, "section", "", "write this section alone: path, ladder, kernels, lab, prices and others")
	return cmd
}

func runReport(ctx context.Context, s std, f reportFlags, args []string) error {
	formats := []string{"html", "markdown", "csv", "svg"}
	if !slices.Contains(formats, f.format) {
		return usagef("format %q is not html, markdown, csv or svg", f.format)
	}
	if f.format == "html" && f.output == "" {
		return usagef("a page goes to a file: add -o report.html")
	}
	if f.section != "" && f.format != "html" && f.format != "markdown" {
		return usagef("--section is of a page: --format %s has none", f.format)
	}
	if err := checkFiles(args, outFile{"output", f.output}); err != nil {
		return err
	}
	if f.output != "" {
		if err := outfile.Check(f.output); err != nil {
			return err
		}
	}
	src, err := reading(ctx, func() (page.Source, error) { return loadSource(args) })
	if err != nil {
		return err
	}
	src.Section = f.section
	made, err := reading(ctx, func() (*memory.Buffer, error) { return makeReport(ctx, f.format, src) })
	if err != nil {
		return err
	}
	if f.output != "" {
		return outfile.WriteFrom(f.output, made)
	}
	if _, err := made.WriteTo(s.out); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// makeReport is a report in one of the formats.
func makeReport(ctx context.Context, format string, src page.Source) (b *memory.Buffer, err error) {
	b = memory.NewBuffer(ctx, memory.MaxOutput)
	switch format {
	case "html":
		err = page.HTML(ctx, b, src)
	case "markdown":
		err = page.Markdown(ctx, b, src)
	case "csv":
		err = page.CSV(ctx, b, src)
	case "svg":
		err = page.SVG(ctx, b, src)
	}
	return b, err
}

// loadSource loads records and at most one folder of records.
func loadSource(paths []string) (page.Source, error) {
	src := page.Source{Version: buildVersion()}
	var all record.Together
	var labs []*record.Lab
	if err := all.Fit(paths...); err != nil {
		return src, err
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			if src.History != nil {
				return src, usagef("report of two folders: one fits on a page")
			}
			if src.History, err = compare.LoadHistory(&all, path); err != nil {
				return src, err
			}
			continue
		}
		saved, err := all.Load(path)
		if err != nil {
			return src, err
		}
		if saved.Check() != nil {
			return src, fmt.Errorf("report %s: a page has nothing of a record of check: unthunk compare says what two of them differ in", path)
		}
		src.Records = append(src.Records, saved)
		if l := saved.Lab(); l != nil {
			labs = append(labs, l)
		}
	}
	src.Kernels = compare.Kernels(labs)
	return src, nil
}
