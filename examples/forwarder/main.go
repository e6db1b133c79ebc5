// Forwarder sends what one device receives out by another: forwarder IN OUT.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/xsk"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	umem := must(xsk.NewUMEM(xsk.Config{Frames: 8192}))
	in := must(xsk.Open(ctx, umem, xsk.Options{Interface: must(net.InterfaceByName(os.Args[1])).Index}))
	out := must(xsk.Open(ctx, umem, xsk.Options{Interface: must(net.InterfaceByName(os.Args[2])).Index}))
	path := must(datapath.New(datapath.Config{
		UMEM:  umem,
		Ports: []datapath.Port{datapath.NewXSK(in), datapath.NewXSK(out)},
		Program: func(frames []datapath.Frame, actions []datapath.Action) {
			for i := range frames {
				actions[i] = datapath.Redirect(1)
			}
		},
	}))
	program := must(xsk.Attach(in.Options().Interface, xsk.ProgramOptions{}))
	must(0, program.Add(in))
	must(0, path.Run(ctx))
	log.Printf("%+v", path.Counters(nil))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
