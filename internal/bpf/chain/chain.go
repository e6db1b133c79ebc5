// Package chain holds the XDP programs of one benchmark chain (generator,
// program under test, sink) and loads them.
package chain

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel chain chain.bpf.c -- -O2 -g -Wall -Werror -I../headers

// Operation is what the program under test does to a frame.
type Operation = chainOperation

// The operations, as the C source numbers them.
const (
	None     = chainOperationOPERATION_NONE
	Read     = chainOperationOPERATION_READ
	SwapMACs = chainOperationOPERATION_SWAP_MACS
	Parse    = chainOperationOPERATION_PARSE
	Spin     = chainOperationOPERATION_SPIN
)

// Clock is the program that takes the time.
type Clock = chainClock

// The clocks, as the C source numbers them.
const (
	NoClock        = chainClockCLOCK_NONE
	GeneratorClock = chainClockCLOCK_GENERATOR
	TestedClock    = chainClockCLOCK_TESTED
)

// MaxWindows is how many time stamps one slot can hold.
const MaxWindows = len(chainState{}.Stamp)

// MaxPacket is the largest packet that frames can be made of, in bytes, MinPacket the smallest: an Ethernet header.
const (
	MaxPacket = len(chainPacket{}.Bytes)
	MinPacket = 14
)

// Config is what is fixed when a chain's programs are loaded.
type Config struct {
	// Program is the program under test: "redirect_map", "drop", …. It is empty when that is none of this package's.
	Program   string
	Operation Operation
	// Spins is the loop count of Operation Spin.
	Spins uint32
	// Uncounted leaves all counting out, to price the counting.
	Uncounted bool
	Clock     Clock
	// OutIfindex is where the program "redirect" sends frames.
	OutIfindex int
	// Limit is how many frames the generator lets be under way to the
	// program under test or, with LimitToSink, to the sink; 0 = any.
	Limit       uint32
	LimitToSink bool
	// Most is how many frames the generator sends in a slot; 0 = any.
	Most uint32
	// Bursts makes the generator wait after each burst until all of it has arrived,
	// and send no more than a budget; see ResetBursts.
	Bursts bool
	// CPU is where "redirect_cpu" sends frames.
	CPU int
	// Queues is how many receive queues the programs "device_…" count apart.
	Queues int
	// Phases loads the program Phase.
	Phases bool
	// Packets are what frames are made of, one after the other: what MakePackets returns. Nil when all frames are as
	// they were first made.
	Packets *ebpf.Map
	// MadeBytes is how long frames are when they are first made, where there are Packets: more than any of them has.
	MadeBytes int
	// DriverCounts says that the device of the program under test counts in its place.
	DriverCounts bool
	// Frags loads programs that take frames in fragments (Linux 5.18).
	Frags bool
	// Egress loads the program of that name.
	Egress bool
	// Drop loads the program of that name beside the one under test.
	Drop bool
	// StackEnd loads the program of that name.
	StackEnd bool
	// IntoStack makes the program of a cpumap pass frames to the network stack, and loads StackEnd.
	IntoStack bool
}

// Programs are the loaded programs and maps of one chain. Maps a chain does
// not use are nil.
type Programs struct {
	Generate, Tested, Sink *ebpf.Program
	// Drop is the program under test of the same chain without the redirect; it shares the counters.
	Drop *ebpf.Program
	// OnCPU is the program of a cpumap's entry: it is the sink or, with IntoStack, passes frames.
	OnCPU *ebpf.Program
	// Egress is for a devmap's entry: it lets frames through.
	Egress *ebpf.Program
	// StackEnd ends what a program passes to the network stack. It is loaded where the driver counts, and when asked for.
	StackEnd *ebpf.Program
	// Phase notes where the chain is, for each sample of the perf event it is
	// attached to.
	Phase *ebpf.Program

	Wire, Ports, CPUs, Sockets *ebpf.Map

	state, queues, phases *ebpf.Map
}

// State is what the programs counted in one slot.
type State struct {
	// Sent, Tested and Received are frames: sent by the generator, given
	// the wanted verdict by the program under test, received by the sink.
	Sent, Tested, Received uint64
	// Passed are frames that the program StackEnd has ended.
	Passed uint64
	// Stamps are times in ns (CLOCK_MONOTONIC), a window apart.
	Stamps []uint64
}

// Load loads a chain's programs. Requires at least Linux 5.14.
func Load(cfg Config) (*Programs, error) {
	spec, err := loadChain()
	if err != nil {
		return nil, err
	}
	for _, v := range []struct {
		name  string
		value any
	}{
		{chainVarFrameOperation, cfg.Operation},
		{chainVarSpins, cfg.Spins},
		{chainVarCounting, !cfg.Uncounted},
		{chainVarClockOf, cfg.Clock},
		{chainVarOutIfindex, uint32(cfg.OutIfindex)},
		{chainVarLimit, cfg.Limit},
		{chainVarMost, cfg.Most},
		{chainVarBursts, cfg.Bursts},
		{chainVarLimitToSink, cfg.LimitToSink},
		{chainVarCpu, uint32(cfg.CPU)},
		{chainVarLastQueue, uint32(max(1, cfg.Queues) - 1)},
		{chainVarDriverCounts, cfg.DriverCounts},
		{chainVarMadeBytes, uint32(cfg.MadeBytes)},
		{chainVarPacketCount, cfg.packets()},
	} {
		if err := spec.Variables[v.name].Set(v.value); err != nil {
			return nil, fmt.Errorf("set %s: %w", v.name, err)
		}
	}
	generate := chainProgGenerate
	if cfg.Packets != nil {
		generate = chainProgFramesGenerate
	}
	onCPU := chainProgSinkCpumap
	if cfg.IntoStack {
		onCPU = chainProgPassCpumap
	}
	keep := map[string]bool{
		generate: true, cfg.Program: true, chainProgSink: true,
		onCPU:             cfg.Program == chainProgRedirectCpu,
		chainProgEgress:   cfg.Egress,
		chainProgDrop:     cfg.Drop || cfg.Program == chainProgDrop,
		chainProgStackEnd: cfg.DriverCounts || cfg.StackEnd || cfg.IntoStack,
		chainProgPhase:    cfg.Phases,
	}
	for name, p := range spec.Programs {
		switch {
		case !keep[name]:
			delete(spec.Programs, name)
		case cfg.Frags && p.Type == ebpf.XDP:
			p.Flags |= unix.BPF_F_XDP_HAS_FRAGS
		}
	}
	if cfg.Program != "" && spec.Programs[cfg.Program] == nil {
		return nil, fmt.Errorf("load chain: no program %q", cfg.Program)
	}
	ports := chainMapPorts
	if cfg.Program == chainProgRedirectMapHash {
		ports = chainMapPortsHash
	}
	for _, m := range []struct {
		name string
		used bool
	}{
		{chainMapPorts, ports == chainMapPorts},
		{chainMapPortsHash, ports == chainMapPortsHash},
		{chainMapPackets, cfg.Packets != nil},
		{chainMapQueues, cfg.Queues > 0},
		{chainMapCpus, cfg.Program == chainProgRedirectCpu},
		{chainMapSockets, cfg.Program == chainProgRedirectXsk},
		{".data.phases", cfg.Phases},
	} {
		if !m.used {
			delete(spec.Maps, m.name)
		}
	}
	if !cfg.Phases {
		delete(spec.Variables, chainVarPhases)
	}
	if cfg.Queues > 0 {
		spec.Maps[chainMapQueues].MaxEntries = uint32(cfg.Queues)
	}
	var options ebpf.CollectionOptions
	if cfg.Packets != nil {
		spec.Maps[chainMapPackets].MaxEntries = cfg.packets()
		options.MapReplacements = map[string]*ebpf.Map{chainMapPackets: cfg.Packets}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, options)
	if err != nil {
		return nil, fmt.Errorf("load chain: %w", err)
	}
	defer coll.Close()
	return &Programs{
		Generate: coll.DetachProgram(generate),
		StackEnd: coll.DetachProgram(chainProgStackEnd),
		Tested:   coll.DetachProgram(cfg.Program),
		Sink:     coll.DetachProgram(chainProgSink),
		OnCPU:    coll.DetachProgram(onCPU),
		Egress:   coll.DetachProgram(chainProgEgress),
		Drop:     coll.DetachProgram(chainProgDrop),
		Phase:    coll.DetachProgram(chainProgPhase),
		Wire:     coll.DetachMap(chainMapWire),
		Ports:    coll.DetachMap(ports),
		CPUs:     coll.DetachMap(chainMapCpus),
		queues:   coll.DetachMap(chainMapQueues),
		Sockets:  coll.DetachMap(chainMapSockets),
		state:    coll.DetachMap(".data.state"),
		phases:   coll.DetachMap(".data.phases"),
	}, nil
}

// packets is how many packets there are.
func (cfg Config) packets() uint32 {
	if cfg.Packets == nil {
		return 1
	}
	return cfg.Packets.MaxEntries()
}

// MakePackets makes a map of packets of MinPacket to MaxPacket bytes.
func MakePackets(packets [][]byte) (*ebpf.Map, error) {
	spec, err := loadChain()
	if err != nil {
		return nil, err
	}
	m := spec.Maps[chainMapPackets]
	m.MaxEntries = uint32(len(packets))
	for i, bytes := range packets {
		if len(bytes) < MinPacket || len(bytes) > MaxPacket {
			return nil, fmt.Errorf("packet %d has %d bytes: %d to %d can be sent", i+1, len(bytes), MinPacket, MaxPacket)
		}
		packet := chainPacket{Length: uint32(len(bytes))}
		copy(packet.Bytes[:], bytes)
		m.Contents = append(m.Contents, ebpf.MapKV{Key: uint32(i), Value: packet})
	}
	made, err := ebpf.NewMap(m)
	if err != nil {
		return nil, fmt.Errorf("make map of packets: %w", err)
	}
	return made, nil
}

// Names are those of all programs that a chain may load.
func Names() ([]string, error) {
	spec, err := loadChain()
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(spec.Programs)), nil
}

// SendTo makes the generator's frames leave through the device ifindex.
func (p *Programs) SendTo(ifindex int) error {
	return put(p.Wire, 0, uint32(ifindex))
}

// AddPort makes the i-th port of the program under test the device ifindex.
// A program that is not nil is run for each frame on its way there. Requires
// at least Linux 5.8.
func (p *Programs) AddPort(i, ifindex int, program *ebpf.Program) error {
	value := chainDevmapValue{Ifindex: uint32(ifindex)}
	if program != nil {
		value.Prog = int32(program.FD())
	}
	return put(p.Ports, uint32(i), value)
}

// PortProgram is the id of the program that runs for frames to the i-th port,
// 0 when none does.
func (p *Programs) PortProgram(i int) (ebpf.ProgramID, error) {
	var value chainDevmapValue
	if err := p.Ports.Lookup(uint32(i), &value); err != nil {
		return 0, fmt.Errorf("read %s: %w", p.Ports, err)
	}
	return ebpf.ProgramID(value.Prog), nil
}

// AddCPU lets the program under test send frames to a CPU's kernel thread,
// which runs the program OnCPU. qsize is the length of its queue in frames. Requires
// at least Linux 5.9.
func (p *Programs) AddCPU(cpu, qsize int) error {
	return put(p.CPUs, uint32(cpu), chainCpumapValue{Qsize: uint32(qsize), Prog: uint32(p.OnCPU.FD())})
}

func put(m *ebpf.Map, key uint32, value any) error {
	if err := m.Put(key, value); err != nil {
		return fmt.Errorf("update %s: %w", m.String(), err)
	}
	return nil
}

// Reset starts a slot: counters to zero, a time stamp every window frames,
// the first after the first window's first frame.
func (p *Programs) Reset(window int) error { return p.ResetBursts(window, 0, 0) }

// ResetBursts is Reset for a generator that sends frames frames in bursts.
func (p *Programs) ResetBursts(window, burst, frames int) error {
	state := chainState{Window: uint32(window), Left: 1, Burst: uint32(burst), Budget: uint32(frames)}
	if err := p.state.Put(uint32(0), state); err != nil {
		return fmt.Errorf("reset chain: %w", err)
	}
	return nil
}

// State reads what was counted since Reset.
func (p *Programs) State() (State, error) {
	var raw chainState
	if err := p.state.Lookup(uint32(0), &raw); err != nil {
		return State{}, fmt.Errorf("read chain: %w", err)
	}
	s := State{Sent: raw.Sent, Tested: raw.Tested, Received: raw.Received, Passed: raw.Passed}
	s.Stamps = append(s.Stamps, raw.Stamp[:min(int(raw.Stamps), MaxWindows)]...)
	return s, nil
}

// Phase is where a chain was at a time.
type Phase struct {
	Time uint64 // CLOCK_MONOTONIC in ns
	// Sink is set when the program under test had seen all frames that were
	// sent: a poll is the sink's then.
	Sink bool
}

// SetSinks says where the state words of the NAPIs are that run the sink: the program Phase reads them where the driver
// counts. What it noted before is gone.
func (p *Programs) SetSinks(words []uint64) error {
	var raw chainPhases
	if len(words) > len(raw.Sinks) {
		return fmt.Errorf("%d NAPIs run the sink: more than %d", len(words), len(raw.Sinks))
	}
	copy(raw.Sinks[:], words)
	if err := p.phases.Put(uint32(0), raw); err != nil {
		return fmt.Errorf("set up chain: %w", err)
	}
	return nil
}

// Phases appends to old what the program Phase noted from its n-th run on, and
// returns it with how often it ran. What it noted longer than 2048 runs ago is
// gone.
func (p *Programs) Phases(n uint64, old []Phase) ([]Phase, uint64, error) {
	var raw chainPhases
	if err := p.phases.Lookup(uint32(0), &raw); err != nil {
		return old, n, fmt.Errorf("read chain: %w", err)
	}
	size := uint64(len(raw.At))
	if raw.N > size {
		n = max(n, raw.N-size)
	}
	for ; n < raw.N; n++ {
		at := raw.At[n%size]
		old = append(old, Phase{at >> 1, at&1 == 1})
	}
	return old, n, nil
}

// QueueCount is what a program "device_…" has seen of one receive queue on one CPU.
type QueueCount struct {
	Queue, CPU int
	// Frames it has seen, and the Bytes of the first buffer of each. Failed frames are
	// those that it could not ask the kernel to redirect.
	Frames, Bytes, Failed uint64
}

// QueueCounts lists what the program "device_…" has seen so far, by queue and CPU, without
// those that no frame came by.
func (p *Programs) QueueCounts() (counts []QueueCount, err error) {
	for queue := range p.queues.MaxEntries() {
		var perCPU []chainQueueCount
		if err := p.queues.Lookup(queue, &perCPU); err != nil {
			return nil, fmt.Errorf("read chain: %w", err)
		}
		for cpu, n := range perCPU {
			if n.Frames > 0 {
				counts = append(counts, QueueCount{int(queue), cpu, n.Frames, n.Bytes, n.Failed})
			}
		}
	}
	return counts, nil
}

// Close unloads everything.
func (p *Programs) Close() error {
	var errs []error
	for _, prog := range []*ebpf.Program{p.Generate, p.Tested, p.Sink, p.Drop, p.OnCPU, p.Egress, p.StackEnd, p.Phase} {
		errs = append(errs, prog.Close())
	}
	for _, m := range []*ebpf.Map{p.Wire, p.Ports, p.CPUs, p.Sockets, p.state, p.queues, p.phases} {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
