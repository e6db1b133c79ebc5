package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
			line, _, _ = strings.Cut(line, " > ")
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

// The table of packages in docs/architecture.md has every package of the module, and
// nothing else; the names of files and of package members in it are there.
func TestArchitecture(t *testing.T) {
	root := filepath.Join("..", "..")
	b, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), "## Packages\n")
	table, _, end := strings.Cut(rest, "\n## ")
	if !found || !end {
		t.Fatal("there is no section Packages")
	}
	named := make(map[string]bool)
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z0-9/]+)`").FindAllStringSubmatch(cells[1], -1) {
			named[m[1]] = true
		}
	}
	err = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		dir, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		code, err := filepath.Glob(filepath.Join(path, "*.go"))
		if err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(entry.Name(), ".") && dir != "." || entry.Name() == "testdata":
			return filepath.SkipDir
		case len(code) > 0 && !named[dir] && !strings.HasPrefix(dir, "internal/dev/") &&
			!strings.HasPrefix(dir, "examples/") && dir != "cmd/unthunk":
			t.Errorf("docs/architecture.md has no row for %s", dir)
		}
		delete(named, dir)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := range named {
		t.Errorf("docs/architecture.md has a row for %s, which is not there", dir)
	}
	for _, m := range regexp.MustCompile("`([a-z0-9/]+/[a-z0-9_.]+\\.(?:go|c))`").FindAllStringSubmatch(string(b), -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			if _, err = os.Stat(filepath.Join(root, "internal", m[1])); err != nil {
				t.Errorf("docs/architecture.md: %v", err)
			}
		}
	}
	member := regexp.MustCompile("`([a-z]+)\\.([A-Z][A-Za-z]+)(?:\\.([A-Za-z]+))?`")
	for _, m := range member.FindAllStringSubmatch(string(b), -1) {
		if !declared(t, root, m[1], m[2], m[3]) {
			t.Errorf("docs/architecture.md: there is no %s", strings.Trim(m[0], "`"))
		}
	}
}

// declared tells whether a package of the module has a member, and that member another.
func declared(t *testing.T, root, pkg, name, method string) bool {
	t.Helper()
	for _, pattern := range []string{pkg, "internal/" + pkg, "internal/*/" + pkg} {
		files, err := filepath.Glob(filepath.Join(root, pattern, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := `(?m)^(?:func|type) ` + name + `\b`
			if method != "" {
				want = `(?m)^func \(\w+ \*?` + name + `\) ` + method + `\(`
			} else if regexp.MustCompile(`(?m)^func \(\w+ \*?\w+\) ` + name + `\(`).Match(b) {
				return true
			}
			if regexp.MustCompile(want).Match(b) {
				return true
			}
		}
	}
	return false
}

// docs/library.md has each error that the libraries export for callers to tell apart, and names
// nothing that is not there.
func TestDocsLibrary(t *testing.T) {
	root := filepath.Join("..", "..")
	page := readFile(t, filepath.Join(root, "docs", "library.md"))
	errs := 0
	for _, pkg := range []string{"xsk", "datapath"} {
		files, err := filepath.Glob(filepath.Join(root, pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			for _, m := range regexp.MustCompile(`(?m)^(?:var)?\s*(Err[A-Z]\w*)\s*=`).FindAllStringSubmatch(readFile(t, file), -1) {
				errs++
				if !strings.Contains(page, "| `"+pkg+"."+m[1]+"` |") {
					t.Errorf("docs/library.md has no row for %s.%s", pkg, m[1])
				}
			}
		}
	}
	if errs < 8 {
		t.Errorf("%d errors found", errs)
	}
	for _, m := range regexp.MustCompile("`\\*?(xsk|datapath|header|filter|feature)\\.([A-Z]\\w*)").FindAllStringSubmatch(page, -1) {
		if !declared(t, root, m[1], m[2], "") && !strings.HasPrefix(m[2], "Err") {
			t.Errorf("docs/library.md: there is no %s.%s", m[1], m[2])
		}
	}
}

// The README is short, and its code is that of an example, which compiles.
func TestReadme(t *testing.T) {
	root := filepath.Join("..", "..")
	b, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 150 {
		t.Errorf("%d lines: its first reader has time for 150", n)
	}
	for _, section := range verbsOf(newRoot(std{})) {
		for _, cmd := range section.verbs {
			switch name := cmd.Name(); {
			case slices.Contains([]string{"run", "version", "man", "completion", "help"}, name): // without a verb, or about unthunk itself
			case !strings.Contains(string(b), "\n    unthunk "+name+" ") && !strings.Contains(string(b), "`"+name+"`"):
				t.Errorf("it does not say that there is %s", name)
			}
		}
	}
	example, err := os.ReadFile(filepath.Join(root, "examples", "forwarder", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, code, found := strings.Cut(string(b), "```go\n")
	code, _, end := strings.Cut(code, "```")
	if !found || !end {
		t.Fatal("there is no code")
	}
	indented := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(code, "\t$1")
	if !strings.Contains(string(example), indented) {
		t.Errorf("the code is not in examples/forwarder/main.go:\n%s", indented)
	}
}

// The page for who approves the tool names the capabilities that each verb's help names.
func TestSecurityPage(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| (`[a-z`, ]+`) \\| (.*) \\|$").FindAllStringSubmatch(string(b), -1) {
		for verb := range strings.SplitSeq(m[1], ", ") {
			named[strings.Trim(verb, "`")] = m[2] + "."
		}
	}
	root := newRoot(std{})
	for _, cmd := range verbs(root)[1:] {
		if cmd.Hidden || cmd.Name() == "help" || grouping(cmd) {
			continue
		}
		if got, want := named[verbOf(cmd)], rightsOf(cmd).about; got != want {
			t.Errorf("docs/security.md says %q of %s, its help %q", got, verbOf(cmd), want)
		}
	}
}
