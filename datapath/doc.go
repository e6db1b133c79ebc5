// Package datapath moves frames between ports in bulk, with no indirect call per
// packet.
//
// A [Datapath] is one worker over one UMEM. [Datapath.Poll] takes a batch from
// each port, calls the program once for all of it, puts the frames into the bulk
// queue of the port their action names, hands over full queues, and at the end
// what is left in all of them; then it takes back what was transmitted and fills
// the ports up. Without copies the driver is asked to transmit once for several full
// batches: what the last of them left is in the TX ring until a Poll that returns 0. Frames that nobody is to look at
// need no program: with a Route they go between AF_XDP ports in one pass over the rings.
// Calls that depend on a port's kind are made for a batch; AF_XDP ports are told apart by
// a compare, not by a method table.
//
// A frame lies in one chunk, or several, of the UMEM from receipt to
// completion; ports of all kinds receive into it and transmit from it. Every
// chunk has one owner at a time, which is written down. So whatever happens to a
// port its chunks are found again, and what a ring gives twice is not taken
// twice.
//
// [Workers] are several datapaths on one UMEM, each on a thread of its own, which may be kept on
// CPUs: a worker for each queue, or set of queues, with its own ports, chunks, bulk queues and
// counters. A frame for the port of another worker is handed over through a ring of one producer
// and one consumer.
//
// Every frame is accounted for, see [Counters].
//
// # The life of a datapath
//
// [New] takes chunks from the UMEM and fills the ports up; then the XDP program may bring frames
// (xsk.Attach). [Datapath.Run] polls until its context is done. A port whose device goes is closed and
// handed to Config.Lost, its chunks are taken back, and [Datapath.SetPort] puts another in its place; a link
// that is down is waited for. At the end programs of inputs give no more frames (xsk.Program.Remove),
// [Datapath.Poll] is called until it returns 0, [Datapath.Drain] lets what is on its way leave, programs are
// detached, and [Datapath.Close] closes the ports and returns all chunks.
//
// # What a program may do
//
// Read and write each part of a frame, move its ends ([Frame.AdjustHead], [Frame.AdjustTail]), read what the
// device said about it ([Frame.RxMetadata]), and say by which port it leaves: also that by which it came.
// Package header has views and checksums. The examples of this module answer, balance, meter and capture.
//
// # Goroutines
//
// One goroutine polls a datapath, and calls the program and Lost. All other methods of [Datapath] may be
// called by any goroutine at any time; they wait for the end of a poll. Ports are the worker's.
//
// What each kernel version adds is in package xsk. Docs/library.md has errors, and notes for who comes from
// another library.
package datapath
