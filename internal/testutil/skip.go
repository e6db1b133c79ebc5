package testutil

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/feature"
)

// RequireEnv names the environment variable that lists features, separated by
// commas, whose absence fails a test instead of skipping it. "all" is every
// feature.
const RequireEnv = "UNTHUNK_REQUIRE"

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root")
	}
}

// SkipMissing skips the test when err says that this machine lacks a feature.
// It returns when err is nil or any other error.
func SkipMissing(t testing.TB, err error) {
	t.Helper()
	if m := feature.AsMissing(err); m != nil {
		t.Log(err)
		Missing(t, m.Feature)
	}
}

// Missing skips the test with "missing: " and the name of the feature, or
// fails it when [RequireEnv] lists that feature.
func Missing(t testing.TB, name string) {
	t.Helper()
	if required(os.Getenv(RequireEnv), name) {
		t.Fatalf("missing: %s, which %s asks for", name, RequireEnv)
	}
	t.Skipf("missing: %s", name)
}

func required(list, name string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(s string) bool {
		s = strings.TrimSpace(s)
		return s == "all" || s == name
	})
}
