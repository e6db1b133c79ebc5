// Command verify reads the output of go test -json on standard input and prints a
// table of the checks in it (internal/testutil/verify), with the machine they ran on,
// for docs/method.md:
//
//	UNTHUNK_VERIFY=1 go test -json -p=1 -run '^TestVerify' ./... | go run ./internal/dev/verify
//
// The exit code is 1 when a check or a build failed, or when there was no check.
// A check that is not judged is no failure.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/verify"
)

func main() {
	f := host.Identify(host.Options{})
	machine := fmt.Sprintf("%s, %s, Linux %s, %s", f.CPU, f.Virtual, f.Kernel, time.Now().UTC().Format(time.DateOnly))
	os.Exit(run(os.Stdin, os.Stdout, machine))
}

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action, Package, Test, Output, Key, Value string
	// ImportPath is the package of what a build prints, FailedBuild that of the build
	// that a package failed by.
	ImportPath, FailedBuild string
}

// row is a check that ran, or the output of a test that failed before it came to one.
type row struct {
	name string
	verify.Result
}

func run(stdin io.Reader, stdout io.Writer, machine string) int {
	rows, failures, err := read(stdin)
	if err != nil {
		fmt.Fprintf(stdout, "verify: %v\n", err)
		return 1
	}
	fmt.Fprintf(stdout, "%s\n\n| check | what must hold | measured | outcome |\n|---|---|---|---|\n", machine)
	count := make(map[string]int)
	for _, r := range rows {
		count[r.Outcome]++
		outcome := r.Outcome
		if r.Why != "" {
			outcome += " (" + r.Why + ")"
		}
		fmt.Fprintf(stdout, "| %s | %s | %s | %s |\n", r.name, r.Claim, r.Figure, outcome)
	}
	fmt.Fprintf(stdout, "\n%d passed, %d failed, %d not judged\n",
		count[verify.Passed], count[verify.Failed], count[verify.NotJudged])
	for _, f := range failures {
		fmt.Fprintf(stdout, "\n%s", f)
	}
	if len(failures) > 0 || len(rows) == 0 {
		return 1
	}
	return 0
}

// read returns the checks in their order, and what each failed test and package printed.
func read(r io.Reader) (rows []row, failures []string, err error) {
	output := make(map[string]*strings.Builder)
	of := func(e event) *strings.Builder {
		key := e.Package + " " + e.Test
		if output[key] == nil {
			output[key] = new(strings.Builder)
		}
		return output[key]
	}
	module := testutil.Package("")
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		var e event
		if line != "" && (json.Unmarshal([]byte(line), &e) != nil || e.Action == "") {
			failures = append(failures, line) // go test says why it did not begin
		}
		switch e.Action {
		case "output":
			of(e).WriteString(e.Output)
		case "build-output":
			of(event{Package: e.ImportPath}).WriteString(e.Output)
		case "fail":
			text := of(e).String()
			if e.FailedBuild != "" {
				text = of(event{Package: e.FailedBuild}).String() + text
			}
			failures = append(failures, text)
		case "attr":
			if e.Key != verify.Attribute {
				break
			}
			one := row{name: strings.TrimPrefix(e.Package, module) + " " + strings.TrimPrefix(e.Test, "TestVerify")}
			if err := json.Unmarshal([]byte(e.Value), &one.Result); err != nil {
				return nil, nil, fmt.Errorf("read result of %s: %w", e.Test, err)
			}
			rows = append(rows, one)
		}
		if errors.Is(err, io.EOF) {
			return rows, failures, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read test output: %w", err)
		}
	}
}
