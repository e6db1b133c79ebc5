package ktext

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/unthunk/unthunk/feature"
)

// Kcore is a [Source] of the running kernel's memory through /proc/kcore, for
// kernels that let no BPF program read it. It is safe for concurrent use.
type Kcore struct {
	file     *os.File
	segments []elf.ProgHeader
}

// OpenKcore opens /proc/kcore. It returns a [feature.Missing] where there is none
// (CONFIG_PROC_KCORE), without root (CAP_SYS_RAWIO) and under lockdown.
func OpenKcore() (*Kcore, error) { return openKcore("/proc/kcore") }

func openKcore(path string) (*Kcore, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &feature.Missing{Feature: path, Config: "CONFIG_PROC_KCORE"}
	case errors.Is(err, fs.ErrPermission):
		return nil, &feature.Missing{Feature: "access to " + path, Help: "run as root, with kernel lockdown off"}
	case err != nil:
		return nil, fmt.Errorf("open kernel memory: %w", err)
	}
	core, err := elf.NewFile(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
	}
	k := &Kcore{file: f}
	for _, p := range core.Progs {
		if p.Type == elf.PT_LOAD {
			k.segments = append(k.segments, p.ProgHeader)
		}
	}
	return k, nil
}

// ReadAddr implements [Source].
func (k *Kcore) ReadAddr(p []byte, addr uint64) error {
	for _, s := range k.segments {
		off := addr - s.Vaddr
		if addr < s.Vaddr || off >= s.Filesz || uint64(len(p)) > s.Filesz-off {
			continue
		}
		if _, err := k.file.ReadAt(p, int64(s.Off+off)); err != nil {
			return fmt.Errorf("read kernel memory at %#x: %w", addr, err)
		}
		return nil
	}
	return fmt.Errorf("read kernel memory at %#x: not in %s", addr, k.file.Name())
}

// Close closes the file.
func (k *Kcore) Close() error { return k.file.Close() }
