// Package profile samples CPUs by perf events while packets are redirected, and
// tells where the ns of a packet go: by stage, by function, by instruction, and how
// much of it samples ascribe to indirect branches.
package profile
