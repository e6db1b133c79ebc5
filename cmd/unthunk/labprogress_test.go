package main

import (
	"strings"
	"testing"
	"time"
)

func TestLabProgressLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		done int
		took time.Duration
		want string
	}{
		{0, 7 * time.Second, "0 of 4 guests done in 7s: a"},
		{1, 20 * time.Second, "1 of 4 guests done in 20s, 1m0s left: a"},
		{4, time.Minute, "4 of 4 guests done in 1m0s: a"},
	} {
		if got := labProgressLine(test.done, 4, test.took, "a"); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
	if n := len(labProgressLine(1, 4, time.Minute, strings.Repeat("x", 200))); n != 79 {
		t.Errorf("%d columns", n)
	}
}
