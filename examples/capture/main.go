// Capture writes what a device receives to a pcap file, from where the network stack does not get
// it: capture DEV FILE.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/xsk"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: capture DEV FILE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	device := must(net.InterfaceByName(os.Args[1])).Index
	file := must(os.Create(os.Args[2]))
	umem := must(xsk.NewUMEM(xsk.Config{Frames: 8192}))
	sockets := must(xsk.OpenAll(ctx, umem, []xsk.Options{{Interface: device}}))
	path := must(datapath.New(datapath.Config{
		UMEM:  umem,
		Ports: []datapath.Port{datapath.NewXSK(sockets[0]), must(datapath.NewPcapWriter(umem, file))},
		Program: func(frames []datapath.Frame, actions []datapath.Action) {
			for i := range frames {
				actions[i] = datapath.Redirect(1)
			}
		},
	}))
	program := must(xsk.Attach(device, xsk.ProgramOptions{Sockets: sockets}))
	must(0, path.Run(ctx))
	must(0, program.Close())
	for must(path.Poll()) > 0 { // what is left in the ring
	}
	path.Drain(time.Second)
	must(0, path.Close()) // writes what is left
	must(0, file.Close())
	log.Printf("%d frames in %s", path.Counters(nil)[1].Transmitted, os.Args[2])
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
