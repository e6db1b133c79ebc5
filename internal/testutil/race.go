//go:build race

package testutil

// slack is how many times what is allowed a test may allocate: under the race detector sync.Pool forgets at random.
const slack = 4
