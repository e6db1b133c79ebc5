package feature

import (
	"errors"
	"fmt"
)

// Missing says that this machine cannot do what was asked.
type Missing struct {
	// Feature is what is not there, in the field's own words: "root",
	// "BTF", "live frames in BPF_PROG_TEST_RUN (Linux 5.18)".
	Feature string
	// Help is what would make it work, in one clause. It may be empty.
	Help string
	// Err is what the kernel said, if it was asked. It may be nil.
	Err error
}

// Error is one line: what is missing, what the kernel said, what would help.
func (m *Missing) Error() string {
	s := m.Feature + " is missing"
	if m.Err != nil {
		s += fmt.Sprintf(" (%v)", m.Err)
	}
	if m.Help != "" {
		s += ": " + m.Help
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
