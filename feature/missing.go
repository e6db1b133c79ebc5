package feature

import (
	"errors"
	"fmt"
	"strings"
)

// Missing says that this machine cannot do what was asked.
//
// A Missing with Since and without Config says: each kernel from that version on
// has the feature. Tests rely on it: on such a kernel they fail (internal/testutil,
// SkipMissing), as then the feature is there and the probe of it is wrong. Whoever
// writes a Missing therefore leaves Since empty when no version of the kernel
// settles the matter (rights, hardware, a driver, an installed program), and names
// in Config the option that a distribution may have left out of a kernel that is
// new enough.
type Missing struct {
	// Feature is what is not there, in the field's own words: "root",
	// "BTF", "live frames in BPF_PROG_TEST_RUN".
	Feature string
	// Since is the kernel version that brings the feature: "5.18". It is empty
	// when no version does.
	Since string
	// Config is the option that the kernel must be built with:
	// "CONFIG_XDP_SOCKETS". It is empty when every kernel that is new enough has
	// the feature.
	Config string
	// Help is what would make it work, in one clause. It may be empty.
	Help string
	// Err is what the kernel said, if it was asked. It may be nil.
	Err error
}

// Root returns the Missing of a caller who is not root. err is what the kernel
// said, or nil when it was not asked.
func Root(err error) *Missing { return &Missing{Feature: "root", Help: "run with sudo", Err: err} }

// Error returns one line: what is missing, what the kernel said, what would help.
func (m *Missing) Error() string {
	s := m.Feature + " is missing"
	if m.Err != nil {
		s += fmt.Sprintf(" (%v)", m.Err)
	}
	var help []string
	switch {
	case m.Since != "" && m.Config != "":
		help = append(help, "needs Linux "+m.Since+" built with "+m.Config)
	case m.Since != "":
		help = append(help, "needs Linux "+m.Since)
	case m.Config != "":
		help = append(help, "needs a kernel built with "+m.Config)
	}
	if m.Help != "" {
		help = append(help, m.Help)
	}
	if len(help) > 0 {
		s += ": " + strings.Join(help, "; ")
	}
	return s
}

// Unwrap returns what the kernel said.
func (m *Missing) Unwrap() error { return m.Err }

// AsMissing returns the Missing in err's chain, or nil.
func AsMissing(err error) *Missing {
	var m *Missing
	if errors.As(err, &m) {
		return m
	}
	return nil
}
