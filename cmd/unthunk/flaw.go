package main

import (
	"fmt"
	"path"
	"runtime"
	"strings"
)

// tellFlaw, deferred, makes a panic an error of one line that says where it was. The runtime would end the process
// with a stack of each goroutine and with 2, the exit code of a wrong use.
func tellFlaw(err *error) {
	if what := recover(); what != nil {
		*err = fmt.Errorf("a flaw of unthunk itself, please report it: %v, at %s", what, flawAt())
	}
}

// flawAt is the file and the line that a panic is from, while it is recovered.
func flawAt() string {
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	for panics := false; ; {
		frame, more := frames.Next()
		switch {
		case frame.Function == "runtime.gopanic":
			panics = true
		case panics && !strings.HasPrefix(frame.Function, "runtime."):
			return fmt.Sprintf("%s/%s:%d", path.Base(path.Dir(frame.File)), path.Base(frame.File), frame.Line)
		}
		if !more {
			return "an unknown place"
		}
	}
}
