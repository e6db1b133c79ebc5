package feature_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/unthunk/unthunk/feature"
)

func TestError(t *testing.T) {
	t.Parallel()
	tests := []struct {
		missing *feature.Missing
		want    string
	}{
		{&feature.Missing{Feature: "BTF"}, "BTF is missing"},
		{feature.Root(nil), "root is missing: run with sudo"},
		{feature.Root(fs.ErrPermission), "root is missing (permission denied): run with sudo"},
		{&feature.Missing{Feature: "live frames", Since: "5.18"}, "live frames is missing: needs Linux 5.18"},
		{
			&feature.Missing{Feature: "AF_XDP", Config: "CONFIG_XDP_SOCKETS", Err: fs.ErrInvalid},
			"AF_XDP is missing (invalid argument): needs a kernel built with CONFIG_XDP_SOCKETS",
		},
		{
			&feature.Missing{Feature: "busy polling", Since: "5.11", Config: "CONFIG_NET_RX_BUSY_POLL", Help: "or interrupts"},
			"busy polling is missing: needs Linux 5.11 built with CONFIG_NET_RX_BUSY_POLL; or interrupts",
		},
	}
	for _, tt := range tests {
		if got := tt.missing.Error(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// What the kernel said stays in the chain, and a wrapped Missing is found.
func TestAsMissing(t *testing.T) {
	t.Parallel()
	m := feature.Root(fs.ErrPermission)
	err := fmt.Errorf("load program: %w", m)
	if got := feature.AsMissing(err); got != m {
		t.Errorf("AsMissing returned %v, want %v", got, m)
	}
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v does not wrap %v", err, fs.ErrPermission)
	}
	if got := feature.AsMissing(fs.ErrPermission); got != nil {
		t.Errorf("AsMissing returned %v of another error", got)
	}
}

func ExampleAsMissing() {
	err := fmt.Errorf("open socket: %w", feature.Root(nil))
	if m := feature.AsMissing(err); m != nil {
		fmt.Println("cannot run here:", m)
	}
	// Output: cannot run here: root is missing: run with sudo
}
