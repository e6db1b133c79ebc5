package redirect

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/traffic"
	"github.com/unthunk/unthunk/internal/verifier"
)

// Prog is the scenario of a program that is none of this package's: it has a [Target], and frames go the way of its
// verdicts.
const Prog Scenario = "prog"

// Target is a program of the user's in the place of the program under test.
type Target struct {
	// Name is the program's, Object that of its file or what else it was found by, Tag the kernel's hash of its
	// instructions.
	Name, Object, Tag string
	// Source says what the packets are.
	Source string

	opened  *program.Opened
	ports   []Port
	devmaps []string
	frames  [][]byte
	packets *ebpf.Map
	longest int
	// reload says that each round loads the program anew.
	reload bool
	// instead runs in the place of the program, if it is not nil.
	instead *ebpf.Program
}

// NextIndex is the index of the device behind a target's: a program that calls bpf_redirect can be told it.
const NextIndex = 100

// Port is an entry of a devmap of the target's that leads to the next device of the chain.
type Port struct {
	Map string
	Key uint32
}

// TargetOptions say what a target meets in the chain.
type TargetOptions struct {
	Ports []Port
	// Packets are sent one after the other, over and over; without any a UDP packet of Size bytes is. There are no more
	// than MaxPackets, and Source says what they are.
	Packets [][]byte
	Size    int
	Source  string
	// Bulks are those that are to be measured: see [FitPackets].
	Bulks []int
}

// Limits of the packets of a target.
const (
	// MaxPackets is the most packets: they are 2 MB in memory, and a window of time holds each.
	MaxPackets = 1024
	MaxPacket  = chain.MaxPacket // bytes
	MinPacket  = chain.MinPacket // bytes
)

// mostWindow is the most frames of the least window in which each packet is as often as the others.
const mostWindow = 4096

// FitPackets is the most of n packets that windows of whole bulks can hold equally often, for each of the bulks: of 1021
// packets and bulks of 64 frames 1008, 16 times 63. A number of a row is made of such windows: with others it would be
// that of windows with more of the cheap packets.
func FitPackets(n int, bulks []int) int {
	n = min(n, MaxPackets)
	for ; n > 1; n-- {
		if !slices.ContainsFunc(bulks, func(bulk int) bool { return leastMultiple(n, bulk) > mostWindow }) {
			return n
		}
	}
	return n
}

func leastMultiple(a, b int) int {
	gcd, rest := a, b
	for rest != 0 {
		gcd, rest = rest, gcd%rest
	}
	return a / gcd * b
}

// NewTarget makes a target of an opened program, which it closes with itself. Redirects of the program go to the next
// device of the chain, or nowhere: entries of its devmaps and cpumaps that [TargetOptions] do not name are taken out. A
// live program that has such maps is refused: frames would go to devices of production.
func NewTarget(opened *program.Opened, object string, o TargetOptions) (t *Target, err error) {
	t = &Target{
		Name: record.Name(opened.Name), Object: record.Name(filepath.Base(object)), Source: record.Name(o.Source),
		opened: opened, ports: o.Ports, frames: o.Packets,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
			t = nil
		}
	}()
	if opened.Type != ebpf.XDP {
		return t, fmt.Errorf("%s is a part of a libxdp dispatcher: give its object file", opened.Name)
	}
	info, err := kernel.ProgramInfo(opened.Program)
	if err != nil {
		return t, fmt.Errorf("read about program %s: %w", opened.Name, err)
	}
	t.Tag = info.Tag
	verified, ok := info.VerifiedInstructions()
	t.reload = opened.Spec != nil && (!ok || verified <= mostVerified)
	if t.Name == "" {
		t.Name = t.Tag
	}
	if len(t.frames) == 0 {
		frame, err := traffic.UDPFrame(cmp.Or(o.Size, DefaultSize))
		if err != nil {
			return t, err
		}
		t.frames = [][]byte{frame}
	}
	if n := FitPackets(len(t.frames), o.Bulks); n != len(t.frames) {
		return t, fmt.Errorf("%d packets do not fit into windows: %d do", len(t.frames), n)
	}
	for _, frame := range t.frames {
		t.longest = max(t.longest, len(frame))
	}
	if err := t.checkMaps(); err != nil {
		return t, err
	}
	t.packets, err = chain.MakePackets(t.frames)
	return t, err
}

// Kinds of maps that lead frames elsewhere.
var redirectMaps = []ebpf.MapType{ebpf.DevMap, ebpf.DevMapHash, ebpf.CPUMap, ebpf.XSKMap}

// checkMaps checks the maps that redirects go by, and empties them.
func (t *Target) checkMaps() error {
	names := slices.Sorted(maps.Keys(t.opened.Maps))
	for _, name := range names {
		m := t.opened.Maps[name]
		kind := m.Type()
		if kind == ebpf.DevMap || kind == ebpf.DevMapHash {
			t.devmaps = append(t.devmaps, name)
		}
		if t.opened.Spec != nil {
			if inner := t.opened.Spec.Maps[name]; inner != nil && inner.InnerMap != nil && slices.Contains(redirectMaps, inner.InnerMap.Type) {
				return fmt.Errorf("map %s of %s holds maps of type %v, which are not offered in the chain", name, t.Name, inner.InnerMap.Type)
			}
		}
		if !slices.Contains(redirectMaps, kind) {
			continue
		}
		if t.opened.Live {
			return fmt.Errorf("%s redirects by its live map %s: frames of the chain would go where production's go; give its object file",
				t.Name, name)
		}
		if kind == ebpf.XSKMap { // sockets of this process would have to be in it
			continue
		}
		if err := empty(m); err != nil {
			return fmt.Errorf("empty map %s of %s: %w", name, t.Name, err)
		}
	}
	for _, p := range t.ports {
		m := t.opened.Maps[p.Map]
		wrong := func(format string, args ...any) error { return &program.OptionError{Err: fmt.Errorf(format, args...)} }
		switch {
		case m == nil:
			return &program.OptionError{Name: p.Map, Known: t.devmaps,
				Err: fmt.Errorf("%s has no map %s%s", t.Name, p.Map, listed("; its devmaps are ", t.devmaps))}
		case m.Type() == ebpf.CPUMap, m.Type() == ebpf.XSKMap:
			return wrong("map %s of %s is a %v: the chain offers DEVMAP and DEVMAP_HASH", p.Map, t.Name, m.Type())
		case m.Type() != ebpf.DevMap && m.Type() != ebpf.DevMapHash:
			return wrong("map %s of %s is a %v, no devmap", p.Map, t.Name, m.Type())
		case m.Type() == ebpf.DevMap && p.Key >= m.MaxEntries():
			return wrong("map %s of %s has the keys 0 to %d, not %d", p.Map, t.Name, m.MaxEntries()-1, p.Key)
		}
	}
	return nil
}

func listed(before string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return before + strings.Join(names, ", ")
}

// empty takes all entries out of a map that redirects go by.
func empty(m *ebpf.Map) error {
	var keys []uint32
	var key uint32
	var value []byte
	it := m.Iterate()
	for it.Next(&key, &value) {
		keys = append(keys, key)
	}
	if err := it.Err(); err != nil {
		return err
	}
	for _, key := range keys {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// mostVerified is how many instructions the verifier may look at for a program that is loaded anew in each round: it
// takes about a second for a million.
const mostVerified = 100_000

// load loads the program anew, so that it is somewhere else in memory, with the maps that it has. One that is live, or
// that takes the verifier long, stays the same.
func (t *Target) load() (*ebpf.Program, error) {
	if t.instead != nil {
		return t.instead.Clone()
	}
	if !t.reload {
		return t.opened.Program.Clone()
	}
	c, err := verifier.Load(t.spec(), ebpf.CollectionOptions{MapReplacements: t.opened.Maps}, false)
	if err != nil {
		return nil, fmt.Errorf("load %s again: %w", t.Name, err)
	}
	defer c.Close()
	return c.DetachProgram(t.opened.Name), nil
}

// spec is what loads the program anew. Maps of maps keep what they hold, which may be copies of live ones.
func (t *Target) spec() *ebpf.CollectionSpec {
	spec := t.opened.Spec.Copy()
	for _, m := range spec.Maps {
		if m.Type == ebpf.ArrayOfMaps || m.Type == ebpf.HashOfMaps {
			m.Contents = nil
		}
	}
	return spec
}

// connect points the target's ports at a device. It must run on the thread of the device's namespace.
func (t *Target) connect(d netlab.Device) error {
	for _, p := range t.ports {
		m := t.opened.Maps[p.Map]
		if err := m.Put(p.Key, t.value(m, d)); err != nil {
			return fmt.Errorf("update entry %d of %s: %w", p.Key, p.Map, err)
		}
	}
	return nil
}

// value is that of a devmap's entry for a device: a number, or struct bpf_devmap_val without a program.
func (*Target) value(m *ebpf.Map, d netlab.Device) []byte {
	value := make([]byte, m.ValueSize())
	binary.NativeEndian.PutUint32(value, uint32(d.Index))
	return value
}

// outside says that a loaded target is called from outside the BPF dispatcher; empty when it is in it, and where that
// cannot be read.
func (t *Target) outside(p *ebpf.Program) (text string, err error) {
	k, err := kernel.OpenLive()
	if err != nil {
		return "", nil //nolint:nilerr // it is no part of the measurement
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	functions, err := kernel.Program(p)
	if err != nil || functions == nil {
		return "", nil //nolint:nilerr // as above
	}
	programs, fallback, err := k.Dispatcher()
	if err != nil {
		return "", nil //nolint:nilerr // as above
	}
	main := functions[0]
	if slices.ContainsFunc(programs, func(addr uint64) bool { return addr >= main.Addr && addr < main.Addr+main.Size }) {
		return "", nil
	}
	return fmt.Sprintf("%s is outside the BPF dispatcher, which holds %d of %d programs: each packet pays for a call by %s",
		t.Name, len(programs), kernel.DispatcherSlots, fallback), nil
}

// madeBytes is how long frames are before they are made a packet.
func (t *Target) madeBytes() int { return t.longest + 1 }

// Close closes the program and its maps.
func (t *Target) Close() error {
	errs := []error{t.opened.Close()}
	if t.packets != nil {
		errs = append(errs, t.packets.Close())
	}
	return errors.Join(errs...)
}
