// Sink counts what a device receives and forgets it: sink DEV.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/unthunk/unthunk/xsk"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: sink DEV")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	umem := must(xsk.NewUMEM(xsk.Config{}))
	socket := must(xsk.Open(ctx, umem, xsk.Options{Interface: must(net.InterfaceByName(os.Args[1])).Index}))
	chunks, frames := make([]uint64, 2048), make([]xsk.Desc, 64)
	socket.Fill.Put(chunks[:umem.Alloc(chunks)])
	program := must(xsk.Attach(socket.Options().Interface, xsk.ProgramOptions{Sockets: []*xsk.Socket{socket}}))
	take := func() int {
		n := socket.RX.Take(frames)
		for i := range n { // the data is umem.Data(frames[i])
			chunks[i] = frames[i].Addr
		}
		return socket.Fill.Put(chunks[:n])
	}
	total, counted := 0, 0
	for last := time.Now(); ctx.Err() == nil; {
		n := take()
		if total += n; n == 0 {
			if err := socket.Wait(100 * time.Millisecond); err != nil && !errors.Is(err, xsk.ErrDown) {
				log.Fatal(err)
			}
		}
		if time.Since(last) > time.Second {
			log.Println(total-counted, "frames")
			counted, last = total, time.Now()
		}
	}
	must(0, program.Close())
	for n := take(); n > 0; n = take() { // what is left in the ring
		total += n
	}
	log.Println(total, "frames in all")
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
