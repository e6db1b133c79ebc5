package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/prog"
)

// countedFlags say which program of the user's is counted in a guest, and on which packets.
type countedFlags struct {
	prog   string
	target targetFlags
	replay replayFlags
}

// countedFlagNames are the flags by name that mean nothing without --prog.
var countedFlagNames = []string{"packets", "max-packets", "by", "metadata", "set", "map-size", "tail-call", "maps-from", "map",
	"verifier-log"}

func (f *countedFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.prog, "prog", "", "count an XDP program of yours in place of a redirect: `TARGET` is an object file, lb.o or lb.o:NAME")
	fl.StringVar(&f.replay.packets, "packets", "", "with --prog: `FILE` of pcap or pcapng with Ethernet frames, or packets to make: "+
		strings.Join(prog.MadeNames(), ", ")+", with :SIZE, vlan- before, commas between")
	fl.IntVar(&f.replay.most, "max-packets", progcount.DefaultPackets, "packets to keep of a file: a uniform sample when it has more")
	fl.StringVar(&f.replay.by, "by", string(progcost.ByVerdict), "with --prog: rows by "+joined(progcost.Bys()))
	fl.StringVar(&f.replay.metadata, "metadata", "", "metadata before each packet, in `HEX`")
	f.target.add(fl, true)
	// A guest has no live program.
	if err := errors.Join(fl.MarkHidden("on-live-maps")); err != nil {
		panic(err) // the flag is not there
	}
}

// given tells whether a program is to be counted, or says what is wrong with the flags.
func (f *countedFlags) given(cmd *cobra.Command) (bool, error) {
	if f.prog != "" {
		for _, name := range []string{"nic", "dma", "bulk", "run", "scenario", "accel", "annotate", "svg", "on-live-maps"} {
			if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed {
				return false, usagef("--prog counts a program on packets: leave --%s out", name)
			}
		}
		return true, nil
	}
	for _, name := range countedFlagNames {
		if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed {
			return false, usagef("--%s is for --prog", name)
		}
	}
	return false, nil
}

// files are those that are read.
func (f *countedFlags) files() []string {
	if f.prog == "" {
		return nil
	}
	return append(f.target.files(f.prog), f.replay.packets)
}

// into makes a plan one that counts the program.
func (f *countedFlags) into(ctx context.Context, s std, plan *lab.Plan) (err error) {
	plan.Time = false
	if plan.Program, err = f.job(ctx, s); err != nil {
		return err
	}
	if err := plan.Validate(); err != nil {
		return usageError{err}
	}
	return nil
}

// job reads the program and its packets.
func (f *countedFlags) job(ctx context.Context, s std) (*progcount.Job, error) {
	switch {
	case f.replay.packets == "":
		return nil, usagef("which packets? --packets FILE reads a capture, --packets udp4,tcp-syn6 makes some")
	case f.replay.most < 1 || f.replay.most > progcount.MaxPackets:
		return nil, usagef("%d packets are not within 1 … %d", f.replay.most, progcount.MaxPackets)
	}
	j := &progcount.Job{Target: f.prog, By: progcost.By(f.replay.by)}
	if err := (progcost.Plan{By: j.By}).Validate(); err != nil {
		return nil, unknownValue(err, []string{f.replay.by}, progcost.Bys())
	}
	var err error
	if j.Metadata, err = hex.DecodeString(f.replay.metadata); err != nil {
		return nil, usagef("--metadata %.40q is not hex", f.replay.metadata)
	}
	target, err := program.Parse(f.prog)
	if err != nil {
		return nil, usageError{err}
	}
	o, err := f.target.options()
	if err != nil {
		return nil, err
	}
	if j.Packets, err = reading(ctx, f.replay.read); err != nil {
		return nil, err
	}
	if j.Packets, err = j.Packets.OneBuffer(progcount.NoFragments); err != nil {
		return nil, err
	}
	j.Source = f.replay.source(j.Packets)
	j.Program, err = program.Pack(ctx, target, o)
	return j, f.target.explain(ctx, s, interrupted(ctx, err))
}

// noCounts is an error when a program was counted, and no row has a number: packets that come out otherwise from run to
// run have none.
func noCounts(l *record.Lab, counts bool) error {
	if !counts || slices.ContainsFunc(l.Rows, func(r record.LabRow) bool { return r.Refused == "" }) {
		return nil
	}
	return errNoNumber
}

// tellRefused prints what the verifiers of guests said, where the user wants all of it.
func (f *countedFlags) tellRefused(ctx context.Context, s std, all []lab.CellResult) {
	for _, c := range all {
		refused, ok := errors.AsType[*lab.RefusedError](c.Err)
		if !ok || !f.target.verifierLog {
			continue
		}
		fmt.Fprintf(s.err, "%s:\n", cells.Clean(c.Name()))
		printLog(ctx, s, refused.Log)
	}
}

// newProgGuest is what lab and gate run in a guest to count a program.
func newProgGuest(s std) *cobra.Command {
	var traced bool
	cmd := &cobra.Command{
		Use:    lab.ProgramVerb,
		Short:  "Count what an XDP program takes a packet, inside a guest of lab",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !guest.Guest() {
				return &feature.Missing{Feature: "a guest of lab", Help: "unthunk lab --prog boots one and runs this in it"}
			}
			m, err := lab.ProgramInGuest(cmd.Context(), traced)
			if err != nil {
				return err
			}
			return report.JSON(s.out, m)
		},
	}
	cmd.Flags().BoolVar(&traced, "trace", false, "for a host that traces the guest")
	return cmd
}
