package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/testutil"
)

// The shells that a script completes in: what each needs beside itself, and a program that
// prints the completions of the words after the script's path, one a line.
var shells = []struct{ name, needs, program string }{
	{"bash", "/usr/share/bash-completion/bash_completion", `. /usr/share/bash-completion/bash_completion; . "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
compopt() { :; }
__start_unthunk
printf '%s\n' "${COMPREPLY[@]}"`},
	{"zsh", "", `script=$1; shift; compdef() { :; }; _describe() { print -rl -- $completions; }; . $script
words=("$@"); CURRENT=$#; _unthunk`},
	{"fish", "", `source $argv[1]; complete -C (string join -- ' ' $argv[2..])`},
}

// Each shell completes as unthunk says, the second value of a list too.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()
	bin := filepath.Dir(build(t))
	dir := t.TempDir()
	saved(t, dir, "a.json", "a", 1, 1)
	for _, shell := range shells {
		t.Run(shell.name, func(t *testing.T) {
			code, script, stderr := unthunk(t, "completion", shell.name)
			if code != exitDone || stderr != "" || !strings.Contains(script, "__complete") {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			if _, err := exec.LookPath(shell.name); err != nil {
				testutil.Missing(t, shell.name)
			}
			if _, err := os.Stat(shell.needs); err != nil && shell.needs != "" {
				testutil.Missing(t, "bash-completion")
			}
			file := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, test := range []struct{ line, want string }{
				{"ben", "bench"},
				{"bench --scenario redirect-m", "redirect-map"},
				{"bench --scenario redirect-map,t", "redirect-map,tx"},
				{"bench --bulk 1,6", "1,64"},
				{"forward --engine x", "xdp"},
				{"profile --annotate xdp_do_redirec", "xdp_do_redirect"},
			} {
				words := strings.Fields(test.line)
				args := append([]string{"-c", shell.program}, file, "unthunk")
				if shell.name != "fish" { // $0
					args = append([]string{"-c", shell.program, "unthunk"}, file, "unthunk")
				}
				cmd := exec.Command(shell.name, append(args, words...)...)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
				out, err := cmd.CombinedOutput()
				found := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' || r == '\t' || r == ' ' || r == ':' })
				if err != nil && len(found) == 0 || !slices.Contains(found, test.want) {
					t.Errorf("%q completes to %q, without %s: %v", test.line, out, test.want, err)
				}
			}
		})
	}
}

// What unthunk completes: verbs, and for each flag and argument what it can be.
func TestCompletion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	record := saved(t, dir, "a.json", "a", 1, 1)
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(t.TempDir(), "large.json") // the same, with spaces behind it
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, append(text, bytes.Repeat([]byte(" "), maxCompleted)...), 0o600); err != nil {
		t.Fatal(err)
	}
	const files, noFiles, folders, ext = ":0", ":4", ":16", ":8"
	for _, test := range []struct {
		line string
		want []string // lines of the answer
		not  string
	}{
		{"", []string{"report", noFiles}, "lab-guest"},
		{"bench --scenario ", []string{"redirect-map", "tx", noFiles}, ""},
		{"bench --scenario tx,", []string{"tx,redirect-map", "tx,drop"}, "tx,tx"},
		{"bench --operation none,s", []string{"none,swap-macs", "none,spin:"}, "none,read"},
		{"bench --operation sp", []string{"spin:", ":6"}, ""}, // no space, no files
		{"bench --in ", []string{links[0].Name, noFiles}, ""},
		{"forward --out ", []string{links[0].Name}, ""},
		{"xray --dev ", []string{links[0].Name}, ""},
		{"forward --engine ", []string{"afxdp", "xdp"}, ""},
		{"xray --func ", []string{"xdp_do_redirect", noFiles}, ""},
		{"xray --asm xdp_do_redirec", []string{"xdp_do_redirect"}, "bq_xmit_all"},
		{"profile --annotate ", []string{"bq_xmit_all"}, ""},
		{"compare " + record + " --by ", []string{"bulk", noFiles}, "a.json"},
		{"compare --by ", []string{noFiles}, ""},
		{"compare " + large + " --by ", []string{noFiles}, "bulk"},
		{"compare ", []string{"json", ext}, ""},
		{"report ", []string{"json", ext}, ""},
		{"history ", []string{folders}, ""},
		{"xray --root ", []string{folders}, ""},
		{"drivers ", []string{files}, ""},
		{"lab deb", []string{"debian:6.12-cloud"}, ""},
		{"lab x --nic veth,i", []string{"veth,igb"}, ""},
		{"lab x --dma ", []string{"iommu-strict"}, ""},
		{"lab x --ab ", []string{"spectre_v2"}, ""},
		{"tax --pair b", []string{"bpf-prog"}, "ndo-xdp-xmit"},
		{"report --format ", []string{"markdown"}, ""},
		{"bench --format ", []string{"text"}, ""},
		{"bench --save ", []string{files}, ""},
		{"bench ", []string{noFiles}, ""},
		{"help ta", []string{"tax"}, "bench"},
		{"completion ", []string{"fish", noFiles}, ""},
	} {
		args := append([]string{"__complete"}, strings.Split(test.line, " ")...)
		_, stdout, _ := unthunk(t, args...)
		var found []string
		for line := range strings.SplitSeq(stdout, "\n") {
			value, _, _ := strings.Cut(line, "\t")
			found = append(found, value)
		}
		for _, want := range test.want {
			if !slices.Contains(found, want) {
				t.Errorf("%q completes to %q, without %s", test.line, stdout, want)
			}
		}
		if test.not != "" && slices.Contains(found, test.not) {
			t.Errorf("%q completes to %q, with %s", test.line, stdout, test.not)
		}
	}
	refuses(t, "completion", []refused{{"none", nil, exitUsage, "completion needs one of"},
		{"powershell", []string{"powershell"}, exitUsage, "bash, zsh, fish"}})
}

// Names of others are not offered where a shell would take them for more than a name.
func TestCompletionUnquoted(t *testing.T) {
	t.Parallel()
	names := []string{"$(>PWNED)a", "$(>PWNED)b", "`id`", "a;b", "a b", "a|b",
		"~", "*", "a'b", `a"b`, `a\b`, "a>b", "a&b", "a\nb", "\x1b[2J", "",
		"ok", "dev:eth0.100", "debian:6.12-cloud", "none,swap-macs", "EPYC-v1", "veth+igb", "name=value", "100%", "a/b_c@d"}
	found, _ := completer(anyOf(names...), false)(&cobra.Command{}, nil, "")
	want := names[slices.Index(names, "ok"):]
	if !slices.Equal(found, want) {
		t.Errorf("offered are %q, want %q", found, want)
	}
}

// What is offered for a flag of lab is what its help names.
func TestCompletionIsHelp(t *testing.T) {
	t.Parallel()
	root := newRoot(std{})
	cmd, _, err := root.Find([]string{"lab"})
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"nic", "dma", "ab"} {
		for _, value := range flagValues()[flag](t.Context(), nil, "") {
			if usage := cmd.Flags().Lookup(flag).Usage; !strings.Contains(usage, value) {
				t.Errorf("--%s is completed to %s, its help says %s", flag, value, usage)
			}
		}
	}
}
