package perf

import (
	"encoding/binary"
)

// Sample is where a CPU was.
type Sample struct {
	// Time is CLOCK_MONOTONIC in ns.
	Time uint64
	PID  uint32 // process; 0 when the CPU was idle
	TID  uint32
	CPU  uint32
	// Period is how much of the event the sample stands for.
	Period uint64
	// Kernel tells whether the CPU was in the kernel.
	Kernel bool
	// Chain are addresses in the kernel, the innermost first: where the CPU
	// was, then return addresses. Nil in user mode. Valid for the call.
	Chain []uint64
	// Link is what the link register held in the kernel, on arm64: where the innermost function returns to before it has a frame
	// and behind it, when the call chain lacks its caller. 0 where it is not known.
	Link uint64
}

// Counts are what a ring said about itself.
type Counts struct {
	// Lost samples are those the ring had no room for.
	Lost uint64
	// Throttled is how often the kernel slowed sampling down.
	Throttled int
	// Bad are records that are no such record.
	Bad int
}

// Numbers of linux/perf_event.h.
const (
	recordLost     = 2
	recordThrottle = 5
	recordSample   = 9
	recordSwitch   = 15 // PERF_RECORD_SWITCH_CPU_WIDE

	headerSize = 8
	// miscKernel of the header's misc, cpumode in its low 3 bits.
	miscMode   = 7
	miscKernel = 1
	// miscSwitchOut is set when a task stops.
	miscSwitchOut = 1 << 13

	// Markers in a call chain are the highest addresses (PERF_CONTEXT_MAX).
	contextMax    = ^uint64(4095 - 1)
	contextKernel = ^uint64(128 - 1)
	// maxChain is sysctl_perf_event_max_stack with its contexts.
	maxChain = 127 + 8
)

// sampleType is what samples hold, in the order they hold it (IP comes first,
// the call chain last).
const sampleType = 1<<0 | // PERF_SAMPLE_IP
	sampleTID |
	sampleTime |
	1<<5 | // CALLCHAIN
	1<<7 | // CPU
	1<<8 // PERIOD

// Parts of what samples and other records hold.
const (
	sampleTID  = 1 << 1
	sampleTime = 1 << 2
	// sampleRegisters are those of where the CPU was (PERF_SAMPLE_REGS_INTR), linkRegister the one that is asked for
	// (PERF_REG_ARM64_LR).
	sampleRegisters = 1 << 18
	linkRegister    = 1 << 30
)

// Parser reads records. Its zero value is ready.
type Parser struct {
	Counts
	// link is set when samples have the link register behind the call chain.
	link   bool
	sample Sample
	chain  [maxChain]uint64
}

// Parse reads whole records from b, calls each for every sample, and returns how
// many bytes it took: what is left over is the beginning of another record, or
// nothing a record begins with.
func (p *Parser) Parse(b []byte, each func(*Sample)) (taken int) {
	return records(b, func(kind uint32, misc uint16, b []byte) { p.record(kind, misc, b, each) })
}

// records calls each for whole records in b, with what follows the header, and returns
// how many bytes these took.
func records(b []byte, each func(kind uint32, misc uint16, b []byte)) (taken int) {
	for len(b)-taken >= headerSize {
		rec := b[taken:]
		size := int(binary.LittleEndian.Uint16(rec[6:]))
		if size < headerSize || size > len(rec) {
			return taken
		}
		each(binary.LittleEndian.Uint32(rec), binary.LittleEndian.Uint16(rec[4:]), rec[headerSize:size])
		taken += size
	}
	return taken
}

func (p *Parser) record(kind uint32, misc uint16, b []byte, each func(*Sample)) {
	switch kind {
	case recordLost: // id, lost
		if len(b) < 16 {
			p.Bad++
			return
		}
		p.Lost += binary.LittleEndian.Uint64(b[8:])
	case recordThrottle:
		p.Throttled++
	case recordSample:
		if !p.parseSample(b) {
			p.Bad++
			return
		}
		p.sample.Kernel = misc&miscMode == miscKernel
		if !p.sample.Kernel {
			p.sample.Chain, p.sample.Link = nil, 0
		}
		each(&p.sample)
	}
}

// parseSample reads ip, pid, tid, time, cpu, res, period, nr, ips[nr] and, of arm64, abi and the link register, which is not there
// when abi is 0.
func (p *Parser) parseSample(b []byte) bool {
	const fixed = 8 + 4 + 4 + 8 + 4 + 4 + 8 + 8
	if len(b) < fixed {
		return false
	}
	s := &p.sample
	ip := binary.LittleEndian.Uint64(b)
	s.PID, s.TID = binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	s.Time = binary.LittleEndian.Uint64(b[16:])
	s.CPU = binary.LittleEndian.Uint32(b[24:])
	s.Period = binary.LittleEndian.Uint64(b[32:])
	n := binary.LittleEndian.Uint64(b[40:])
	b = b[fixed:]
	if n > uint64(len(b)/8) || n > maxChain {
		return false
	}
	chain := p.chain[:0]
	kernel := true
	for ; n > 0; n, b = n-1, b[8:] {
		switch addr := binary.LittleEndian.Uint64(b); {
		case addr >= contextMax:
			kernel = addr == contextKernel
		case kernel:
			chain = append(chain, addr)
		}
	}
	// The unwinder may give up at once; the address itself is known.
	if len(chain) == 0 {
		chain = append(chain, ip)
	}
	// A precise event knows the address better than the chain, which is that
	// of the interrupt.
	chain[0] = ip
	s.Chain, s.Link = chain, 0
	if p.link {
		if len(b) < 8 || binary.LittleEndian.Uint64(b) != 0 && len(b) < 16 {
			return false
		}
		if binary.LittleEndian.Uint64(b) != 0 {
			// Pointer authentication signs it in the highest bits, which are all set in an address of the kernel.
			s.Link = binary.LittleEndian.Uint64(b[8:]) | 0xffff<<48
		}
	}
	return true
}

// Plus adds the counts of another ring.
func (c Counts) Plus(d Counts) Counts {
	return Counts{c.Lost + d.Lost, c.Throttled + d.Throttled, c.Bad + d.Bad}
}
