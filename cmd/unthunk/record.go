package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
)

// stolen warns of CPU time that the hypervisor took.
func stolen(since func() float64) []record.Warning {
	if percent := since(); percent > 1 {
		return []record.Warning{{Text: fmt.Sprintf("the hypervisor took %.1f %% of the CPUs' time during the run", percent)}}
	}
	return nil
}

// ofSoftware warns that numbers were measured on a CPU that is emulated.
func ofSoftware(f host.Fingerprint) []record.Warning {
	if !f.Emulated() {
		return nil
	}
	return []record.Warning{{Text: "the CPU is emulated: times are those of QEMU, and say nothing of hardware"}}
}

// settings are what a run was made with, by option name, and the version that
// made it.
func settings(cmd *cobra.Command, l lengthFlags) map[string]string {
	m := map[string]string{"rounds": strconv.Itoa(l.rounds), "duration": l.duration.String(), "version": buildVersion()}
	given := func(name string) bool { fl := cmd.Flags().Lookup(name); return fl != nil && fl.Changed }
	for _, name := range []string{"scenario", "bulk", "operation", "mode", "place", "size", "in", "out", "pair",
		"packets", "by", "working-set", "ifindex", "rx-queue", "metadata", "first-buffer", "prog", "devmap", "set",
		"map-size", "tail-call", "maps-from", "map"} {
		fl := cmd.Flags().Lookup(name)
		if fl == nil || given("prog") && (name == "scenario" || name == "operation") {
			continue
		}
		value := strings.Trim(fl.Value.String(), "[]")
		if name == "prog" || name == "packets" { // a folder may have the name of a user
			value = filepath.Base(value)
		}
		if value != "" && value != "." {
			m[name] = value
		}
	}
	return m
}

// stopped makes a run an error that was stopped, or in which nothing got a
// number, once what it found is written.
func stopped[Row any](doc *record.Document[Row], refused func(Row) bool, err error) error {
	switch {
	case err != nil:
		return err
	case doc.Incomplete:
		return errStopped
	case !slices.ContainsFunc(doc.Rows, func(row Row) bool { return !refused(row) }):
		return errNoNumber
	}
	return nil
}
