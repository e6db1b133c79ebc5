// Package trace makes of what an emulated guest executed, instruction by instruction, a tree
// of calls with the number of instructions at each place in it, exactly: none is sampled, and
// none is left out.
package trace
