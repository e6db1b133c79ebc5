package redirect

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
)

// TakesPortProgram tells whether the devmap of the program under test can have a program: entries of a target's may be
// plain numbers, or it may have no port.
func (c *Chain) TakesPortProgram() bool {
	t := c.spec.Target
	if t == nil {
		return true
	}
	for _, p := range t.ports {
		if t.opened.Maps[p.Map].ValueSize() < 8 {
			return false
		}
	}
	return len(t.ports) > 0
}

// SetPortProgram makes the devmap run a program for each frame on its way out; nil ends that. Requires at least
// Linux 5.8.
func (c *Chain) SetPortProgram(p *ebpf.Program) error {
	var want ebpf.ProgramID
	if p != nil {
		about, err := kernel.AboutProgram(p)
		if err != nil {
			return fmt.Errorf("read program: %w", err)
		}
		want = about.ID
	}
	return c.namespace.Do(func() error {
		if t := c.spec.Target; t != nil {
			return t.setPortProgram(c.out, p, want)
		}
		if err := c.programs.AddPort(0, c.out.Index, p); err != nil {
			return err
		}
		got, err := c.programs.PortProgram(0)
		return otherProgram(got, want, err)
	})
}

func otherProgram(got, want ebpf.ProgramID, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("the devmap runs program %d, not %d", got, want)
	}
	return err
}

// setPortProgram is that of a target, all ports of which lead to a device.
func (t *Target) setPortProgram(d netlab.Device, p *ebpf.Program, want ebpf.ProgramID) error {
	for _, port := range t.ports {
		m := t.opened.Maps[port.Map]
		value := t.value(m, d)
		if p != nil {
			binary.NativeEndian.PutUint32(value[4:], uint32(p.FD()))
		}
		if err := m.Put(port.Key, value); err != nil {
			return fmt.Errorf("update entry %d of %s: %w", port.Key, port.Map, err)
		}
		got, err := m.LookupBytes(port.Key)
		if err != nil {
			return fmt.Errorf("read entry %d of %s: %w", port.Key, port.Map, err)
		}
		if err := otherProgram(ebpf.ProgramID(binary.NativeEndian.Uint32(got[4:])), want, nil); err != nil {
			return err
		}
	}
	return nil
}
