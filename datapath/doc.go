// Package datapath moves frames between ports in bulk, with no indirect call per
// packet.
//
// A [Datapath] is one worker over one UMEM. [Datapath.Poll] takes a batch from
// each port, calls the program once for all of it, puts the frames into the bulk
// queue of the port their action names, hands over full queues, and at the end
// what is left in all of them; then it takes back what was transmitted and fills
// the ports up. Calls that depend on a port's kind are made for a batch; AF_XDP
// ports are told apart by a compare, not by a method table.
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
package datapath
