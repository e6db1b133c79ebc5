package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// What the packages behind the verbs advise names flags that there are: of the verb that stands before them, or of any.
func TestAdviceNamesFlags(t *testing.T) {
	t.Parallel()
	named := make(map[string]*cobra.Command)
	root := newRoot(std{})
	for _, cmd := range verbs(root)[1:] {
		named[verbOf(cmd)] = cmd
	}
	has := func(cmd *cobra.Command, flag string) bool {
		return cmd.Flags().Lookup(flag) != nil || cmd.PersistentFlags().Lookup(flag) != nil
	}
	advice := regexp.MustCompile(`(?:((?:prog )?[a-z]+) (?:[A-Z]+ )*)?--([a-z][a-z-]*)`)
	property := regexp.MustCompile(`[{;]--[a-z-]+:|var\(--[a-z-]+\)`) // of a style sheet
	found := 0
	err := filepath.WalkDir("../../internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && slices.Contains([]string{"dev", "guest", "testutil"}, d.Name()) { // other programs' flags
			if d.IsDir() && err == nil {
				return fs.SkipDir
			}
			return err
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			for _, m := range advice.FindAllStringSubmatch(property.ReplaceAllString(literal.Value, "{"), -1) {
				found++
				verb, flag := m[1], m[2]
				cmd := named[verb]
				known := cmd != nil && has(cmd, flag) || cmd == nil && has(root, flag)
				for _, other := range named {
					known = known || cmd == nil && has(other, flag)
				}
				if !known {
					t.Errorf("%s: %s: no flag --%s (of %q)", path, literal.Value, flag, verb)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 10 {
		t.Errorf("%d flags are advised, which is too few to be all", found)
	}
}
