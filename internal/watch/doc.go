// Package watch watches an XDP program at work: packets by verdict, what they take of a CPU,
// and what that costs to see. It samples CPUs while they poll the program's device and reads
// the device's own counters. It attaches nothing to the program, to the device or, unless it
// is asked to, to tracepoints.
package watch
