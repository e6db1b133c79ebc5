package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// An empty value is refused by each flag of each verb, before anything else is done: it is
// a shell variable that was not set. An empty --filter would forward everything.
func TestEmptyFlags(t *testing.T) {
	arguments := map[string][]string{
		"compare": {"old.json", "new.json"}, "report": {"run.json"}, "history": {"runs"},
		"lab": {"debian:6.12-cloud"}, "gate": {"debian:6.12-cloud"}, "completion": {"bash"}, "prog xray": {"lb.o"}, "prog cost": {"lb.o"},
		"prog diff":  {"old.o", "new.o"},
		"prog watch": {"dev:eth0"},
	}
	checked := make(map[string]bool)
	for _, cmd := range verbs(newRoot(std{}))[1:] {
		cmd.Flags().VisitAll(func(fl *pflag.Flag) {
			if kind := fl.Value.Type(); kind != "string" && kind != "stringSlice" {
				return
			}
			verb := verbOf(cmd)
			args := slices.Concat(strings.Fields(verb), []string{"--" + fl.Name, ""}, arguments[verb])
			code, stdout, stderr := unthunk(t, args...)
			refusal := exitUsage
			if verb == "gate" {
				refusal = exitCannotTell
			}
			if want := "unthunk: --" + fl.Name + " is empty\n"; code != refusal || stdout != "" || stderr != want {
				t.Errorf("%s: exit code %d, %s%s, want %s", strings.Join(args, " "), code, stdout, stderr, want)
			}
			checked[verb+" --"+fl.Name] = true
		})
	}
	for _, flag := range []string{"forward --filter", "forward --bpf", "forward --metrics", "lab --run", "lab --ab"} {
		if !checked[flag] {
			t.Errorf("%s was not looked at", flag)
		}
	}
	if code, _, stderr := unthunk(t, "--save", ""); code != exitUsage || stderr != "unthunk: --save is empty\n" {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
