package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// identifier is the shape of what is no word: names of the kernel, flags, files, rows,
// numbers with a unit.
var identifier = regexp.MustCompile("`[^`]*`|" + `"[^"]*"|\S*[_/=<>@#$0-9]\S*` +
	`|--?[a-z][a-z-]*(?: [A-Z]+)?|\b(?:DIR|E[A-Z]{5,})\b|\S+[.:]\S+|\S+[a-z][A-Z]\S*|\S*\[bpf\]|\S+…`)

// word is a run of letters; the parts of a word with hyphens are words.
var word = regexp.MustCompile(`[A-Za-zµ]+(?:['’]s)?`)

// Each word that people read is plain English, or in the glossary.
func TestGlossaryHasTheWords(t *testing.T) {
	known := map[string]bool{}
	for _, w := range strings.Fields(readFile(t, "testdata/plain.txt")) {
		known[w] = true
	}
	plain := len(known)
	terms := glossaryTerms(t)
	for _, term := range terms {
		for _, w := range word.FindAllString(term, -1) {
			known[strings.ToLower(w)] = true
		}
	}
	used := map[string]bool{}
	for from, text := range readTexts(t) {
		for _, w := range wordsOf(text) {
			w, ok := inflected(w, known)
			used[w] = true
			if !ok {
				t.Errorf("%s: %q is no term of docs/glossary.md and not in testdata/plain.txt: add the term, or say it in plain words",
					from, w)
				known[w] = true
			}
		}
	}
	if plain == 0 || len(used) < 100 {
		t.Errorf("%d plain words, %d used: the test reads nothing", plain, len(used))
	}
	for _, w := range strings.Fields(readFile(t, "testdata/plain.txt")) {
		if !used[w] {
			t.Errorf("testdata/plain.txt: no output has the word %q", w)
		}
	}
}

// Each term of the glossary is in an output or in another page of docs.
func TestGlossaryIsUsed(t *testing.T) {
	var all strings.Builder
	for _, text := range readTexts(t) {
		all.WriteString(text)
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../../README.md") {
		if filepath.Base(page) != "glossary.md" {
			all.WriteString(readFile(t, page))
		}
	}
	text := strings.ToLower(strings.Join(strings.Fields(all.String()), " "))
	for _, term := range glossaryTerms(t) {
		if !strings.Contains(text, strings.ToLower(term)) {
			t.Errorf("docs/glossary.md: %q is in no output and no other page", term)
		}
	}
}

// glossaryTerms are the terms of the first columns of docs/glossary.md, those of a line
// apart.
func glossaryTerms(t *testing.T) []string {
	t.Helper()
	var terms []string
	for line := range strings.Lines(readFile(t, "../../docs/glossary.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 || strings.TrimSpace(cells[1]) == "term" || strings.HasPrefix(cells[1], "---") {
			continue
		}
		for term := range strings.FieldsFuncSeq(cells[1], func(r rune) bool { return strings.ContainsRune(",()", r) }) {
			if term = strings.TrimSpace(term); term != "" {
				terms = append(terms, term)
			}
		}
	}
	if len(terms) < 50 {
		t.Fatalf("docs/glossary.md: %d terms", len(terms))
	}
	return terms
}

// readTexts are the texts that people read, by where they come from: golden files, the
// help of each verb, and the sentences of check.
func readTexts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"../../internal/report/testdata/*.txt", "../../internal/report/page/testdata/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			texts[file] = readFile(t, file)
		}
	}
	for _, command := range verbs(newRoot(std{}))[1:] {
		help := append(aboutVerb(command), command.Short)
		for _, section := range flagsOf(command) {
			help = append(help, section.title)
			for _, f := range section.flags {
				_, _, about := describeFlag(f)
				help = append(help, strings.Join(about, " "))
			}
		}
		texts["help "+verbOf(command)] = strings.Join(help, "\n")
	}
	files, err := filepath.Glob("../../internal/host/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			texts[file] = sentences(t, file)
		}
	}
	return texts
}

// sentences are the strings of a Go file that have a space; lists of names have
// lines.
func sentences(t *testing.T, file string) string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		literal, ok := n.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		if s, err := strconv.Unquote(literal.Value); err == nil && strings.Contains(strings.TrimSpace(s), " ") &&
			!strings.Contains(s, "\n") {
			found = append(found, s)
		}
		return true
	})
	return strings.Join(found, "\n")
}

// wordsOf are the words of a text in lower case, each once, without identifiers.
func wordsOf(text string) []string {
	var words []string
	for _, w := range word.FindAllString(identifier.ReplaceAllString(text, " "), -1) {
		w = strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(w), "'s"), "’s")
		if len(w) > 1 {
			words = append(words, w)
		}
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// inflected is a word as known has it: with or without the s of a plural or a verb.
func inflected(w string, known map[string]bool) (string, bool) {
	for _, form := range []string{w, strings.TrimSuffix(w, "s"), strings.TrimSuffix(w, "es")} {
		if known[form] {
			return form, true
		}
	}
	return w, false
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
