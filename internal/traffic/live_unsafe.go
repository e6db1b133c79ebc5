package traffic

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	bpfProgTestRun       = 10     // enum bpf_cmd
	bpfTestXDPLiveFrames = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
)

// testRunAttr is the "test" member of union bpf_attr.
type testRunAttr struct {
	progFD      uint32
	retval      uint32
	dataSizeIn  uint32
	dataSizeOut uint32
	dataIn      uint64
	dataOut     uint64
	repeat      uint32
	duration    uint32
	ctxSizeIn   uint32
	ctxSizeOut  uint32
	ctxIn       uint64
	ctxOut      uint64
	flags       uint32
	cpu         uint32
	batchSize   uint32
	_           uint32
}

// testRunLive is made by hand because the library's Program.Run throws the
// kernel's duration away and repeats the call by itself after a signal.
func testRunLive(fd int, frame []byte, repeat, batch uint32) (duration uint32, errno unix.Errno) {
	attr := testRunAttr{
		progFD:     uint32(fd),
		dataSizeIn: uint32(len(frame)),
		dataIn:     uint64(uintptr(unsafe.Pointer(unsafe.SliceData(frame)))),
		repeat:     repeat,
		flags:      bpfTestXDPLiveFrames,
		batchSize:  batch,
	}
	_, _, errno = unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(frame)
	return attr.duration, errno
}
