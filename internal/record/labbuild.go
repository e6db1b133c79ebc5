package record

import (
	"fmt"
	"unicode/utf8"
)

// LabBuild is what the kernel of a guest was built by, and what it was booted with. Counts of two
// guests tell of a change of the kernel's source only where these are alike. What could not be
// found is empty.
type LabBuild struct {
	// Image is a SHA-256 of the kernel's image, in hexadecimal digits; empty in records of before.
	Image string `json:"image,omitempty"`
	// Compiler is that of /proc/version, without the linker.
	Compiler string `json:"compiler,omitempty"`
	// Config is a SHA-256 of the kernel's options, in hexadecimal digits: those of the kernel's own
	// copy (CONFIG_IKCONFIG_PROC), or of the file beside it. Options that name the build or its tools
	// are left out.
	Config string `json:"config,omitempty"`
	// Options are those of them that matter most often for a packet, "HZ=250", sorted. Only the first row of a guest has them.
	Options []string `json:"options,omitempty"`
	// CommandLine is /proc/cmdline of the guest.
	CommandLine string `json:"command-line,omitempty"`
	// Arch is the architecture of the guest, "amd64" or "arm64"; empty, in records of before, is amd64.
	Arch string `json:"arch,omitempty"`
	// CPU is the model that QEMU emulates, QEMU the version of it.
	CPU  string `json:"cpu,omitempty"`
	QEMU string `json:"qemu,omitempty"`
	// Unthunk is the version of the program in the guest, and a sum of its BPF programs.
	Unthunk string `json:"unthunk,omitempty"`
}

// MaxCommandLine is the most of a kernel's command line in characters: the kernel has room for 2048 of
// x86 (COMMAND_LINE_SIZE), its own included.
const MaxCommandLine = 4096

// Limits on the options that are kept of a configuration: Debian's have 320 of some 25 bytes.
const (
	MaxOptions = 1000
	MaxOption  = 100 // bytes
)

func (b *LabBuild) check() error {
	if b == nil {
		return nil
	}
	if utf8.RuneCountInString(b.CommandLine) > MaxCommandLine || !printable(b.CommandLine) {
		return fmt.Errorf("impossible command line %.60q", b.CommandLine)
	}
	if n := len(b.Options); n > MaxOptions {
		return errTooMany(n)
	}
	for _, o := range b.Options {
		if len(o) > MaxOption || !printable(o) {
			return fmt.Errorf("impossible option %.60q", o)
		}
	}
	return checkTexts([]string{b.Image, b.Compiler, b.Config, b.CPU, b.QEMU, b.Unthunk})
}
