package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/filter"
	"github.com/unthunk/unthunk/internal/capture"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// progRecordFlags are what the user typed.
type progRecordFlags struct {
	dev, filter, file string
	duration          time.Duration
	packets, snaplen  int
	promiscuous, json bool
}

func newProgRecord(s std) *cobra.Command {
	var f progRecordFlags
	cmd := &cobra.Command{
		Use:   "record --dev DEV -o FILE",
		Short: "Take a sample of the packets that a device receives, for replay",
		Long: `Take a sample of the packets that a device receives, as a pcap file with times in ns,
for unthunk prog cost. It reads a packet socket: no XDP program is attached, and no
setting of the device is changed unless --promiscuous asks for packets of other addresses.

What an XDP program on the device drops, sends or redirects reaches no packet socket
and is not in the sample. Packets that the kernel merged of several (GRO, LRO)
are left out and counted, as no XDP program gets such: ethtool -K DEV gro off lro off
separates them. VLAN tags that the device took out are put back.`,
		Example: `  unthunk prog record --dev eth0 -o p.pcap
  unthunk prog record --dev eth0 --filter 'udp port 53' -o dns.pcap`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runProgRecord(cmd.Context(), s, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.dev, "dev", "", "what `DEV` receives")
	fl.StringVarP(&f.file, "output", "o", "", "write to `FILE`; a new file is for its owner alone (mode 0600)")
	fl.DurationVar(&f.duration, "duration", 5*time.Second, "how long")
	fl.IntVar(&f.packets, "packets", 1_000_000, "at most `N` packets; 0 is no limit")
	fl.IntVar(&f.snaplen, "snaplen", 0, "keep `N` bytes of each packet; 0 is all, which replay needs")
	fl.StringVar(&f.filter, "filter", "", "only packets that match a pcap `EXPRESSION`, or the output of tcpdump -ddd")
	fl.BoolVar(&f.promiscuous, "promiscuous", false, "also packets for other addresses: the device is promiscuous while it runs")
	fl.BoolVar(&f.json, "json", false, "print one JSON document and nothing else")
	return cmd
}

// options turns flags into those of a capture, or says what is wrong with them.
func (f progRecordFlags) options() (o capture.Options, err error) {
	switch {
	case f.dev == "":
		return o, usagef("which device? Give --dev")
	case f.file == "":
		return o, usagef("where to? Give -o FILE")
	case f.duration < 10*time.Millisecond:
		return o, usagef("--duration %v: must be 10ms or more", f.duration)
	case f.packets < 0:
		return o, usagef("--packets %d is negative", f.packets)
	case f.snaplen != 0 && f.snaplen < 14:
		return o, usagef("--snaplen %d: an Ethernet header has 14 bytes", f.snaplen)
	}
	o = capture.Options{Duration: f.duration, Packets: f.packets, Snaplen: f.snaplen, Promiscuous: f.promiscuous}
	if f.filter != "" {
		if o.Filter, err = filter.Compile(f.filter); err != nil {
			return o, usagef("--filter: %v", err)
		}
	}
	return o, nil
}

func runProgRecord(ctx context.Context, s std, f progRecordFlags) (err error) {
	o, err := f.options()
	if err != nil {
		return err
	}
	if err := outfile.CheckStream(f.file); err != nil {
		return err
	}
	if o.Device, err = device.Named(f.dev); err != nil {
		return err
	}
	if err := o.Device.CheckUp(); err != nil {
		return err
	}
	xdp, err := o.Device.Programs()
	if err != nil {
		return err
	}
	c, err := capture.Open(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	file, err := outfile.Stream(f.file) // now that all else was found: an old file is emptied
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	result, err := c.Run(ctx, s.unread(file))
	if err != nil {
		return err
	}
	sample := progSample{Schema: record.Schema, Kind: "prog-record", Time: time.Now().UTC(), Device: f.dev, File: f.file,
		Seconds: result.Took.Seconds(), Packets: result.Packets, Bytes: result.Bytes, Cut: result.Cut, Unmatched: result.Unmatched,
		Merged: result.Merged, Dropped: result.Dropped, Warnings: sampleWarnings(o, xdp, result)}
	out := s.out
	if f.file == "/dev/stdout" { // the packets are there
		out = s.err
	}
	if err := sample.write(out, s.err, f.json); err != nil {
		return err
	}
	if result.Packets == 0 {
		return fmt.Errorf("no packet came in %.1f s that is wanted: %s has no more than a header", result.Took.Seconds(), f.file)
	}
	return nil
}

// progSample is what is said of a capture.
type progSample struct {
	Schema    string    `json:"schema"`
	Kind      string    `json:"kind"`
	Time      time.Time `json:"time"`
	Device    string    `json:"device"`
	File      string    `json:"file"`
	Seconds   float64   `json:"seconds"`
	Packets   int       `json:"packets"`
	Bytes     int       `json:"bytes"`
	Cut       int       `json:"cut"`
	Unmatched int       `json:"unmatched"`
	Merged    int       `json:"merged"`
	Dropped   int       `json:"dropped"`
	Warnings  []string  `json:"warnings"`
}

// sampleWarnings say what the sample does not have.
func sampleWarnings(o capture.Options, xdp []device.Program, r capture.Result) []string {
	warnings := []string{}
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	for _, p := range xdp {
		warn("%s has an XDP program (id:%d, %s): what it drops, sends or redirects is not in the sample", o.Device.Name, p.ID, p.Mode)
	}
	if r.Dropped > 0 {
		warn("%d packets found no room in the ring: they are not in the sample", r.Dropped)
	}
	if r.Merged > 0 {
		warn("%d packets that the kernel merged of several are left out: ethtool -K %s gro off lro off keeps them apart",
			r.Merged, o.Device.Name)
	}
	if r.Cut > 0 {
		warn("%d packets are cut: they cannot be replayed whole", r.Cut)
	}
	if r.Full {
		warn("it ended after %d packets, %.1f s: --packets", r.Packets, r.Took.Seconds())
	}
	return warnings
}

func (p progSample) write(out, warn io.Writer, asJSON bool) error {
	if asJSON {
		return report.JSONLine(out, p)
	}
	fmt.Fprintf(out, "%d packets, %d bytes, of %s in %.1f s: %s\n", p.Packets, p.Bytes, cells.Clean(p.Device), p.Seconds,
		cells.Clean(p.File))
	if p.Unmatched > 0 {
		fmt.Fprintf(out, "%d others did not match the filter\n", p.Unmatched)
	}
	for _, text := range p.Warnings {
		fmt.Fprintf(warn, "warning: %s\n", cells.Clean(text))
	}
	return nil
}
