package experiment

import (
	"bufio"
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/dev/gobin"
	"github.com/unthunk/unthunk/internal/testutil"
)

var prefix = testutil.Package("internal/dev/experiment.")

// build returns the code of this package's tests, and its file.
func build(t *testing.T, options ...string) (*gobin.Text, string) {
	t.Helper()
	testutil.AMD64(t)
	if _, err := exec.LookPath("go"); err != nil {
		testutil.Missing(t, "the go command")
	}
	file := filepath.Join(t.TempDir(), "experiment.test")
	if err := gobin.BuildTest(file, ".", options...); err != nil {
		t.Fatal(err)
	}
	text, err := gobin.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return text, file
}

// loops are the hot loops: of each way, and of each stage of the bulks.
func loops(t *testing.T, text *gobin.Text) (perPacket, typeSwitch, bulks string, stages []string) {
	t.Helper()
	for _, name := range text.Names(prefix + "(*") {
		if strings.HasSuffix(name, ").bulk") {
			stages = append(stages, name)
		}
	}
	if len(stages) != 17 {
		t.Fatalf("stages in bulk: %q", stages)
	}
	worker := prefix + "(*Worker)."
	return worker + "interfaces", worker + "typeSwitch", worker + "bulks", stages
}

// The builds are what they are said to be: the indirect call of a stage is bare in the
// plain one and goes through a retpoline in the other, and loops over the packets of
// a bulk make no indirect branch in either.
func TestCode(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options []string
	}{{"plain", nil}, {"retpolines", gobin.Retpolines()}} {
		t.Run(tt.name, func(t *testing.T) {
			text, file := build(t, tt.options...)
			ret := tt.options != nil
			if n := text.ThunkCalls(); (n > 0) != ret {
				t.Errorf("%d calls of thunks in the program", n)
			}
			perPacket, typeSwitch, bulks, stages := loops(t, text)
			for _, name := range []string{perPacket, bulks} {
				calls, err := text.Calls(name)
				if err != nil {
					t.Fatal(err)
				}
				if want := map[bool][2]int{false: {0, 1}, true: {1, 0}}[ret]; len(calls.Thunks) != want[0] || len(calls.Bare) != want[1] {
					t.Errorf("%s: through thunks %q, bare %q", name, calls.Thunks, calls.Bare)
				}
			}
			// A switch over types may become a jump table; with retpolines
			// it never does.
			jumps := 0
			for _, name := range []string{typeSwitch, prefix + "direct"} {
				calls, err := text.Calls(name)
				if err != nil {
					t.Fatal(err)
				}
				jumps += len(calls.Bare)
				if len(calls.Thunks) > 0 {
					t.Errorf("%s: through thunks %q", name, calls.Thunks)
				}
			}
			if jumps > 1 || ret && jumps > 0 {
				t.Errorf("type switch: %d indirect branches", jumps)
			}
			calls, err := text.Reach(gobin.Cold, stages...)
			if err != nil {
				t.Fatal(err)
			}
			if len(calls.Thunks)+len(calls.Bare) > 0 {
				t.Errorf("bulks: through thunks %q, bare %q", calls.Thunks, calls.Bare)
			}
			objdump(t, file, ret, append(stages, perPacket, bulks))
		})
	}
}

// The same as go tool objdump reads it.
func objdump(t *testing.T, file string, ret bool, names []string) {
	t.Helper()
	out, err := exec.Command("go", "tool", "objdump", "-s", `^`+regexp.QuoteMeta(prefix)+`\(\*`, file).Output()
	if err != nil {
		t.Fatalf("go tool objdump: %v", err)
	}
	bare, thunks := make(map[string]int), make(map[string]int)
	function := ""
	seen := make(map[string]bool)
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		line := s.Text()
		if after, ok := strings.CutPrefix(line, "TEXT "); ok {
			function, _, _ = strings.Cut(after, "(SB)")
			seen[function] = true
			continue
		}
		fields := strings.Fields(line) // file:line, address, bytes, instruction
		if len(fields) < 5 || fields[3] != "CALL" && fields[3] != "JMP" {
			continue
		}
		switch {
		case strings.HasPrefix(fields[4], gobin.ThunkPrefix):
			thunks[function]++
		case !strings.HasSuffix(fields[4], "(SB)") && !strings.HasPrefix(fields[4], "0x"):
			bare[function]++
		}
	}
	for _, name := range names {
		want := 0
		if strings.Contains(name, "(*Worker)") {
			want = 1
		}
		got, other := bare[name], thunks[name]
		if ret {
			got, other = other, got
		}
		if !seen[name] || got != want || other != 0 {
			t.Errorf("objdump of %s: %d bare, %d through thunks", name, bare[name], thunks[name])
		}
	}
}

// Go's thunks are retpolines.
func TestThunks(t *testing.T) {
	text, _ := build(t, gobin.Retpolines()...)
	names := text.Names(gobin.ThunkPrefix)
	if len(names) < 10 {
		t.Fatalf("thunks %q", names)
	}
	for _, name := range names {
		code, addr, err := text.Code(name)
		if err != nil {
			t.Fatal(err)
		}
		if thunk := branch.NameIndirectThunk(code, addr, text.Name); thunk.Kind != branch.ThunkRetpoline {
			t.Errorf("%s is %+v", name, thunk)
		}
	}
}
