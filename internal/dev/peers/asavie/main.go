// Command asavie is a minimal forwarder on github.com/asavie/xdp, for comparison:
// asavie IN OUT sends every frame that IN receives out by OUT. Each of the library's
// sockets has a UMEM of its own, so frames are copied from one to the other.
package main

import (
	"log"
	"net"
	"os"

	"github.com/asavie/xdp"
	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: asavie IN OUT")
	}
	// Rings as long as the other peers'.
	options := &xdp.SocketOptions{
		NumFrames: 8192, FrameSize: 2048, FillRingNumDescs: 2048,
		CompletionRingNumDescs: 2048, RxRingNumDescs: 2048, TxRingNumDescs: 2048,
	}
	in, out := socket(os.Args[1], options), socket(os.Args[2], options)
	ifi, err := net.InterfaceByName(os.Args[1])
	check(err)
	program, err := xdp.NewProgram(1)
	check(err)
	check(program.Attach(ifi.Index))
	check(program.Register(0, in.FD()))

	fds := []unix.PollFd{{Fd: int32(in.FD()), Events: unix.POLLIN}}
	for {
		in.Fill(in.GetDescs(in.NumFreeFillSlots()))
		if in.NumReceived() == 0 {
			if _, err := unix.Poll(fds, 1); err != nil && err != unix.EINTR {
				check(err)
			}
		}
		if n := out.NumCompleted(); n > 0 {
			out.Complete(n)
		}
		frames := in.Receive(min(in.NumReceived(), 64))
		free := out.GetDescs(min(len(frames), out.NumFreeTxSlots()))
		for i := range free {
			free[i].Len = uint32(copy(out.GetFrame(free[i]), in.GetFrame(frames[i])))
		}
		out.Transmit(free)
	}
}

func socket(device string, options *xdp.SocketOptions) *xdp.Socket {
	ifi, err := net.InterfaceByName(device)
	check(err)
	s, err := xdp.NewSocket(ifi.Index, 0, options)
	check(err)
	return s
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
