package xsk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/feature"
)

// RxMetadata is what a device said about a frame that it received (XDP RX metadata,
// Linux 6.3). A driver has some of it, or none: what it has not is false.
type RxMetadata struct {
	// HasHash: Hash is the device's over the flow, HashType of what (enum
	// xdp_rss_hash_type in net/xdp.h).
	HasHash        bool
	Hash, HashType uint32
	// HasTimestamp: Timestamp is when it was received, in ns of the device's clock.
	HasTimestamp bool
	Timestamp    uint64
	// HasVLAN: the device took a tag off the frame, of this type and content (Linux 6.8).
	HasVLAN           bool
	VLANType, VLANTag uint16
}

// rxMetadataSize is how many bytes before a frame its metadata takes.
const rxMetadataSize = 24

// Offsets of what the program writes there. The first word is rxMetadataThere and what is known.
const (
	metaKnown     = 0
	metaHash      = 4
	metaTimestamp = 8
	metaHashType  = 16
	metaVLANType  = 20 // big endian
	metaVLANTag   = 22

	rxMetadataThere = 0x554d0000
	knownHash       = 1
	knownTimestamp  = 2
	knownVLAN       = 4
)

// RxMetadata is what the device said about a received frame, by the address that its first
// descriptor had. It says false when the program that handed the frame over was not attached with
// [ProgramOptions].Metadata, the driver has no room for metadata (bpf_xdp_adjust_meta), or the UMEM
// was not made for it.
func (u *UMEM) RxMetadata(addr uint64) (m RxMetadata, ok bool) {
	if !u.config.RxMetadata || addr >= u.size || addr-u.Base(addr) < rxMetadataSize {
		return m, false
	}
	b := u.mem[addr-rxMetadataSize : addr]
	known := binary.NativeEndian.Uint32(b[metaKnown:])
	if known&0xffff0000 != rxMetadataThere {
		return m, false
	}
	m.HasHash, m.HasTimestamp, m.HasVLAN = known&knownHash != 0, known&knownTimestamp != 0, known&knownVLAN != 0
	if m.HasHash {
		m.Hash, m.HashType = binary.NativeEndian.Uint32(b[metaHash:]), binary.NativeEndian.Uint32(b[metaHashType:])
	}
	if m.HasTimestamp {
		m.Timestamp = binary.NativeEndian.Uint64(b[metaTimestamp:])
	}
	if m.HasVLAN {
		m.VLANType, m.VLANTag = binary.BigEndian.Uint16(b[metaVLANType:]), binary.NativeEndian.Uint16(b[metaVLANTag:])
	}
	return m, true
}

// forget makes chunks say that they have no metadata: that of the frame before is still there.
func (u *UMEM) forget(chunks []uint64) {
	at := uint64(KernelHeadroom + u.config.Headroom - rxMetadataSize)
	for _, a := range chunks {
		clear(u.mem[u.Base(a)+at:][:4])
	}
}

// metadataFunction is a kfunc that asks the driver, and where its results go on the stack.
type metadataFunction struct {
	name, since string
	known       int32
	results     [2]int16 // 0 is none
}

// Where results lie: rxMetadataSize bytes in the order that they have before the frame, below what
// Claim may write to, which is not running any more.
const metadataStack = -64

var metadataFunctions = []metadataFunction{
	{"bpf_xdp_metadata_rx_hash", "6.3", knownHash, [2]int16{metadataStack + metaHash, metadataStack + metaHashType}},
	{"bpf_xdp_metadata_rx_timestamp", "6.3", knownTimestamp, [2]int16{metadataStack + metaTimestamp}},
	{"bpf_xdp_metadata_rx_vlan_tag", "6.8", knownVLAN, [2]int16{metadataStack + metaVLANType, metadataStack + metaVLANTag}},
}

// metadataInstructions ask the driver for what it knows of the frame and write that before it. The
// context is at contextStack. Functions that this kernel has not are left out, but for those of
// Linux 6.3, without which it is an error.
func metadataInstructions() (asm.Instructions, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, &feature.Missing{Feature: "BTF", Config: "CONFIG_DEBUG_INFO_BTF", Err: err}
	}
	ins := asm.Instructions{asm.Mov.Imm(asm.R4, 0), asm.Mov.Imm(asm.R6, rxMetadataThere)}
	for at := int16(0); at < rxMetadataSize; at += 8 {
		ins = append(ins, asm.StoreMem(asm.RFP, metadataStack+at, asm.R4, asm.DWord))
	}
	for _, f := range metadataFunctions {
		var function *btf.Func
		if err := kernel.TypeByName(f.name, &function); errors.Is(err, btf.ErrNotFound) && f.since != "6.3" {
			continue
		} else if err != nil {
			return nil, &feature.Missing{Feature: f.name, Since: f.since, Err: err}
		}
		id, err := kernel.TypeID(function)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", f.name, err)
		}
		ins = append(ins, asm.LoadMem(asm.R1, asm.RFP, contextStack, asm.DWord))
		for i, result := range f.results {
			if result != 0 {
				ins = append(ins, asm.Mov.Reg(asm.R2+asm.Register(i), asm.RFP), asm.Add.Imm(asm.R2+asm.Register(i), int32(result)))
			}
		}
		without := "without-" + f.name
		ins = append(ins,
			asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(id)},
			asm.JNE.Imm(asm.R0, 0, without),
			asm.Or.Imm(asm.R6, f.known),
			asm.Mov.Imm(asm.R0, 0).WithSymbol(without),
		)
	}
	ins = append(ins,
		asm.StoreMem(asm.RFP, metadataStack, asm.R6, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, contextStack, asm.DWord),
		asm.Mov.Imm(asm.R2, -rxMetadataSize),
		asm.FnXdpAdjustMeta.Call(),
		asm.JNE.Imm(asm.R0, 0, redirectLabel),
		asm.LoadMem(asm.R1, asm.RFP, contextStack, asm.DWord),
		asm.LoadMem(asm.R2, asm.R1, xdpDataMeta, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, xdpData, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, rxMetadataSize),
		asm.JGT.Reg(asm.R4, asm.R3, redirectLabel),
	)
	for at := int16(0); at < rxMetadataSize; at += 8 {
		ins = append(ins,
			asm.LoadMem(asm.R4, asm.RFP, metadataStack+at, asm.DWord),
			asm.StoreMem(asm.R2, at, asm.R4, asm.DWord),
		)
	}
	return ins, nil
}
