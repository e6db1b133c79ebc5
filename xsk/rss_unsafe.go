package xsk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// rxfhIndir is an ioctl with struct ethtool_rxfh_indir (linux/ethtool.h): it reads or writes the table of
// a device, and returns how many entries that has. To write none is to ask for the kernel's. fd is a socket of the
// device's network namespace.
func rxfhIndir(fd, ifindex int, command uint32, table []uint32) (entries int, err error) {
	named, err := unix.NewIfreq("?")
	if err != nil {
		return 0, err
	}
	named.SetUint32(uint32(ifindex))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, named); err != nil {
		return 0, err
	}
	indir := make([]uint32, 2+len(table)) // cmd, size, ring_index[]
	indir[0], indir[1] = command, uint32(len(table))
	copy(indir[2:], table)
	var request struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data *uint32
		_    [16]byte
	}
	copy(request.name[:unix.IFNAMSIZ-1], named.Name())
	request.data = &indir[0]
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return 0, errno
	}
	copy(table, indir[2:])
	return int(indir[1]), nil
}
