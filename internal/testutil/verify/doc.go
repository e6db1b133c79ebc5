// Package verify judges what is measured, and watches the machine while it measures.
//
// A test whose assertion depends on how long something takes, or on where samples
// fall, is a [Check] in a test of the name TestVerify…. `make verify` runs the checks
// for their verdicts: a check that the machine disturbed is repeated, and where every
// try was disturbed the check is not judged. `make test` runs each check once, short,
// for being runnable: an error fails, a figure does not.
package verify
