// Command trust finds out how far the verdicts of unthunk can be trusted on this machine. It needs root and prints the
// table of docs/method.md.
//
// Each try of a situation measures the redirect-map chain, in one run or in two, and compares it with itself as
// `unthunk compare` does. Nothing of what is compared differs, so "faster" and "slower" are false there, also where
// the machine changed between two runs, or other tasks were busy in one of them. Situations in which something does
// differ, a loop in the program whose cost is measured by itself, show that a difference is found.
package main
