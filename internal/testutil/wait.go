package testutil

import (
	"testing"
	"time"
)

// Eventually waits until a condition holds, and fails the test when it does not within
// a minute. It is for what is done soon on an idle machine, and late on a busy one.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute: not %s", what)
		}
	}
}
