package clock

// X86 tells whether there is such a counter.
const X86 = true

// read is the counter. It is not ordered with the instructions around it.
func read() uint64

// multiply runs a chain of n multiplications, a multiple of 10.
func multiply(n int) uint64
