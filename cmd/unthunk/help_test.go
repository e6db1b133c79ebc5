package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/unthunk/unthunk/internal/testutil"
)

var quoted = regexp.MustCompile(`'[^']*'|\$\([^)]*\)|"[^"]*"`)

// Each verb's help has two examples, which are commands that exist.
func TestExamples(t *testing.T) {
	root := newRoot(std{})
	for _, cmd := range verbs(root) {
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

func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	// The names are unthunk's: a link there, which anybody may have made, is replaced.
	theirs, link := filepath.Join(t.TempDir(), "theirs"), filepath.Join(dir, "unthunk-run.1")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(theirs, nil, 0o600), os.Symlink(theirs, link)); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := unthunk(t, "man", dir); code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if info, err := os.Stat(theirs); err != nil || info.Size() > 0 {
		t.Errorf("a page went through a link: %d bytes, %v", info.Size(), err)
	}
	for _, cmd := range verbs(newRoot(std{})) {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, pageName(cmd)+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range []string{".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES", ".SS Other"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s has no %q", cmd.Name(), want)
			}
		}
	}
	whole, err := os.ReadFile(filepath.Join(dir, "unthunk.1"))
	if err != nil || !strings.Contains(string(whole), `.BR unthunk\-bench (1)`) {
		t.Errorf("%v: the page of all does not name the others:\n%s", err, whole)
	}
	refuses(t, "man", []refused{{"none", nil, exitUsage, "man needs one folder"}})
	if _, err := exec.LookPath("groff"); err != nil {
		testutil.Missing(t, "groff")
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("groff", append([]string{"-man", "-Tutf8", "-ww", "-z"}, pages...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("groff: %v: %s", err, out)
	}
}

// Text of a man page is no request and no escape.
func TestTroff(t *testing.T) {
	const text = ".SH x\n'br\na\\b --json…"
	if got, want := troff(text), "\\&.SH x\n\\&'br\na\\eb \\-\\-json\\[u2026]"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The help of each verb fits a terminal of 80 columns, and each of its flags is in the
// section of its subject, which no other verb leaves empty.
func TestHelpFits(t *testing.T) {
	t.Parallel()
	root := newRoot(std{})
	named, used := map[string]bool{}, map[string]bool{}
	for _, s := range flagSections() {
		for _, name := range s.names {
			if named[name] {
				t.Errorf("flagSections has --%s twice", name)
			}
			named[name] = true
		}
	}
	for _, cmd := range verbs(root) {
		var b strings.Builder
		writeHelp(&b, cmd)
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(line) - 1; n > helpWidth {
				t.Errorf("%s --help: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			used[f.Name] = true
			if !f.Hidden && !cmd.Hidden && !named[f.Name] {
				t.Errorf("%s --%s is in no section of flagSections", cmd.CommandPath(), f.Name)
			}
			if !f.Hidden && !cmd.Hidden && !strings.Contains(b.String(), "--"+f.Name) {
				t.Errorf("%s --help leaves out --%s", cmd.CommandPath(), f.Name)
			}
		})
		if cmd.Parent() == root && !cmd.Hidden && !slices.ContainsFunc(verbSections(),
			func(s section) bool { return slices.Contains(s.names, cmd.Name()) }) {
			t.Errorf("%s is in no section of verbSections", cmd.Name())
		}
	}
	for name := range named {
		if !used[name] {
			t.Errorf("flagSections has --%s, and no verb", name)
		}
	}
	_, stdout, _ := unthunk(t, "profile", "--help")
	for _, want := range []string{
		"Devices:\n  --in DEV          profile", "interfaces: redirect what DEV receives\n  --out DEV         … to DEV\n",
		"\n  --bulk N          frames a batch, 1 to 256 (default 16)\n", "Output:\n  --json",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("profile --help lacks %q:\n%s", want, stdout)
		}
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := unthunk(t, "version")
	if code != exitDone || stderr != "" || !strings.HasPrefix(stdout, "unthunk ") || !strings.Contains(stdout, "\nmodified  ") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if strings.Contains(stdout, "unthunk (devel)") || strings.Contains(stdout, "unthunk unknown") {
		t.Errorf("the first line tells no build from another: %s", stdout)
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
	want := buildFacts{Version: &version, Revision: &revision, Time: &time, Modified: &modified, Build: f.Build, Go: f.Go, Target: f.Target}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	if f.Build == nil || len(*f.Build) != 20 || strings.Contains(*f.Build, "/") {
		t.Errorf("build %v is not the content part of a build ID", f.Build)
	}
	f = readBuild(nil, false)
	if diff := cmp.Diff(buildFacts{Build: f.Build, Go: f.Go, Target: f.Target}, f); diff != "" {
		t.Errorf("facts of a build without them (-want +got):\n%s", diff)
	}
}
