package testutil

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var byHand = regexp.MustCompile(`\b[a-z]+\.(Skip|Skipf|SkipNow)\(`)

// Tests skip through this package, which lets UNTHUNK_REQUIRE decide. A test that
// calls testing's own Skip passes where it should fail.
func TestSkipsByName(t *testing.T) {
	t.Parallel()
	const root = "../.."
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		// Code of others, and hidden folders.
		if err == nil && d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, ".go") || path == filepath.Join(root, "internal/testutil/skip.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for i, line := range strings.Split(string(b), "\n") {
			if byHand.MatchString(line) {
				t.Errorf("%s:%d: %s: call testutil.Missing or testutil.SkipMissing", path, i+1, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("looked at %d files: is %s still the module's root?", files, root)
	}
}
