package feature_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/testutil"
)

// as returns what f returns on a thread that has only these capabilities in effect.
func as(t *testing.T, effective []int, f func() error) error {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		var data [2]unix.CapUserData
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capget(&header, &data[0]); err != nil {
			result <- err
			return
		}
		data[0].Effective, data[1].Effective = 0, 0
		for _, c := range effective {
			data[c/32].Effective |= 1 << (c % 32)
		}
		err := unix.Capset(&header, &data[0])
		if err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func TestNeed(t *testing.T) {
	t.Parallel()
	if unix.Geteuid() != 0 {
		if err := feature.Need(unix.CAP_BPF); err == nil || err.Error() != "root is missing: run with sudo" {
			t.Errorf("without rights: %v", err)
		}
	}
	testutil.Root(t)
	const lost = ": root has lost it, as in a container: run outside, or add it"
	for _, tt := range []struct {
		effective []int
		needs     []feature.Capability
		want      string
	}{
		{[]int{unix.CAP_SYS_ADMIN}, []feature.Capability{unix.CAP_SYS_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON}, "<nil>"},
		{[]int{unix.CAP_BPF}, []feature.Capability{unix.CAP_BPF}, "<nil>"},
		{[]int{unix.CAP_BPF}, []feature.Capability{unix.CAP_SYS_ADMIN, unix.CAP_BPF}, "CAP_SYS_ADMIN is missing" + lost},
		{nil, []feature.Capability{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, "CAP_NET_ADMIN and CAP_NET_RAW is missing" + lost},
		{nil, []feature.Capability{unix.CAP_SYS_BOOT}, "capability 22 is missing" + lost},
	} {
		if err := as(t, tt.effective, func() error { return feature.Need(tt.needs...) }); fmt.Sprint(err) != tt.want {
			t.Errorf("with %v: %v, want %s", tt.effective, err, tt.want)
		}
	}
}

// A caller who has what is needed is refused by something else, and is told so.
func TestRefused(t *testing.T) {
	t.Parallel()
	testutil.Root(t)
	m := feature.Refused(unix.EPERM, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	const want = "permission is missing (operation not permitted): CAP_BPF and CAP_NET_ADMIN are there: " +
		"a seccomp filter, a security module or lockdown refuses it"
	if m.Error() != want || !errors.Is(m, unix.EPERM) {
		t.Errorf("%v, want %s", m, want)
	}
	// A library's advice for older kernels is left out.
	m = feature.Refused(fmt.Errorf("load: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", unix.EPERM), unix.CAP_BPF)
	if text := m.Error(); !strings.HasPrefix(text, "permission is missing (load: operation not permitted): ") || !errors.Is(m, unix.EPERM) {
		t.Error(text)
	}
	err := as(t, []int{unix.CAP_BPF}, func() error { return feature.Refused(unix.EPERM, unix.CAP_BPF, unix.CAP_NET_ADMIN) })
	const wantLost = "CAP_NET_ADMIN is missing (operation not permitted): root has lost it, as in a container: run outside, or add it"
	if err.Error() != wantLost {
		t.Errorf("%v, want %s", err, wantLost)
	}
}
