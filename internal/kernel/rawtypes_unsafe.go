package kernel

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// infoAttr is the member "info" of union bpf_attr.
type infoAttr struct {
	fd, length uint32
	info       unsafe.Pointer
}

// objectInfo asks the kernel for what info, a struct of so many bytes, has room for.
func objectInfo(fd int, info unsafe.Pointer, size uintptr) error {
	attr := infoAttr{uint32(fd), uint32(size), info}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return nil
}

// typesInfo is struct bpf_btf_info: in it the kernel is told how many bytes of types there is room for, and says how many there are.
type typesInfo struct {
	types      unsafe.Pointer
	size, id   uint32
	name       unsafe.Pointer
	nameLength uint32
	ofKernel   uint32
}

// rawTypes are the bytes of types that the kernel holds, of at most most bytes: package btf only decodes them.
func rawTypes(h *btf.Handle, most int) ([]byte, error) {
	ask := func(raw []byte) (size int, err error) {
		info := &typesInfo{types: unsafe.Pointer(unsafe.SliceData(raw)), size: uint32(len(raw))}
		if err := objectInfo(h.FD(), unsafe.Pointer(info), unsafe.Sizeof(*info)); err != nil {
			return 0, fmt.Errorf("read types: %w", err)
		}
		return int(info.size), nil
	}
	size, err := ask(nil)
	if err != nil {
		return nil, err
	}
	if size > most {
		return nil, tooLarge(size, most)
	}
	raw := make([]byte, size)
	_, err = ask(raw)
	return raw, err
}
