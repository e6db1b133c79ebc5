package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/redirect"
)

// chainFlags are those of a verb that puts a program of the user's into the chain.
type chainFlags struct {
	prog    string
	devmaps []string
	packets string
	target  targetFlags
}

func (f *chainFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.prog, "prog", "",
		"a program of yours in the place of the program under test: `TARGET` is an object file (lb.o, or lb.o:NAME), "+
			"a pinned program, id:N or dev:DEV")
	fl.StringArrayVar(&f.devmaps, "devmap", nil,
		"with --prog, lead an entry of its devmap to the next device of the chain: `NAME:KEY`; may be repeated")
	fl.StringVar(&f.packets, "packets", "", "with --prog, send these one after the other: `FILE` of pcap or pcapng with Ethernet frames, or "+
		"packets to make, as those of prog cost; without it all frames are alike")
	f.target.add(fl, true)
	f.target.ports = true
}

// onlyWithProg are flags that say nothing without --prog.
var onlyWithProg = append([]string{"devmap", "packets"}, targetFlagNames...)

// check refuses flags that do not go together. notWith are those of the verb that say what --prog says otherwise.
func (f *chainFlags) check(cmd *cobra.Command, notWith ...string) error {
	if f.prog == "" {
		for _, name := range onlyWithProg {
			if cmd.Flags().Changed(name) {
				return usagef("--%s goes with --prog", name)
			}
		}
		return nil
	}
	for _, name := range notWith {
		if cmd.Flags().Changed(name) {
			return usagef("--%s does not go with --prog: the program is yours", name)
		}
	}
	if size := cmd.Flags().Lookup("size"); f.packets != "" && size != nil && size.Changed {
		return usagef("--size does not go with --packets, which have sizes of their own")
	}
	if _, err := program.Parse(f.prog); err != nil {
		return usageError{err}
	}
	if _, err := f.target.options(); err != nil {
		return err
	}
	_, err := f.ports()
	return err
}

// files are those that are read.
func (f *chainFlags) files() []string { return append(f.target.files(f.prog), f.packets) }

// ports reads --devmap.
func (f *chainFlags) ports() ([]redirect.Port, error) {
	var ports []redirect.Port
	for _, text := range f.devmaps {
		i := strings.LastIndexByte(text, ':')
		if i <= 0 {
			return nil, usagef("--devmap %q is not NAME:KEY", text)
		}
		key, err := strconv.ParseUint(text[i+1:], 0, 32)
		if err != nil {
			return nil, usagef("--devmap %q: the key is not a number from 0 to 4294967295", text)
		}
		ports = append(ports, redirect.Port{Map: text[:i], Key: uint32(key)})
	}
	return ports, nil
}

// open loads the program for a chain of frames of size bytes and the given bulks. It returns nil without --prog.
func (f *chainFlags) open(ctx context.Context, s std, size int, bulks []int) (*redirect.Target, error) {
	if f.prog == "" {
		return nil, nil
	}
	if err := redirect.Probe(ctx); err != nil {
		return nil, err
	}
	o := redirect.TargetOptions{Size: size, Bulks: bulks}
	var err error
	if o.Ports, err = f.ports(); err != nil {
		return nil, err
	}
	if f.packets != "" {
		if err := f.readPackets(ctx, s, &o); err != nil {
			return nil, err
		}
	}
	opened, err := f.target.load(ctx, s, f.prog)
	if err != nil {
		return nil, err
	}
	if _, err := staying(ctx, f.prog, opened); err != nil { // what stays is in the chain's network namespace
		return nil, errors.Join(err, opened.Close())
	}
	object := f.prog
	if !opened.Live {
		object = strings.TrimSuffix(object, ":"+opened.Name)
	}
	t, err := redirect.NewTarget(opened, object, o)
	if option, ok := errors.AsType[*program.OptionError](err); ok {
		if near := nearest(option.Name, option.Known); near != "" {
			return nil, usagef("%w: did you mean %s?", err, near)
		}
		return nil, usageError{err}
	}
	if err == nil { // an error is one line
		tell(s, opened)
	}
	return t, err
}

// readPackets reads --packets, and says which of them are not sent.
func (f *chainFlags) readPackets(ctx context.Context, s std, o *redirect.TargetOptions) error {
	from := replayFlags{packets: f.packets, most: redirect.MaxPackets}
	packets, err := reading(ctx, from.read)
	if err != nil {
		return err
	}
	leftOut := ""
	if o.Packets, leftOut, err = redirect.ChoosePackets(packets, o.Bulks); err != nil {
		return fmt.Errorf("--packets %s: %w", f.packets, err)
	}
	if leftOut != "" {
		warner(s.err)(leftOut)
	}
	o.Source = filepath.Base(f.packets)
	return nil
}
