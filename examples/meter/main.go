// Meter sends what one device receives out by another, up to a rate in frames a second and a burst
// of a second's worth, and drops the rest: meter IN OUT RATE.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/xsk"
)

// bucket is a token bucket.
type bucket struct {
	rate, tokens float64 // a second, at most as many
	last         time.Time
}

// take returns how many of n frames may pass now. It is asked once a batch: for a batch time is one.
func (b *bucket) take(n int) int {
	now := time.Now()
	b.tokens = min(b.rate, b.tokens+now.Sub(b.last).Seconds()*b.rate)
	b.last = now
	n = min(n, int(b.tokens))
	b.tokens -= float64(n)
	return n
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: meter IN OUT RATE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rate := must(strconv.ParseFloat(os.Args[3], 64))
	umem := must(xsk.NewUMEM(xsk.Config{Frames: 8192}))
	a, b := must(net.InterfaceByName(os.Args[1])).Index, must(net.InterfaceByName(os.Args[2])).Index
	sockets := must(xsk.OpenAll(ctx, umem, []xsk.Options{{Interface: a}, {Interface: b}}))
	meter := bucket{rate: rate, tokens: rate, last: time.Now()}
	path := must(datapath.New(datapath.Config{
		UMEM:  umem,
		Ports: []datapath.Port{datapath.NewXSK(sockets[0]), datapath.NewXSK(sockets[1])},
		Program: func(frames []datapath.Frame, actions []datapath.Action) {
			for i := range meter.take(len(frames)) {
				actions[i] = datapath.Redirect(1)
			}
		},
	}))
	defer must(xsk.Attach(b, xsk.ProgramOptions{})).Close()
	program := must(xsk.Attach(a, xsk.ProgramOptions{Sockets: sockets[:1]}))
	must(0, path.Run(ctx))
	must(0, program.Close())
	for must(path.Poll()) > 0 { // what is left in the ring
	}
	path.Drain(time.Second)
	c := path.Counters(nil)
	log.Printf("%d frames sent, %d dropped by the meter", c[1].Transmitted, c[0].DroppedByProgram)
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
