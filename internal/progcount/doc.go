// Package progcount counts the instructions that an XDP program takes a packet, in a guest whose clock counts
// instructions. A [Job] is what goes into the guest: the object, what fills its maps, and packets. [InGuest] loads it
// there and runs each packet by itself; [Read] takes what the guest says, which is another's kernel, and [Counted.Rows]
// makes rows of it.
package progcount
