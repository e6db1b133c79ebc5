// Package testutil holds what tests of several packages share: skipping by the
// name of the missing feature, and a TestMain that finds leaked descriptors.
package testutil
