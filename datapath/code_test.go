package datapath

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/dev/gobin"
	"github.com/unthunk/unthunk/internal/testutil"
)

// In all that a poll reaches, in this module and by direct calls, indirect branches are
// those for a batch, the program's and that of a port of another package, and those of
// a port that is lost. They go through retpolines where it is built so.
func TestNoIndirectCallPerPacket(t *testing.T) {
	testutil.AMD64(t)
	if _, err := exec.LookPath("go"); err != nil {
		testutil.Missing(t, "the go command")
	}
	p := testutil.Package("datapath") + ".(*"
	want := []string{
		p + "Datapath).receive", p + "Datapath).receiveParts", // the program
		p + "Datapath).relay", // the route
		p + "slot).fill", p + "slot).receive", p + "slot).transmit", p + "slot).flush", p + "slot).complete",
		p + "Datapath).check", p + "Datapath).lose", p + "Datapath).report", p + "slot).set",
		p + "Memory).Flush", // Sent, of tests
	}
	for _, tt := range []struct {
		name    string
		options []string
	}{{"plain", nil}, {"retpolines", gobin.Retpolines()}} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "datapath.test")
			if err := gobin.BuildTest(file, ".", tt.options...); err != nil {
				t.Fatal(err)
			}
			text, err := gobin.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			leave := func(name string) bool { return gobin.Cold(name) || !strings.HasPrefix(name, testutil.Package("")) }
			calls, err := text.Reach(leave, p+"Datapath).poll")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{p + "Datapath).claim", p + "Datapath).redirect", p + "Datapath).accepted", p +
				"XSK).Receive", testutil.Package("xsk") + ".(*TX).Put", testutil.Package("xsk") + ".(*RX).Move"} {
				if !slices.Contains(calls.Direct, name) {
					t.Errorf("a poll does not reach %s", name)
				}
			}
			there, not := calls.Bare, calls.Thunks
			if tt.options != nil {
				there, not = not, there
			}
			if len(not) > 0 {
				t.Errorf("made another way: %q", not)
			}
			seen := make(map[string]bool)
			for _, call := range there {
				name, _, _ := strings.Cut(call, ": ")
				if !slices.Contains(want, name) || seen[name] {
					t.Errorf("indirect: %s", call)
				}
				seen[name] = true
			}
		})
	}
}
