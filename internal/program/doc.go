// Package program finds an XDP program of the user's, loads it, and fills its maps.
//
// A [Target] is an object file, a pinned program, the id of a loaded program, or a device
// that has one attached. An object is loaded with maps of its own, which [Options] fills:
// from the maps of a live program, which are only read, or from a dump of bpftool. All of it
// is held by file descriptors: nothing is pinned, and nothing stays when the process ends.
package program
