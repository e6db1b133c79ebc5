package guest

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/memory"
)

// QEMU stops a guest that KVM cannot execute, and waits: the run ends by what it says, in pieces as they come.
func TestStoppedByKVM(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]bool{
		"KVM internal error. Suberror: 1\nextra data[0]: 0x1\nRAX=0 RBX=0\n": true,
		"error: kvm run failed Bad address\nRAX=0\n":                         true,
		"qemu-system-x86_64: warning: no KVM\n":                              false,
	} {
		ctx, stop := context.WithCancelCause(t.Context())
		m := &messages{said: memory.NewHead(64), stop: stop}
		for _, r := range []io.Reader{strings.NewReader(said[:10]), strings.NewReader(said[10:])} {
			if _, err := io.Copy(m, r); err != nil {
				t.Fatal(err)
			}
		}
		if got := errors.Is(context.Cause(ctx), ErrKVM); got != want {
			t.Errorf("%q: %v, want %v", said, context.Cause(ctx), want)
		}
		stop(nil)
	}
}
