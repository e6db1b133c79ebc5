package agent

import (
	"testing"

	"github.com/unthunk/unthunk/feature"
)

// Code of another architecture is not read: the verb then ends in exit code 4.
func TestReads(t *testing.T) {
	t.Parallel()
	if missing := feature.AsMissing(reads("riscv64")); missing == nil || missing.Feature != "reading code of riscv64" {
		t.Errorf("on riscv64: %v", reads("riscv64"))
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if err := reads(arch); err != nil {
			t.Error(err)
		}
	}
}
