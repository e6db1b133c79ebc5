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

// A feature that the running kernel must have fails the test; one that its
// configuration may lack does not.
func TestExpected(t *testing.T) {
	t.Parallel()
	config := func() string { return "# CONFIG_TUN is not set\nCONFIG_VETH=m\nCONFIG_XDP_SOCKETS=y\n" }
	tests := []struct {
		release, since, option string
		want                   bool
	}{
		{"6.18.44-cloud", "5.18", "", true},
		{"5.18.0-rc1", "5.18", "", true},
		{"5.9.16", "5.18", "", false},
		{"5.10", "5.18", "", false},
		{"6.1+", "5.18", "", true},
		{"6.1.0-28-amd64", "6.3", "", false},
		{"6.18.44", "", "", false},
		{"6.18.44", "", "CONFIG_XDP_SOCKETS", false},
		{"6.18.44", "5.11", "CONFIG_XDP_SOCKETS", true},
		{"6.18.44", "5.11", "CONFIG_VETH", false},
		{"6.18.44", "5.11", "CONFIG_TUN", false},
		{"6.18.44", "5.11", "CONFIG_XDP", false},
		{"next", "5.11", "", false},
		{"", "5.11", "", false},
		{"6.18.44", "six", "", false},
	}
	for _, tt := range tests {
		m := &feature.Missing{Feature: "x", Since: tt.since, Config: tt.option}
		if got := expected(m, kernel{tt.release, config}); got != tt.want {
			t.Errorf("Linux %s, since %q, option %q: expected %v, want %v", tt.release, tt.since, tt.option, got, tt.want)
		}
	}
}

// The kernel under the test is newer than 2.6 and does not have Linux 99's features.
func TestRunning(t *testing.T) {
	t.Setenv(RequireEnv, "")
	r := record(func(tb testing.TB) { SkipMissing(tb, &feature.Missing{Feature: "tasks", Since: "2.6"}) })
	if want := "missing: tasks, which Linux " + running().release + " has since 2.6"; r.failed != want {
		t.Errorf("failed %q, want %q", r.failed, want)
	}
	r = record(func(tb testing.TB) { SkipMissing(tb, &feature.Missing{Feature: "more", Since: "99.1"}) })
	if want := "missing: more"; r.skipped != want || r.failed != "" {
		t.Errorf("skipped %q, failed %q; want %q", r.skipped, r.failed, want)
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
