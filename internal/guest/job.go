package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Paths and devices in the guest that the host side and /init agree on.
const (
	// Self as a command's name is unthunk itself, which is /init too.
	Self      = "unthunk"
	JobFile   = "/job.json"
	ModuleDir = "/modules"
)

// resultPort takes one JSON [Result] a line.
func resultPort() string { return "/dev/" + architectures[hostArch()].results }

// Job is what /init does before it powers off.
type Job struct {
	// Modules are the files to load, in this order.
	Modules  []string
	Commands []Command
}

// Command is one command to run in the guest.
type Command struct {
	Args []string
	// UID it runs as, which is its group too; 0 is root.
	UID uint32
	// Timeout after which it is killed; 0 is two minutes.
	Timeout time.Duration
}

// Result is how a command ended.
type Result struct {
	// Args are those of the command. They are not what the guest says.
	Args           []string `json:"-"`
	Stdout, Stderr []byte
	// Exit is the exit code, -1 when a signal ended the command.
	Exit int
	// Err says why the command could not be started or was stopped.
	Err string
	// Lacks are options that the kernel has not, of a command that failed: CONFIG_VETH.
	Lacks optionNames `json:",omitempty"`
}

// optionNames are names of options of a kernel. What a guest says is decoded up to its limits: a kernel is another's.
type optionNames []string

// Limits on [optionNames]: there are some 30 options that counting stands on.
const (
	maxLacks      = 64
	maxOptionName = 64
)

// UnmarshalJSON reads a list of names, and returns an error when it has more or longer ones than there can be.
func (o *optionNames) UnmarshalJSON(b []byte) error {
	*o = nil
	d := json.NewDecoder(bytes.NewReader(b))
	switch first, err := d.Token(); {
	case err != nil || first != nil && first != json.Delim('['):
		return errors.New("options: not a list")
	case first == nil:
		return nil
	}
	for d.More() {
		name, err := d.Token()
		text, ok := name.(string)
		switch {
		case err != nil:
			return err
		case !ok || len(text) > maxOptionName:
			return fmt.Errorf("option %.60q", fmt.Sprint(name))
		case len(*o) == maxLacks:
			return fmt.Errorf("more than %d options", maxLacks)
		}
		*o = append(*o, text)
	}
	return nil
}
