// Package capture takes a sample of the packets that a device receives, by a packet socket:
// no XDP program is attached and no setting of the device is changed.
package capture
