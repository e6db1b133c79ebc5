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
// Requires at least Linux 5.10 (a UMEM shared between devices and queues).
// What later kernels added is asked for where it is used. The kernel's side is
// in net/xdp/xsk.c, xsk_queue.h and xsk_buff_pool.c.
package xsk
