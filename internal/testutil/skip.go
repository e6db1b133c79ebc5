package testutil

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/release"
)

// RequireEnv names the environment variable that lists features, separated by
// commas, whose absence fails a test instead of skipping it. "all" is every
// feature.
const RequireEnv = "UNTHUNK_REQUIRE"

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		SkipMissing(t, feature.Root(nil))
	}
}

// SkipMissing skips the test when err says that this machine lacks a feature.
// It returns when err is nil or any other error.
//
// It fails the test when the feature should be here: the running kernel is of the
// version that brings it ([feature.Missing], Since) or newer, and, where an option
// of the kernel's configuration can leave the feature out, the configuration has it
// built in.
func SkipMissing(t testing.TB, err error) {
	t.Helper()
	m := feature.AsMissing(err)
	if m == nil {
		return
	}
	t.Log(err)
	if kernel := running(); expected(m, kernel) {
		t.Fatalf("missing: %s, which Linux %s has since %s", m.Feature, kernel.release, m.Since)
	}
	Missing(t, m.Feature)
}

// Missing skips the test with "missing: " and the name of the feature, or
// fails it when [RequireEnv] lists that feature. It is for what only a test needs,
// as objdump; what a package returns as an error goes to [SkipMissing].
func Missing(t testing.TB, name string) {
	t.Helper()
	if required(os.Getenv(RequireEnv), name) {
		t.Fatalf("missing: %s, which %s asks for", name, RequireEnv)
	}
	t.Skipf("missing: %s", name)
}

// AMD64 skips the test on another architecture than x86-64.
func AMD64(t testing.TB) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		Missing(t, "amd64")
	}
}

// ExactARM64 skips the test but in a guest of arm64. Tests that call it run where that guest's clock counts instructions, as in make
// test-kernels.
func ExactARM64(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/job.json"); err != nil || runtime.GOARCH != "arm64" {
		Missing(t, "a guest of arm64 (make test-kernels)")
	}
}

// Slow skips a test of minutes when go test has -short.
func Slow(t testing.TB) {
	t.Helper()
	if testing.Short() {
		Missing(t, "time: go test has -short")
	}
}

func required(list, name string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(s string) bool {
		s = strings.TrimSpace(s)
		return s == "all" || s == name
	})
}

// expected says whether the kernel should have what m misses.
func expected(m *feature.Missing, k kernel) bool {
	if m.Since == "" || !release.AtLeast(k.release, m.Since) {
		return false
	}
	return m.Config == "" || slices.Contains(strings.Split(k.config(), "\n"), m.Config+"=y")
}
