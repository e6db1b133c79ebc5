package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// The inputs were captured from go test -json with the times taken out.
func TestRun(t *testing.T) {
	tests := []struct {
		name string
		code int
	}{
		{"pass", 0},
		{"fail", 1},
		{"cut", 1},
		{"nothing", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in, err := os.Open(filepath.Join("testdata", tt.name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			var out strings.Builder
			if code := run(nil, in, &out); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			golden := filepath.Join("testdata", tt.name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

// Of several files each counts, also one that ends early.
func TestRunFiles(t *testing.T) {
	t.Parallel()
	file := func(name string) string { return filepath.Join("testdata", name+".json") }
	sum := func(files ...string) (code int, last string) {
		var out strings.Builder
		code = run(files, strings.NewReader(""), &out)
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, " passed, ") {
				last = line
			}
		}
		return code, last
	}
	_, one := sum(file("pass"))
	code, two := sum(file("pass"), os.DevNull)
	if code != 0 || one != two || one == "" {
		t.Errorf("exit code %d: %q, with an empty file %q", code, one, two)
	}
	if code, _ := sum(file("pass"), file("cut")); code != 1 {
		t.Errorf("exit code %d with one file that is cut", code)
	}
	if code, _ := sum(file("pass"), "testdata/none.json"); code != 1 {
		t.Errorf("exit code %d with a file that is not there", code)
	}
}
