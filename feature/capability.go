package feature

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Capability is a right of a thread by its number in the kernel:
// Capability(unix.CAP_NET_ADMIN). See capabilities(7).
type Capability int

// names of the capabilities that packages of this module ask for.
var names = map[Capability]string{
	unix.CAP_CHOWN: "CAP_CHOWN", unix.CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE", unix.CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH",
	unix.CAP_FOWNER: "CAP_FOWNER", unix.CAP_KILL: "CAP_KILL", unix.CAP_SETGID: "CAP_SETGID", unix.CAP_SETUID: "CAP_SETUID",
	unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_NET_RAW: "CAP_NET_RAW", unix.CAP_IPC_LOCK: "CAP_IPC_LOCK",
	unix.CAP_SYS_RAWIO: "CAP_SYS_RAWIO", unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_SYS_NICE: "CAP_SYS_NICE",
	unix.CAP_SYSLOG: "CAP_SYSLOG", unix.CAP_PERFMON: "CAP_PERFMON", unix.CAP_BPF: "CAP_BPF",
	unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE",
}

func (c Capability) String() string {
	if name, ok := names[c]; ok {
		return name
	}
	return fmt.Sprintf("capability %d", int(c))
}

// Held says whether the calling thread has the capability in effect. CAP_SYS_ADMIN
// includes CAP_BPF and CAP_PERFMON, as in the kernel since 5.8.
func (c Capability) Held() bool {
	effective := held()
	has := func(c Capability) bool { return effective&(1<<c) != 0 }
	return has(c) || (c == unix.CAP_BPF || c == unix.CAP_PERFMON) && has(unix.CAP_SYS_ADMIN)
}

// held is the effective set of the calling thread.
func held() uint64 {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
}

// Need returns a [Missing] that names what the calling thread does not have of
// capabilities, and nil when it has all.
func Need(capabilities ...Capability) error {
	if m := lacks(capabilities); m != nil {
		return m
	}
	return nil
}

// Refused returns the Missing of a caller to whom the kernel said err, EPERM or EACCES,
// for something that capabilities allow. It names those that the calling thread does not
// have, or says that something else refuses it.
func Refused(err error, capabilities ...Capability) *Missing {
	// cilium/ebpf adds advice on RLIMIT_MEMLOCK, which is for kernels before 5.11.
	if text, _, ok := strings.Cut(err.Error(), " (MEMLOCK may be too low"); ok && errors.Is(err, unix.EPERM) {
		err = &said{text, err}
	}
	if m := lacks(capabilities); m != nil {
		m.Err = err
		return m
	}
	be := "is"
	if len(capabilities) > 1 {
		be = "are"
	}
	return &Missing{
		Feature: "permission",
		Help:    fmt.Sprintf("%s %s there: a seccomp filter, a security module or lockdown refuses it", joined(capabilities), be),
		Err:     err,
	}
}

// said is an error in other words.
type said struct {
	text string
	err  error
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.err }

func lacks(capabilities []Capability) *Missing {
	var missing []Capability
	for _, c := range capabilities {
		if !c.Held() {
			missing = append(missing, c)
		}
	}
	switch {
	case len(missing) == 0:
		return nil
	case os.Geteuid() != 0 && held() == 0:
		return Root(nil)
	case os.Geteuid() != 0:
		return &Missing{Feature: joined(missing), Help: "run with sudo"}
	}
	return &Missing{Feature: joined(missing), Help: "root has lost it, as in a container: run outside, or add it"}
}

func joined(capabilities []Capability) string {
	var text []string
	for _, c := range capabilities {
		text = append(text, c.String())
	}
	return strings.Join(text, " and ")
}
