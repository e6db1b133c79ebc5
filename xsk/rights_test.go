package xsk

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// without runs f on a thread that lacks capabilities and ends with it.
func without(t *testing.T, w *wire, f func() error, capabilities ...int) error {
	t.Helper()
	ns := -1
	if err := w.Do(func() (err error) {
		ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			done <- err
			return
		}
		for _, c := range capabilities {
			data[c/32].Effective &^= 1 << (c % 32)
		}
		if err := unix.Capset(&header, &data[0]); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func TestMissingRights(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 4096})
	open := func() error {
		s, err := Open(t.Context(), u, Options{Interface: w.near.Index})
		if err == nil {
			err = s.Close()
		}
		return err
	}
	attach := func() error {
		p, err := Attach(w.near.Index, ProgramOptions{})
		if err == nil {
			err = p.Close()
		}
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		f    func() error
		lack []int
	}{
		"CAP_NET_RAW": {open, []int{unix.CAP_NET_RAW}},
		"CAP_BPF":     {attach, []int{unix.CAP_BPF, unix.CAP_SYS_ADMIN}},
		"memory": {func() error {
			small := unix.Rlimit{Cur: 1 << 16, Max: limit.Max}
			if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &small); err != nil {
				return err
			}
			defer unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit)
			return open()
		}, []int{unix.CAP_IPC_LOCK}},
	} {
		if err := without(t, w, tt.f, tt.lack...); feature.AsMissing(err) == nil {
			t.Errorf("without the right to %s: %v", name, err)
		}
	}
	// With all rights all is well.
	if err := w.Do(open); err != nil {
		t.Error(err)
	}
}

// A limit that cannot be lifted is a value to warn of.
func TestRaiseMemlock(t *testing.T) {
	w := newWire(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if err := w.Do(RaiseMemlock); err != nil {
		t.Errorf("with CAP_IPC_LOCK: %v", err)
	}
	err := without(t, w, RaiseMemlock, unix.CAP_IPC_LOCK, unix.CAP_SYS_RESOURCE)
	if limit.Max != unix.RLIM_INFINITY && feature.AsMissing(err) == nil {
		t.Errorf("without rights: %v", err)
	}
}
