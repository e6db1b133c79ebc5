package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every unthunk command line in the README and the docs names a verb and flags
// that exist, and every link leads somewhere.
func TestDocs(t *testing.T) {
	root := filepath.Join("..", "..")
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join(root, "README.md"))
	command := regexp.MustCompile(`(?m)^(?:    |\$ (?:sudo )?)(unthunk(?: .*)?)$`)
	target := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	commands := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range command.FindAllStringSubmatch(string(b), -1) {
			commands++
			// What it does follows after two blanks.
			line, _, _ := strings.Cut(m[1], "  ")
			checkCommand(t, file, strings.Fields(line)[1:])
		}
		for _, m := range target.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		if strings.Contains(string(b), "@") {
			t.Errorf("%s: a placeholder is left", file)
		}
	}
	if commands < 5 {
		t.Errorf("%d commands found in %v", commands, files)
	}
}

func checkCommand(t *testing.T, file string, args []string) {
	t.Helper()
	cmd, rest, err := newRoot(std{}).Find(args)
	if err != nil {
		t.Errorf("%s: unthunk %v: %v", file, args, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%s: unthunk %v: %v", file, args, err)
		return
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("%s: unthunk %v: %v", file, args, err)
	}
}
