package replay

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// Input is one call of BPF_PROG_TEST_RUN.
type Input struct {
	// Data is the packet, Metadata what stands before it.
	Data, Metadata []byte
	// Repeat is how often the program runs; 0 is once.
	Repeat uint32
	// Device and Queue are ingress_ifindex and rx_queue_index; a device of 0 is loopback.
	Device, Queue uint32
	// FirstBuffer is how many bytes of the packet its first buffer has, what is behind is in fragments. 0 is [MaxPacket].
	// All else requires at least Linux 6.18.
	FirstBuffer int
}

// Output is what came out of it.
type Output struct {
	Verdict uint32
	// Data is the packet after the last run, without metadata.
	Data []byte
	// Ns is the kernel's own figure of one run's time.
	Ns uint32
}

// xdpMD is struct xdp_md.
type xdpMD struct{ data, dataEnd, _, device, queue, _ uint32 }

// testRunAttr is the "test" member of union bpf_attr.
type testRunAttr struct {
	progFD, verdict         uint32
	dataSizeIn, dataSizeOut uint32
	dataIn, dataOut         uint64
	repeat, duration        uint32
	ctxSizeIn, ctxSizeOut   uint32
	ctxIn, ctxOut           uint64
	flags, cpu              uint32
	batchSize, _            uint32
}

const bpfProgTestRun = 10 // enum bpf_cmd

// maxOut is more than a program can add to a packet: at its head, and up to a page at its tail.
const maxOut = 8192

// TestRun runs a program by BPF_PROG_TEST_RUN on the calling thread. A signal ends it with
// unix.EINTR: some runs have been made then. It is made by hand because the library's Program.Run
// repeats the call by itself after a signal, and with it the runs that were made.
func TestRun(p *ebpf.Program, in Input) (Output, error) {
	data := append(append(make([]byte, 0, len(in.Metadata)+len(in.Data)), in.Metadata...), in.Data...)
	out := make([]byte, len(data)+maxOut)
	ctxIn := xdpMD{
		data: uint32(len(in.Metadata)), dataEnd: uint32(len(data)), device: in.Device, queue: in.Queue,
	}
	if in.FirstBuffer > 0 {
		ctxIn.dataEnd = uint32(min(len(data), len(in.Metadata)+in.FirstBuffer))
	}
	var ctxOut xdpMD
	var pinned runtime.Pinner // the kernel gets their addresses as numbers
	defer pinned.Unpin()
	for _, p := range []any{unsafe.SliceData(data), unsafe.SliceData(out), &ctxIn, &ctxOut} {
		pinned.Pin(p)
	}
	attr := testRunAttr{
		progFD:     uint32(p.FD()),
		dataSizeIn: uint32(len(data)), dataIn: address(unsafe.SliceData(data)),
		dataSizeOut: uint32(len(out)), dataOut: address(unsafe.SliceData(out)),
		repeat:    in.Repeat,
		ctxSizeIn: uint32(unsafe.Sizeof(ctxIn)), ctxIn: address(&ctxIn),
		ctxSizeOut: uint32(unsafe.Sizeof(ctxOut)), ctxOut: address(&ctxOut),
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(p)
	switch {
	case errno == 0:
	case errors.Is(errno, unix.EPERM):
		return Output{}, feature.Refused(errno, unix.CAP_NET_ADMIN, unix.CAP_BPF)
	default:
		return Output{}, fmt.Errorf("test-run program: %w", errno)
	}
	got := out[:min(int(attr.dataSizeOut), len(out))]
	return Output{Verdict: attr.verdict, Data: got[min(int(ctxOut.data), len(got)):], Ns: attr.duration}, nil
}

// TestRunOnce is [TestRun] of one run, which a signal does not end before ctx: unix.EINTR is returned when ctx has ended.
func TestRunOnce(ctx context.Context, p *ebpf.Program, in Input) (Output, error) {
	for {
		out, err := TestRun(p, in)
		if !errors.Is(err, unix.EINTR) || ctx.Err() != nil {
			return out, err
		}
	}
}

func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }
