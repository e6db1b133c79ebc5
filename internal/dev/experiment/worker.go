package experiment

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/traffic"
)

// Worker redirects in one way, in an area of its own.
type Worker struct {
	way     Way
	core    *core
	stages  []stage
	size    int // of a bulk
	packets []packet
}

// New makes an area of Chunks zeroed chunks and a table of routes to ports that
// are up. Close gives the memory back.
func New(way Way) (*Worker, error) {
	w := &Worker{way: way, core: &core{}, size: 1, packets: make([]packet, Poll)}
	w.stages = w.core.stages(way.Stages)
	switch way.Name {
	case "bulk-16":
		w.size = 16
	case "bulk-64":
		w.size = 64
	case "interfaces", "type-switch":
	default:
		w.stages = nil
	}
	if w.stages == nil {
		return nil, fmt.Errorf("no way %v", way)
	}
	// Outside the heap, as a UMEM is.
	var err error
	w.core.umem, err = unix.Mmap(-1, 0, Chunk*Chunks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map memory area: %w", err)
	}
	for i := range w.core.ports {
		w.core.ports[i].up = true
		w.core.devmap[i] = uint8(i)
	}
	for n := range uint32(Flows) {
		w.core.route(address(n), uint8(n%ports), uint8(n)<<2)
	}
	return w, nil
}

// Flows is how many destinations have a route, 10.0.0.1 and those that follow: half
// of the table.
const Flows = routes / 2

func address(flow uint32) uint32 { return 10<<24 + 1 + flow }

// route adds a route. The table must not be full.
func (c *core) route(dst uint32, dev, mark uint8) {
	i := hash(dst)
	for c.routes[i%routes].dst != 0 {
		i++
	}
	c.routes[i%routes] = route{dst, dev, mark}
}

// Fill writes a UDP packet of size bytes to one of the destinations into each
// chunk and returns where they lie, in an order without a pattern: chunks come back
// from several ports, and so are soon out of order.
func (w *Worker) Fill(size int) ([]Desc, error) {
	frame, err := traffic.UDPFrame(size)
	if err != nil {
		return nil, err
	}
	if size > Chunk-Headroom {
		return nil, errors.New("frame is larger than a chunk")
	}
	r := rand.New(rand.NewPCG(1, 2))
	rx := make([]Desc, Chunks)
	for i, n := range r.Perm(Chunks) {
		rx[i] = Desc{Addr: uint64(n)*Chunk + Headroom, Len: uint32(size)}
		data := w.core.umem[rx[i].Addr:][:size]
		copy(data, frame)
		setDestination(data, address(uint32(r.IntN(Flows))))
	}
	return rx, nil
}

// setDestination writes an IPv4 destination and the header's checksum.
func setDestination(frame []byte, dst uint32) {
	h := frame[etherLen : etherLen+ipLen]
	h[16], h[17], h[18], h[19] = byte(dst>>24), byte(dst>>16), byte(dst>>8), byte(dst)
	h[10], h[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < ipLen; i += 2 {
		sum += uint32(h[i])<<8 | uint32(h[i+1])
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	h[10], h[11] = byte(^sum>>8), byte(^sum)
}

// Close gives the memory back.
func (w *Worker) Close() error {
	if err := unix.Munmap(w.core.umem); err != nil {
		return fmt.Errorf("unmap memory area: %w", err)
	}
	w.core.umem = nil
	return nil
}
