package agent

import (
	"testing"

	"github.com/unthunk/unthunk/feature"
)

// Code of another architecture is not read: the verb then ends in exit code 4.
func TestReads(t *testing.T) {
	t.Parallel()
	if missing := feature.AsMissing(reads("arm64")); missing == nil || missing.Feature != "x86-64" {
		t.Errorf("on arm64: %v", reads("arm64"))
	}
	if err := reads("amd64"); err != nil {
		t.Error(err)
	}
}
