// Package perf samples where CPUs are by perf_event_open(2), reads the samples
// from the kernel's ring buffers, and counts events.
package perf
