package gdb

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// broken tells whether the other end of a socket is gone.
func broken(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed)
}
