package testutil

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/unthunk/unthunk/feature"
)

// recorder is a testing.TB that records how the test ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()    {}
func (r *recorder) Log(...any) {}
func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
}
func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	panic(r)
}

func record(f func(testing.TB)) (r *recorder) {
	r = &recorder{}
	defer func() {
		if p := recover(); p != nil && p != any(r) {
			panic(p)
		}
	}()
	f(r)
	return r
}

func TestSkipMissing(t *testing.T) {
	btf := fmt.Errorf("load program: %w", &feature.Missing{Feature: "BTF", Err: os.ErrNotExist})
	tests := []struct {
		name, require   string
		err             error
		skipped, failed string
	}{
		{name: "no error"},
		{name: "another error", err: errors.New("verifier said no"), require: "all"},
		{name: "missing", err: btf, skipped: "missing: BTF"},
		{name: "another required", err: btf, require: "root,kprobes", skipped: "missing: BTF"},
		{name: "required", err: btf, require: "root, BTF", failed: "missing: BTF, which UNTHUNK_REQUIRE asks for"},
		{name: "all required", err: btf, require: "all", failed: "missing: BTF, which UNTHUNK_REQUIRE asks for"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(RequireEnv, tt.require)
			r := record(func(tb testing.TB) { SkipMissing(tb, tt.err) })
			if r.skipped != tt.skipped || r.failed != tt.failed {
				t.Errorf("skipped %q, failed %q; want %q, %q", r.skipped, r.failed, tt.skipped, tt.failed)
			}
		})
	}
}

func TestRoot(t *testing.T) {
	t.Setenv(RequireEnv, "")
	r := record(Root)
	want := "missing: root"
	if os.Geteuid() == 0 {
		want = ""
	}
	if r.skipped != want || r.failed != "" {
		t.Errorf("skipped %q, failed %q; want %q", r.skipped, r.failed, want)
	}
}
