// Balancer spreads the flows that a device receives over other devices, each with both of its
// directions by the same one: balancer IN OUT...
package main

import (
	"context"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/header"
	"github.com/unthunk/unthunk/xsk"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: balancer IN OUT...")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	umem := must(xsk.NewUMEM(xsk.Config{Frames: 4096 * (len(os.Args) - 1)}))
	var options []xsk.Options
	for _, name := range os.Args[1:] {
		options = append(options, xsk.Options{Interface: must(net.InterfaceByName(name)).Index})
	}
	sockets := must(xsk.OpenAll(ctx, umem, options))
	ports := make([]datapath.Port, len(sockets))
	for i, s := range sockets {
		ports[i] = datapath.NewXSK(s)
	}
	outputs, seed := uint64(len(ports)-1), rand.Uint64()
	path := must(datapath.New(datapath.Config{
		UMEM:  umem,
		Ports: ports,
		Program: func(frames []datapath.Frame, actions []datapath.Action) {
			for i := range frames {
				hash := uint64(header.Hash(frames[i].Data, seed))
				actions[i] = datapath.Redirect(1 + int(hash*outputs>>32))
			}
		},
	}))
	// Some drivers send nothing without a program; the input's is the last, and the first to go.
	for i := len(options) - 1; i > 0; i-- {
		defer must(xsk.Attach(options[i].Interface, xsk.ProgramOptions{})).Close()
	}
	input := must(xsk.Attach(options[0].Interface, xsk.ProgramOptions{Sockets: sockets[:1]}))
	must(0, path.Run(ctx))
	must(0, input.Close())
	for must(path.Poll()) > 0 { // what came before that
	}
	path.Drain(time.Second)
	for i, c := range path.Counters(nil)[1:] {
		log.Printf("%s: %d frames", os.Args[2+i], c.Transmitted)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
