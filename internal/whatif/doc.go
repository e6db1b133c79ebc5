// Package whatif estimates what changes to NIC drivers would save of a redirected packet: what was done for some
// drivers since the mail of 2018, and what was not, for those that have not done it.
//
// A saving is a count times a price. Counts of a driver's calls are those of a guest where one was counted (package lab),
// else places in its code (package driver), which is a range: a place may be passed by all packets or by none. What
// such a call does beneath is the kernel's and no driver's, so it is taken from any guest of the same series of kernels and the
// same DMA setup, but for those of virtio, whose bus maps for the driver. Prices are those of package tax. What has no count or
// no price has no number.
package whatif
