// Package feature names what a machine lacks.
//
// Every package that needs something of the kernel, the hardware or the
// user's rights returns a [Missing] when it is not there, so that a command
// can exit with one line and a test can be skipped by name.
package feature
