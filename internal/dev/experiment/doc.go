// Package experiment redirects frames on one core in four ways that do the same
// work: per packet through interfaces, per packet by a type switch, and in bulks of
// 16 and 64. Built plain and with retpolines (-gcflags=all=-spectre=ret) it shows
// what an indirect call per packet costs in user space, and that bulks get most of it
// back. It is the experiment of the Linux mail "Heads-up: XDP_REDIRECT and
// retpolines" (Jesper Dangaard Brouer, 2018) without a kernel.
//
// The work is twelve steps on Ethernet frames with IPv4 in an area of memory as
// large as that of an AF_XDP socket, and each step is one function. The ways differ
// only in how they come to those functions. `make spectre` compares both builds.
package experiment
