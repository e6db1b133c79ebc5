package reporttest

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Golden compares got with a file of testdata, or writes it with -update.
func Golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update accepts:\n%s", name, diff)
	}
}

// Fits fails when a line is wider than width, ends in a blank or holds a
// control character.
func Fits(t *testing.T, text string, width int) {
	t.Helper()
	for i, line := range strings.Split(text, "\n") {
		if n := utf8.RuneCountInString(line); n > width {
			t.Errorf("line %d has %d columns, not %d: %s", i+1, n, width, line)
		}
		if strings.TrimRight(line, " ") != line || strings.ContainsAny(line, "\x1b\t\r") {
			t.Errorf("line %d: %q", i+1, line)
		}
	}
}

type Broken struct{}

func (Broken) Write([]byte) (int, error) { return 0, errors.New("pipe is gone") }
