// Package flood sends frames through a device in a namespace, as a user would.
package flood

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/traffic"
)

// Start sends UDP frames of 60 bytes out of a device as fast as a packet socket
// does, until stop is called.
func Start(t testing.TB, lab *netlab.Namespace, ifindex int) (stop func()) {
	t.Helper()
	var fd int
	err := lab.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifindex})
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		unix.Close(fd)
	}
}
