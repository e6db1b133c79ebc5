package kernel

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/ksym"
)

// About is what the kernel says of a loaded program without its code.
type About struct {
	ID   ebpf.ProgramID
	Name string // at most 15 bytes of it where Info is nil
	Tag  string
	// JitedBytes is the size of its machine code, 0 for one that is interpreted.
	JitedBytes uint32
	// Loaded is when it was loaded, by CLOCK_BOOTTIME.
	Loaded time.Duration
	Maps   []ebpf.MapID
	// Types is the number of its BTF, 0 for none.
	Types btf.ID
	// Functions are those of [Program].
	Functions []ksym.Symbol
	// Info is all that the kernel says of it. It is nil where Unseen says why that cannot be read.
	Info   *ebpf.ProgramInfo
	Unseen error
}

// AboutProgram says what a loaded program is. One whose code is too large for the kernel to show has Unseen, and the rest all the
// same.
func AboutProgram(p *ebpf.Program) (*About, error) {
	info, err := ProgramInfo(p)
	if errors.Is(err, ErrTooLarge) {
		a, failed := aboutWithoutCode(p)
		if failed != nil {
			return nil, failed
		}
		a.Unseen = err
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	a := &About{Name: info.Name, Tag: info.Tag, Functions: ProgramFunctions(info), Info: info}
	a.ID, _ = info.ID()
	a.JitedBytes, _ = info.JitedSize()
	a.Loaded, _ = info.LoadTime()
	a.Maps, _ = info.MapIDs()
	a.Types, _ = info.BTFID()
	return a, nil
}

// ErrTooLarge is that of a program whose code the kernel cannot show.
var ErrTooLarge = errors.New("too large for the kernel to show")

// maxShown is how many bytes of instructions it shows, 524288 instructions: it copies them to contiguous memory
// (bpf_insn_prepare_dump in kernel/bpf/syscall.c), of which it has no more. Where it is asked for more it warns of itself,
// which taints it, and it panics where kernel.panic_on_warn says so.
const maxShown = 4 << 20

// ProgramInfo is all that the kernel says of a loaded program. It asks for no more than the kernel shows: the error is
// [ErrTooLarge] then.
func ProgramInfo(p *ebpf.Program) (*ebpf.ProgramInfo, error) {
	var size programInfo
	if err := objectInfo(p.FD(), unsafe.Pointer(&size), unsafe.Sizeof(size)); err != nil {
		return nil, fmt.Errorf("read about program: %w", err)
	}
	if size.xlatedLength > maxShown {
		return nil, fmt.Errorf("%w: it has more than %d MiB of instructions", ErrTooLarge, maxShown>>20)
	}
	info, err := p.Info()
	if errors.Is(err, unix.ENOMEM) {
		return nil, fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return info, err
}

// programInfo is the beginning of struct bpf_prog_info, of Linux 5.0 and later.
type programInfo struct {
	kind, id                     uint32
	tag                          [8]byte
	jitedLength, xlatedLength    uint32
	jited, xlated                unsafe.Pointer
	loaded                       uint64
	user, maps                   uint32
	mapIDs                       unsafe.Pointer
	name                         [16]byte
	ifindex, gpl                 uint32
	netnsDevice, netnsInode      uint64
	functions, functionLengths   uint32
	functionAddrs, functionSizes unsafe.Pointer
	types                        uint32
	_                            uint32
}

// aboutWithoutCode asks for all but the instructions.
func aboutWithoutCode(p *ebpf.Program) (*About, error) {
	info := &programInfo{}
	if err := objectInfo(p.FD(), unsafe.Pointer(info), unsafe.Sizeof(*info)); err != nil {
		return nil, fmt.Errorf("read about program: %w", err)
	}
	maps := make([]ebpf.MapID, info.maps)
	addrs, lengths := make([]uintptr, info.functions), make([]uint32, info.functionLengths)
	more := &programInfo{
		maps: info.maps, mapIDs: unsafe.Pointer(unsafe.SliceData(maps)),
		functions: info.functions, functionAddrs: unsafe.Pointer(unsafe.SliceData(addrs)),
		functionLengths: info.functionLengths, functionSizes: unsafe.Pointer(unsafe.SliceData(lengths)),
	}
	if err := objectInfo(p.FD(), unsafe.Pointer(more), unsafe.Sizeof(*more)); err != nil {
		return nil, fmt.Errorf("read about program: %w", err)
	}
	return &About{
		ID: ebpf.ProgramID(info.id), Name: unix.ByteSliceToString(info.name[:]), Tag: hex.EncodeToString(info.tag[:]),
		JitedBytes: info.jitedLength, Loaded: time.Duration(info.loaded), Maps: maps, Types: btf.ID(info.types),
		Functions: jited(addrs, lengths),
	}, nil
}
