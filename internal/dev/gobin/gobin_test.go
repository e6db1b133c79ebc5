package gobin

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

type caller interface{ call(x int) int }

type one struct{}
type two struct{}

//go:noinline
func (one) call(x int) int { return x + 1 }

//go:noinline
func (two) call(x int) int { return leaf(x) + 2 }

//go:noinline
func leaf(x int) int { return 3 * x }

//go:noinline
func indirect(c caller, x int) int { return c.call(x) + leaf(x) }

//go:noinline
func direct(x int) int { return two{}.call(x) + one{}.call(x) }

// The binary of these tests is read: what go test runs has no symbols.
func TestCalls(t *testing.T) {
	testutil.AMD64(t)
	if indirect(one{}, 1)+indirect(two{}, 1)+direct(1) != 20 {
		t.Error("the functions do not what they say")
	}
	if _, err := exec.LookPath("go"); err != nil {
		testutil.Missing(t, "the go command")
	}
	file := filepath.Join(t.TempDir(), "gobin.test")
	if err := BuildTest(file, "."); err != nil {
		t.Fatal(err)
	}
	text, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	p := testutil.Package("internal/dev/gobin") + "."
	calls, err := text.Reach(Cold, p+"indirect")
	if err != nil {
		t.Fatal(err)
	}
	if len(calls.Bare)+len(calls.Thunks) != 1 || !slices.Contains(calls.Direct, p+"leaf") {
		t.Errorf("indirect: %+v", calls)
	}
	if calls, err = text.Reach(Cold, p+"direct"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"direct", "one.call", "two.call", "leaf"} {
		if !slices.Contains(calls.Direct, p+want) {
			t.Errorf("%s is not among %q", want, calls.Direct)
		}
	}
	if len(calls.Bare)+len(calls.Thunks) != 0 {
		t.Errorf("direct: %+v", calls)
	}
	if _, err := text.Calls("no.such"); err == nil {
		t.Error("a function that is not there was read")
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, file := range []string{"gobin.go", "nothing"} {
		if _, err := Open(file); err == nil {
			t.Errorf("%s was read", file)
		}
	}
}

func TestCold(t *testing.T) {
	for name, want := range map[string]bool{
		"runtime.panicIndex": true, "runtime.morestack_noctxt": true, "runtime.gcWriteBarrier2": true,
		"runtime.memmove": false, testutil.Package("datapath.f"): false,
	} {
		if Cold(name) != want {
			t.Errorf("Cold(%s) = %v", name, !want)
		}
	}
}
