// Generator sends numbered UDP frames of 60 bytes out of a device, at a rate in frames a second:
// generator DEV RATE COUNT.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/unthunk/unthunk/header"
	"github.com/unthunk/unthunk/xsk"
)

const size = 60

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: generator DEV RATE COUNT")
	}
	device := must(net.InterfaceByName(os.Args[1]))
	rate, count := must(strconv.ParseFloat(os.Args[2], 64)), must(strconv.Atoi(os.Args[3]))
	umem := must(xsk.NewUMEM(xsk.Config{}))
	socket := must(xsk.Open(context.Background(), umem, xsk.Options{Interface: device.Index}))
	// Some drivers send nothing without a program.
	defer must(xsk.Attach(device.Index, xsk.ProgramOptions{})).Close()
	chunks, frames := make([]uint64, umem.Config().Frames), make([]xsk.Desc, 64)
	free := chunks[:umem.Alloc(chunks)]
	for _, at := range free {
		write(umem.Data(xsk.Desc{Addr: at, Len: size}), device.HardwareAddr)
	}
	begin, sent, done := time.Now(), 0, 0
	for done < count {
		due := min(count, int(time.Since(begin).Seconds()*rate)+1)
		n := min(due-sent, len(frames), len(free), socket.TX.Room(len(frames)))
		for i := range n {
			frames[i] = xsk.Desc{Addr: free[len(free)-1-i], Len: size}
			payload := umem.Data(frames[i])[header.EthernetLen+header.IPv4Len+header.UDPLen:]
			binary.BigEndian.PutUint64(payload, uint64(sent+i))
		}
		free = free[:len(free)-socket.TX.Put(frames[:n])]
		sent += n
		if err := socket.Kick(); err != nil && !errors.Is(err, xsk.ErrDropped) {
			log.Fatal(err)
		}
		got := socket.Completion.Take(free[len(free):cap(free)])
		free, done = free[:len(free)+got], done+got
		if n == 0 && got == 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	log.Printf("%d frames in %v", done, time.Since(begin))
	must(0, socket.Close())
}

// write makes a frame from one address for documentation to another, without a checksum of UDP, as
// the payload changes.
func write(frame []byte, source net.HardwareAddr) {
	eth, _ := header.ParseEthernet(frame)
	copy(eth.Destination(), net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(eth.Source(), source)
	binary.BigEndian.PutUint16(frame[12:], header.TypeIPv4)
	copy(frame[header.EthernetLen:], []byte{0x45, 0, 0, size - header.EthernetLen, 0, 0, 0x40, 0, 64, header.ProtocolUDP})
	ip, _ := header.ParseIPv4(frame[header.EthernetLen:])
	ip.SetSource(netip.MustParseAddr("198.18.0.1"))
	ip.SetDestination(netip.MustParseAddr("198.19.0.1"))
	ip.SetChecksum()
	copy(ip.Payload(), []byte{0, 9, 0, 9, 0, size - header.EthernetLen - header.IPv4Len})
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
