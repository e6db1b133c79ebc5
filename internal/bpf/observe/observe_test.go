package observe

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// Who may not load tracing programs gets an error, not a panic.
func TestNewRefused(t *testing.T) {
	err := testutil.Capable(t, func() error {
		o, err := New(Config{})
		if err == nil {
			return errors.Join(errors.New("no error"), o.Close())
		}
		if !errors.Is(err, unix.EPERM) {
			return err
		}
		return nil
	}, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	if err != nil {
		t.Error(err)
	}
}
