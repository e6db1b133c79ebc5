package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/program/lines"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// targetFlags are those of a verb that takes a program of the user's.
type targetFlags struct {
	set, maps   []string
	sizes       []string
	tailCalls   []string
	mapsFrom    string
	onLiveMaps  bool
	verifierLog bool
	run         bool
	compared    bool // maps that --map names may be of one program of two
	ports       bool // maps that redirects go by get entries from the verb
}

// targetFlagNames are the flags by name: not all verbs have all.
var targetFlagNames = []string{"set", "map-size", "tail-call", "maps-from", "map", "on-live-maps", "verifier-log"}

// add adds the flags. run is set for a verb that runs the program.
func (f *targetFlags) add(fl *pflag.FlagSet, run bool) {
	f.run = run
	fl.StringArrayVar(&f.set, "set", nil,
		"give a global variable of an object file a value before it is loaded: `NAME=VALUE`; may be repeated")
	fl.StringArrayVar(&f.sizes, "map-size", nil, "make a map of an object file with that many entries: `NAME=N`; may be repeated")
	fl.StringArrayVar(&f.tailCalls, "tail-call", nil,
		"put a program of an object file into its tail-call table: `TABLE:INDEX=PROGRAM`; may be repeated")
	if run {
		fl.StringVar(&f.mapsFrom, "maps-from", "",
			"copy what the maps of a live program hold, which are only read: `SOURCE` is id:N, dev:DEV, a pinned program, "+
				"or a folder of pinned maps")
		fl.StringArrayVar(&f.maps, "map", nil, "fill a map from what bpftool -j map dump wrote: `NAME=FILE`; may be repeated")
		fl.BoolVar(&f.onLiveMaps, "on-live-maps", false, "run a live program on its own maps, which changes what production uses")
	}
	fl.BoolVar(&f.verifierLog, "verifier-log", false, "when the verifier refuses the program, print all that it says")
}

// options turns flags into options, or says what is wrong with them.
func (f *targetFlags) options() (o program.Options, err error) {
	o = program.Options{
		MapsFrom: f.mapsFrom, Run: f.run, Ports: f.ports, SomeMaps: f.compared, OnLiveMaps: f.onLiveMaps, WholeLog: f.verifierLog,
	}
	if o.Set, err = pairs("set", f.set); err != nil {
		return o, err
	}
	if o.Maps, err = pairs("map", f.maps); err != nil {
		return o, err
	}
	sizes, err := pairs("map-size", f.sizes)
	o.Sizes = map[string]uint32{}
	for name, value := range sizes {
		n, errNumber := strconv.ParseUint(value, 10, 32)
		if errNumber != nil || n == 0 {
			return o, usagef("--map-size %s=%s: a map has 1 to 4294967295 entries", name, value)
		}
		o.Sizes[name] = uint32(n)
	}
	if err != nil {
		return o, err
	}
	o.TailCalls, err = f.tables()
	return o, err
}

// tables are the programs of tail-call tables.
func (f *targetFlags) tables() (map[string]map[uint32]string, error) {
	entries, err := pairs("tail-call", f.tailCalls)
	if err != nil {
		return nil, err
	}
	tables := map[string]map[uint32]string{}
	for entry, program := range entries {
		table, text, _ := strings.Cut(entry, ":")
		index, err := strconv.ParseUint(text, 10, 31)
		if err != nil || table == "" {
			return nil, usagef("--tail-call %s=%s is not TABLE:INDEX=PROGRAM", entry, program)
		}
		if tables[table] == nil {
			tables[table] = map[uint32]string{}
		}
		tables[table][uint32(index)] = program
	}
	return tables, nil
}

// pairs splits values like NAME=VALUE.
func pairs(flag string, values []string) (map[string]string, error) {
	all := map[string]string{}
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" || value == "" {
			return nil, usagef("--%s %q is not NAME=VALUE", flag, v)
		}
		if _, twice := all[name]; twice {
			return nil, usagef("--%s: %s is given twice", flag, name)
		}
		all[name] = value
	}
	return all, nil
}

// files are those that are read of targets, and of the flags: none is written to. A path may be of
// an object with the name of a program behind it.
func (f *targetFlags) files(targets ...string) (all []string) {
	for _, target := range targets {
		all = append(all, target)
		if i := strings.LastIndexByte(target, ':'); i > 0 {
			all = append(all, target[:i])
		}
	}
	for _, text := range f.maps {
		if _, file, ok := strings.Cut(text, "="); ok {
			all = append(all, file)
		}
	}
	return all
}

// open opens the program that the user names, and tells of it. Those beside it stay open.
func (f *targetFlags) open(ctx context.Context, s std, text string, beside ...*program.Opened) (*program.Opened, error) {
	opened, err := f.load(ctx, s, text, beside...)
	if err == nil {
		tell(s, opened)
	}
	return opened, err
}

// load opens the program that the user names. What is wrong with an option is wrong usage.
func (f *targetFlags) load(ctx context.Context, s std, text string, beside ...*program.Opened) (*program.Opened, error) {
	target, o, err := f.parse(text, beside)
	if err != nil {
		return nil, err
	}
	opened, err := target.Open(ctx, o)
	if err := f.explain(ctx, s, err); err != nil {
		return nil, err
	}
	return opened, nil
}

// parse is what the user names, and how it is opened.
func (f *targetFlags) parse(text string, beside []*program.Opened) (program.Target, program.Options, error) {
	target, err := program.Parse(text)
	if err != nil {
		return target, program.Options{}, usageError{err}
	}
	o, err := f.options()
	o.Beside = beside
	return target, o, err
}

// checkUsed refuses a map of --map that none of the programs uses.
func (f *targetFlags) checkUsed(opened []*program.Opened) error {
	files, err := pairs("map", f.maps)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !slices.ContainsFunc(opened, func(o *program.Opened) bool { return o.Maps[name] != nil }) {
			return usagef("--map %s: neither program uses a map of this name", name)
		}
	}
	return nil
}

// tell says what makes a program another than the user may think.
func tell(s std, opened *program.Opened) {
	tellAll(s, []string{opened.Name}, []*program.Opened{opened})
}

// tellAll is [tell] of programs that are compared: what is so of each is said once, all else of its target.
func tellAll(s std, targets []string, opened []*program.Opened) {
	said := make([][]string, len(opened))
	for i, o := range opened {
		said[i] = slices.Clone(o.Warnings)
		for _, c := range o.Copies {
			if c.Why != "" {
				said[i] = append(said[i], fmt.Sprintf("map %s is not copied whole: %s", c.Map, c.Why))
			}
		}
	}
	warn := warner(s.err)
	for i := range said {
		for _, text := range said[i] {
			all := !slices.ContainsFunc(said, func(of []string) bool { return !slices.Contains(of, text) })
			switch {
			case !all:
				warn(targets[i] + ": " + text)
			case i == 0:
				warn(text)
			}
		}
	}
}

// explain says of an error of a target which known name resembles one that is not there, or what
// the verifier says.
func (f *targetFlags) explain(ctx context.Context, s std, err error) error {
	if option, ok := errors.AsType[*program.OptionError](err); ok {
		if near := nearest(option.Name, option.Known); near != "" && option.Name != "" {
			return usagef("%w: did you mean %s?", err, near)
		}
		return usageError{err}
	}
	if refused, ok := errors.AsType[*program.LoadError](err); ok && len(refused.Log) > 0 {
		if !f.verifierLog {
			return fmt.Errorf("%w (--verifier-log prints all that it says)", err)
		}
		printLog(ctx, s, refused.Log)
	}
	return err
}

// printLog prints what the verifier says, until ctx ends or it cannot be written.
func printLog(ctx context.Context, s std, log []string) {
	for _, line := range log {
		if ctx.Err() != nil {
			return
		}
		if _, err := fmt.Fprintln(s.err, cells.Clean(line)); err != nil { // lines of the source are in it
			return
		}
	}
}

// openCounted opens an object once more, with counters of source lines in it, beside the one that is open.
func (f *targetFlags) openCounted(
	ctx context.Context, s std, text string, beside *program.Opened,
) (*program.Opened, *lines.Counters, error) {
	target, o, err := f.parse(text, []*program.Opened{beside})
	if err != nil {
		return nil, nil, err
	}
	opened, counters, err := progcost.OpenCounted(ctx, target, o)
	return opened, counters, f.explain(ctx, s, err)
}
