package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/kernel"
)

// Facts are what a run depends on, and cheap to read: a millisecond.
type Facts struct {
	// Boot is the identity of the boot: [record.Machine.Boot].
	Boot string `json:"boot"`
	// Kernel is its release and build, Microcode the revision that the first CPU runs.
	Kernel    string `json:"kernel"`
	Microcode string `json:"microcode"`
	// BootParams is a hash of the kernel's command line.
	BootParams string `json:"boot-params"`
	// Programs are the XDP programs on devices, as "eth0 native 0123456789abcdef": those of this network namespace.
	Programs []string `json:"programs"`
}

// Watcher reads facts again and again. Its zero value is ready.
type Watcher struct {
	root fs.FS
	// tags are those of programs, by number: the kernel gives none to another program before it has given them all.
	tags map[uint32]string
}

// Facts reads them.
func (w *Watcher) Facts() (Facts, error) {
	root := w.root
	if root == nil {
		root = here()
	}
	var f Facts
	var err error
	if f.Boot, err = bootID(root); err != nil {
		return f, err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return f, fmt.Errorf("read name of kernel: %w", err)
	}
	f.Kernel = unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Version[:])
	f.Microcode = microcode(root)
	line, err := fs.ReadFile(root, "proc/cmdline")
	if err != nil {
		return f, fmt.Errorf("read boot parameters: %w", err)
	}
	sum := sha256.Sum256(line)
	f.BootParams = hex.EncodeToString(sum[:16])
	f.Programs, err = w.programs()
	return f, err
}

// microcode is the revision of the first CPU.
func microcode(root fs.FS) string {
	if b, err := fs.ReadFile(root, "sys/devices/system/cpu/cpu0/microcode/version"); err == nil {
		return strings.TrimSpace(string(b))
	}
	b, _ := fs.ReadFile(root, "proc/cpuinfo") // as a guest has it
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "microcode" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// programs are those on devices.
func (w *Watcher) programs() ([]string, error) {
	_, found, err := device.AllWithPrograms()
	if err != nil {
		return nil, err
	}
	list := []string{}
	tags := make(map[uint32]string)
	for _, d := range found {
		for _, p := range d.Programs {
			tag, ok := w.tags[p.ID]
			if !ok {
				tag = tagOf(p.ID)
			}
			tags[p.ID] = tag
			list = append(list, fmt.Sprintf("%s %s %s", d.Name, p.Mode, tag))
		}
	}
	w.tags = tags
	slices.Sort(list)
	return list, nil
}

// tagOf is the hash of a program's instructions, or its number where that cannot be read.
func tagOf(id uint32) string {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if errors.Is(err, os.ErrNotExist) {
		return "gone"
	}
	if err != nil {
		return fmt.Sprintf("id:%d", id)
	}
	defer p.Close()
	about, err := kernel.AboutProgram(p)
	if err != nil {
		return fmt.Sprintf("id:%d", id)
	}
	return about.Tag
}

// Changed names what is not as it was: words of [record.AgentParts.Changed].
func (f Facts) Changed(was Facts) []string {
	var out []string
	for _, c := range []struct {
		name    string
		changed bool
	}{
		{"kernel", f.Kernel != was.Kernel},
		{"microcode", f.Microcode != was.Microcode},
		{"boot-params", f.BootParams != was.BootParams},
		{"programs", !slices.Equal(f.Programs, was.Programs)},
	} {
		if c.changed {
			out = append(out, c.name)
		}
	}
	return out
}
