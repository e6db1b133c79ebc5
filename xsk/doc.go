// Package xsk is AF_XDP: memory shared with the kernel, its four rings, the
// socket, and the XDP program that fills it. All calls that move frames take
// slices and publish once.
//
// A [UMEM] is memory for frames, registered with the kernel once and shared by
// any number of sockets on any devices and queues. A [Socket] is bound to one
// queue of one device and owns four rings:
//
//	fill        user → kernel   chunks to receive into
//	RX          kernel → user   frames received
//	TX          user → kernel   frames to transmit
//	completion  kernel → user   chunks whose frame was transmitted
//
// A chunk is in one place at a time. Whoever puts an address into a ring gives
// the chunk away until the kernel gives it back in another ring. Data stays
// where it is all the while: a frame received by one socket can be put into the
// TX ring of another that shares the memory.
//
// Addresses are offsets into the UMEM, flat also where the kernel's are not
// (unaligned chunks). Everything that comes out of a ring is checked against
// the UMEM before anyone gets to see it.
//
// # The life of a socket
//
// [Open] binds it to a queue, or [OpenAll] several to theirs; [Fill.Put] gives it
// chunks; [Attach] brings the frames. The order matters without copies, and Attach
// refuses another. At the end [Program.Remove] of the queues that frames come in by,
// then completions until nothing is on its way, [Program.Close], [Socket.Close],
// [UMEM.Close].
//
// # Zero copy
//
// In mode [ZeroCopy], and in [Auto] where it can be had, the device reads and writes
// the UMEM: its pages are mapped for the device when the socket is bound, and no
// frame is copied, mapped or unmapped again, also behind an IOMMU. What that asks
// of users is taken care of by default, or is an error that says what to do:
//
//   - All sockets of a UMEM are in one mode. [OpenAll] takes all to copy mode where
//     one device cannot do without; [Open] says which cannot ([ErrNoZeroCopy]).
//     [Socket.WhyCopy] says it afterwards.
//   - igb and igc receive whole KiB into a chunk, and would cut a longer frame into
//     two, silently: chunks are of 4096 bytes by default, and a queue whose frames
//     would be cut is not bound without copies.
//   - igb looks into the fill ring when the program is attached, and up to Linux
//     6.18 never again if it is empty.
//   - Intel's drivers transmit only while the device has an XDP program. [Attach] one
//     without sockets to a device that receives nothing ([ErrNoProgram]).
//   - igb asks for a call (need-wakeup) for ever: [Socket.Kick] makes no second one
//     before the first is answered.
//   - virtio-net has zero copy only with iommu_platform=on and queue_reset=on, which
//     are the host's to set; on Linux 6.16, and not on 6.12.
//   - What a program passes to the network stack is copied there (XDP_PASS).
//
// Tested with igb and virtio-net of QEMU 10.0 on Debian's Linux 6.16, 6.18 and 7.3.
//
// # Metadata
//
// With [ProgramOptions].Metadata the program asks the driver for the hash, the time stamp and the
// VLAN tag of each frame, by kfuncs, and leaves them before the frame: [UMEM.RxMetadata]. A program
// that does so is of one device (BPF_F_XDP_DEV_BOUND_ONLY); kernels before 6.3 have no kfuncs, and
// that is a feature.Missing. [UMEM.SetTxMetadata] asks for a checksum or a time of the device that
// transmits.
//
// Requires at least Linux 5.11 (xsk_recvmsg in net/xdp/xsk.c: by it a fill ring is woken,
// and a device that went is seen). On 5.10 frames pass in copy mode, and of a device that
// went only what is transmitted says so. Tested on Linux 6.1 to 7.3.
// What later kernels added is asked for where it is used. The kernel's side is
// in net/xdp/xsk.c, xsk_queue.h and xsk_buff_pool.c.
package xsk
