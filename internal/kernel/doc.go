// Package kernel holds one kernel: its code, its symbols and its types, of the running
// machine or of files.
package kernel
