// Package forward is an L2 forwarder between pairs of devices: frames that one
// receives leave by the other, in user space through AF_XDP or in the kernel
// through a devmap.
package forward
