package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
)

var quoted = regexp.MustCompile(`'[^']*'|\$\([^)]*\)|"[^"]*"`)

// Each verb's help has two examples, which are commands that exist.
func TestExamples(t *testing.T) {
	root := newRoot(std{})
	for _, cmd := range append(root.Commands(), root) {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		examples := 0
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			for command := range strings.SplitSeq(line, "&&") {
				command, _, _ = strings.Cut(command, " > ")
				// A word in quotes, or of another command, stands for one.
				words := strings.Fields(quoted.ReplaceAllString(command, "word"))
				if len(words) == 0 || words[0] != "unthunk" {
					t.Errorf("%s: %q is no command of unthunk", cmd.Name(), command)
					continue
				}
				checkCommand(t, "help of "+cmd.Name(), words[1:])
				examples++
			}
		}
		if examples < 2 {
			t.Errorf("%s has %d examples", cmd.Name(), examples)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			code, stdout, stderr := unthunk(t, "completion", shell)
			if code != exitDone || stderr != "" || !strings.Contains(stdout, "__complete") {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			if _, err := exec.LookPath(shell); err != nil {
				testutil.Missing(t, shell)
			}
			cmd := exec.Command(shell, "-n")
			cmd.Stdin = strings.NewReader(stdout)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{""}, "report"}, {[]string{"bench", "--scenario", ""}, "redirect-map"}, {[]string{"tax", "--pair", "b"}, "bpf-prog"},
		{[]string{"report", "--format", ""}, "markdown"}, {[]string{"bench", "--format", ""}, "text"}, {[]string{"completion", ""}, "fish"},
		{[]string{"lab", "--ab", ""}, "spectre_v2"}, {[]string{"history", ""}, ":16"},
	} {
		_, stdout, _ := unthunk(t, append([]string{"__complete"}, test.args...)...)
		found := false
		for line := range strings.SplitSeq(stdout, "\n") {
			value, _, _ := strings.Cut(line, "\t")
			found = found || value == test.want
		}
		if !found {
			t.Errorf("%v completes to %q, without %s", test.args, stdout, test.want)
		}
	}
	refuses(t, "completion", []refused{{"none", nil, exitUsage, "completion needs one of"},
		{"powershell", []string{"powershell"}, exitUsage, "bash, zsh, fish"}})
}

func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if code, _, stderr := unthunk(t, "man", dir); code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, cmd := range newRoot(std{}).Commands() {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "unthunk-"+cmd.Name()+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range []string{".SH SYNOPSIS", ".SH EXAMPLE", "unthunk"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s has no %q", cmd.Name(), want)
			}
		}
	}
	refuses(t, "man", []refused{{"none", nil, exitUsage, "man needs one folder"}})
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := unthunk(t, "version")
	if code != exitDone || stderr != "" || !strings.HasPrefix(stdout, "unthunk ") || !strings.Contains(stdout, "\nmodified  ") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	_, stdout, _ = unthunk(t, "version", "--json")
	var facts map[string]any
	if err := json.Unmarshal([]byte(stdout), &facts); err != nil || facts["go"] == "" {
		t.Errorf("%v: %s", err, stdout)
	}
	info := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	f := readBuild(info, true)
	revision, modified, version, time := "abc", true, "v1.2.3", "2026-01-02T03:04:05Z"
	want := buildFacts{Version: &version, Revision: &revision, Time: &time, Modified: &modified, Go: f.Go, Target: f.Target}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	f = readBuild(nil, false)
	if diff := cmp.Diff(buildFacts{Go: f.Go, Target: f.Target}, f); diff != "" {
		t.Errorf("facts of a build without them (-want +got):\n%s", diff)
	}
}
