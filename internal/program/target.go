package program

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/cilium/ebpf"
)

// Target names an XDP program. Its zero value names none.
type Target struct {
	text string
	// path is of an object file, with or without :PROGRAM, or of a pin; empty for others.
	path string
	id   ebpf.ProgramID
	// device has the program attached; part is one of a libxdp dispatcher's.
	device, part string
}

// Parse reads a target:
//
//	lb.o            the XDP program of an object file
//	lb.o:balancer   one of several, by the name of its function or of its section
//	/sys/fs/bpf/lb  a pinned program, or the program of a pinned link
//	id:42           a loaded program
//	dev:eth0        what is attached to a device of this network namespace
//	dev:eth0:lb     one part of the libxdp dispatcher that is attached there
//
// It asks neither the kernel nor the file system.
func Parse(text string) (Target, error) {
	t := Target{text: text}
	switch kind, rest, _ := strings.Cut(text, ":"); {
	case text == "":
		return Target{}, errors.New("the target is empty: it is an object file, a pinned program, id:N or dev:DEV")
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }): // also one that turns the order of others
		return Target{}, fmt.Errorf("target %.60q: a control character is in it", text)
	case len(text) > 4096: // PATH_MAX
		return Target{}, errors.New("the target is longer than a path may be")
	case kind == "id" && strings.HasPrefix(text, "id:"):
		id, err := strconv.ParseUint(rest, 10, 32)
		if err != nil || id == 0 {
			return Target{}, fmt.Errorf("target %s: an id is a number from 1 on, as `bpftool prog list` shows", text)
		}
		t.id = ebpf.ProgramID(id)
	case kind == "dev" && strings.HasPrefix(text, "dev:"):
		t.device, t.part, _ = strings.Cut(rest, ":")
		if t.device == "" || len(t.device) > 15 || strings.ContainsAny(t.device, "/ ") {
			return Target{}, fmt.Errorf("target %s: dev: wants the name of a network device", text)
		}
		if strings.HasSuffix(rest, ":") {
			return Target{}, fmt.Errorf("target %s: the name of the dispatcher's part is empty", text)
		}
	default:
		t.path = text
	}
	return t, nil
}

// String is the target as it was typed.
func (t Target) String() string { return t.text }

// Object says whether the target is an object file, or no file at all: what is at work is
// pinned, or has an id or a device.
func (t Target) Object() bool { return t.path != "" && !onBPFFS(t.path) }

// Device is the device that the target names, and the part of the dispatcher there; empty when
// it names none.
func (t Target) Device() (name, part string) { return t.device, t.part }

// OfID is the target id:N.
func OfID(id ebpf.ProgramID) Target { return Target{text: fmt.Sprintf("id:%d", id), id: id} }

// Live says whether the target names a program that is loaded already, as far as its text
// tells: a path may be of an object file or of a pin.
func (t Target) Live() bool { return t.path == "" }
