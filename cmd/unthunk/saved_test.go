package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files anew")

// What a report says of the version that made it, up to what follows it.
var madeBy = regexp.MustCompile(`by unthunk .*?( from \d+ records?\.)`)

// Records that were saved before this version are read, and say what they said:
// the files of testdata/saved were written by versions of 2026-11-28 and 29, and so
// were the texts beside them.
func TestSavedBefore(t *testing.T) {
	t.Chdir("testdata/saved")
	files := strings.Fields("run.json bench.json ops.json tax.json profile.json xray.json lab.json prog-list.json prog-xray.json " +
		"prog-cost.json prog-diff.json " +
		"change-bench.json change-tax.json change-profile.json change-xray.json change-lab.json")
	for golden, commands := range map[string][][]string{
		"report.csv": {append([]string{"report", "--format", "csv"}, files...)},
		"report.md":  {append([]string{"report", "--format", "markdown"}, files...)},
		"history.txt": {
			{"history", "."},
		},
		"compare.txt": {
			{"compare", "bench.json", "bench2.json"},
			{"compare", "ops.json", "--by", "operation"},
			{"compare", "run.json", "bench.json"},
			{"compare", "run.json", "tax.json"},
			{"compare", "tax.json", "tax2.json"},
			{"compare", "profile.json", "profile2.json"},
			{"compare", "xray.json", "xray2.json"},
			{"compare", "lab.json", "lab2.json"},
			{"compare", "prog-cost.json", "prog-cost.json"},
			{"compare", "bench.json", "tax.json"},
			{"compare", "lab.json", "xray.json"},
		},
	} {
		var got bytes.Buffer
		for _, args := range commands {
			code, stdout, stderr := unthunk(t, args...)
			if len(commands) > 1 {
				fmt.Fprintf(&got, "$ unthunk %s # exit code %d\n", strings.Join(args, " "), code)
			}
			// The one that wrote the texts had no name of its own. Markdown escapes letters
			// of a build's identity, by what stands beside them.
			stdout = madeBy.ReplaceAllString(stdout, "by unthunk (devel)$1")
			got.WriteString(stdout + stderr)
		}
		if *update {
			if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", golden, diff)
		}
	}
}
