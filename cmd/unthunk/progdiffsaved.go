package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/prog"
)

// take sets the flags of a replay that the user did not give as they were when a record was made.
func (f *diffFlags) take(cmd *cobra.Command, saved *record.Saved) error {
	fl := cmd.Flags()
	was := map[string]string{}
	for _, flag := range []string{"packets", "by", "working-set", "ifindex", "rx-queue", "metadata", "first-buffer"} {
		was[flag] = saved.Settings[flag]
	}
	if saved.Settings["cold"] != "" {
		was["cold"] = "true"
	}
	if p := saved.ProgCost().Packets; p.Seen > p.Kept { // a sample of a file
		was["max-packets"] = strconv.Itoa(p.Kept)
	}
	given := fl.Changed("packets")
	for _, flag := range slices.Sorted(maps.Keys(was)) {
		if was[flag] == "" || fl.Changed(flag) {
			continue
		}
		if err := fl.Set(flag, was[flag]); err != nil {
			return fmt.Errorf("the record's --%s %.40q is impossible", flag, was[flag])
		}
	}
	if given || f.replay.packets == "" {
		return nil
	}
	// A record may be another's: it names no other file than one beside the user, and none that waits for a writer.
	info, err := os.Stat(f.replay.packets)
	switch {
	case err != nil && prog.IsMade(f.replay.packets):
	case err != nil, !info.Mode().IsRegular(), filepath.Base(f.replay.packets) != f.replay.packets:
		return usagef("its packets are of a file %.200s, which is no file in this folder: --packets FILE says where it is",
			f.replay.packets)
	}
	return nil
}

// same refuses what a record cannot be compared with: another state of the program, or other packets, would be taken for
// a difference of the programs. now are the settings of this run.
func (f *diffFlags) same(saved *record.Saved, now map[string]string, packets *prog.Packets) error {
	for _, flag := range []string{"set", "map-size", "tail-call", "map", "maps-from"} {
		if was, is := saved.Settings[flag], now[flag]; withoutFolders(was) != withoutFolders(is) {
			return usagef("it was measured with --%s %.200s, this run would be with %.200s: prog diff needs the same",
				flag, cmp.Or(was, "none"), cmp.Or(is, "none"))
		}
	}
	if was, is := saved.Settings[ownNamespace], now[ownNamespace]; was != is {
		of := map[string]string{"": "the user's", "own": "a separate"}
		return usagef("it was measured in %s network namespace, this run would be in %s: a program may find other routes, sockets and "+
			"connections there", cmp.Or(of[was], "another"), cmp.Or(of[is], "another"))
	}
	was, is := saved.ProgCost().Packets, f.replay.source(packets)
	if was.Kept != is.Kept || was.Hash != "" && was.Hash != is.Hash {
		return usagef("it was measured on other packets: %d of %.200s, not these %d", was.Kept, was.Source, is.Kept)
	}
	if was.FirstBuffer != is.FirstBuffer {
		return usagef("its packets had first buffers of %d bytes, these have %d: prog diff needs the same", was.FirstBuffer, is.FirstBuffer)
	}
	return nil
}

// withoutFolders is a list of NAME=FILE with the names of the files alone.
func withoutFolders(list string) string {
	all := strings.Split(list, ",")
	for i, item := range all {
		if name, file, ok := strings.Cut(item, "="); ok {
			all[i] = name + "=" + filepath.Base(file)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}
