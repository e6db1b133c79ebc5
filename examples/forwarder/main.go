// Forwarder sends what one device receives out by another: forwarder IN OUT.
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
		log.Fatal("usage: forwarder IN OUT")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	umem := must(xsk.NewUMEM(xsk.Config{Frames: 8192}))
	a, b := must(net.InterfaceByName(os.Args[1])).Index, must(net.InterfaceByName(os.Args[2])).Index
	sockets := must(xsk.OpenAll(ctx, umem, []xsk.Options{{Interface: a}, {Interface: b}}))
	path := must(datapath.New(datapath.Config{
		UMEM:  umem,
		Ports: []datapath.Port{datapath.NewXSK(sockets[0]), datapath.NewXSK(sockets[1])},
		Program: func(frames []datapath.Frame, actions []datapath.Action) {
			for i := range frames {
				actions[i] = datapath.Redirect(1)
			}
		},
	}))
	// Now that New has filled the rings. Some drivers send nothing without a program.
	defer must(xsk.Attach(b, xsk.ProgramOptions{})).Close()
	input := must(xsk.Attach(a, xsk.ProgramOptions{Sockets: sockets[:1]}))
	must(0, path.Run(ctx))
	must(0, input.Close())
	for must(path.Poll()) > 0 { // what came before that
	}
	path.Drain(time.Second)
	log.Printf("%+v; the kernel dropped %+v", path.Counters(nil), must(sockets[0].Statistics()))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
