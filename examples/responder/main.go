// Responder answers ARP requests and pings for an address, and leaves all else that a device
// receives to the network stack: responder DEV ADDRESS.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/filter"
	"github.com/unthunk/unthunk/header"
	"github.com/unthunk/unthunk/xsk"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: responder DEV ADDRESS")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	device, address := must(net.InterfaceByName(os.Args[1])), must(netip.ParseAddr(os.Args[2]))
	claim := must(filter.Claim(must(filter.Compile(fmt.Sprintf("arp dst host %[1]v or icmp and dst host %[1]v", address)))))
	umem := must(xsk.NewUMEM(xsk.Config{}))
	sockets := must(xsk.OpenAll(ctx, umem, []xsk.Options{{Interface: device.Index}}))
	path := must(datapath.New(datapath.Config{
		UMEM:  umem,
		Ports: []datapath.Port{datapath.NewXSK(sockets[0])},
		Program: func(frames []datapath.Frame, actions []datapath.Action) {
			for i := range frames {
				if answer(frames[i].Data, address, device.HardwareAddr) {
					actions[i] = datapath.Redirect(0) // where it came from
				}
			}
		},
	}))
	program := must(xsk.Attach(device.Index, xsk.ProgramOptions{Sockets: sockets, Claim: claim}))
	defer program.Close() // at the end: some drivers send nothing without one
	must(0, path.Run(ctx))
	must(0, program.Remove(0))
	for must(path.Poll()) > 0 { // what came before that
	}
	path.Drain(time.Second)
	log.Printf("%d answers", path.Counters(nil)[0].Transmitted)
}

// answer makes the answer of a request for an address, where it lies, and says whether it was one.
func answer(frame []byte, address netip.Addr, hardware net.HardwareAddr) bool {
	eth, ok := header.ParseEthernet(frame)
	if !ok {
		return false
	}
	switch kind, payload := eth.Payload(); kind {
	case header.TypeARP:
		arp, ok := header.ParseARP(payload)
		if !ok || arp.Operation() != header.ARPRequest || arp.Target() != address {
			return false
		}
		arp.Reply(hardware)
	case header.TypeIPv4:
		ip, ok := header.ParseIPv4(payload)
		if !ok || ip.Protocol() != header.ProtocolICMP || ip.Destination() != address {
			return false
		}
		echo, ok := header.ParseICMP(ip.Payload())
		if is, _ := ip.Fragmented(); !ok || is || echo.Type() != header.ICMPEcho {
			return false
		}
		echo.SetType(header.ICMPEchoReply) // a wrong checksum stays one
		ip.Swap()
		ip.SetTTL(64)
	default:
		return false
	}
	copy(eth.Destination(), eth.Source())
	copy(eth.Source(), hardware)
	return true
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
