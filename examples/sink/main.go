// Sink counts what a device receives and forgets it: sink DEV.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"time"

	"github.com/unthunk/unthunk/xsk"
)

func main() {
	umem := must(xsk.NewUMEM(xsk.Config{}))
	socket := must(xsk.Open(context.Background(), umem, xsk.Options{Interface: must(net.InterfaceByName(os.Args[1])).Index}))
	chunks, frames := make([]uint64, 2048), make([]xsk.Desc, 64)
	socket.Fill.Put(chunks[:umem.Alloc(chunks)])
	defer must(xsk.Attach(socket.Options().Interface, xsk.ProgramOptions{Sockets: []*xsk.Socket{socket}})).Close()
	for count, last := 0, time.Now(); ; {
		n := socket.RX.Take(frames)
		for i := range n { // the data is umem.Data(frames[i])
			chunks[i] = frames[i].Addr
		}
		socket.Fill.Put(chunks[:n])
		if count += n; n == 0 {
			must(0, socket.Wait(100*time.Millisecond))
		}
		if time.Since(last) > time.Second {
			log.Println(count, "frames")
			count, last = 0, time.Now()
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
