package testutil

import (
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestNoLeaks(t *testing.T) {
	var leaked *os.File
	t.Cleanup(func() { leaked.Close() })
	tests := []struct {
		name string
		run  func() int
		code int
		says string
	}{
		{"clean", func() int {
			// Starts the network poller, which keeps descriptors.
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			return 0
		}, 0, ""},
		{"leak", func() int {
			var err error
			if leaked, err = os.Open("/etc/passwd"); err != nil {
				t.Fatal(err)
			}
			return 0
		}, 1, "/etc/passwd"},
		{"failed and clean", func() int { return 2 }, 2, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var w strings.Builder
			if code := noLeaks(tt.run, &w); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.Contains(w.String(), tt.says) || tt.says == "" && w.Len() > 0 {
				t.Errorf("said %q, want %q in it", w.String(), tt.says)
			}
		})
	}
}

func TestUnchanged(t *testing.T) {
	end := make(chan struct{})
	var file *os.File
	for what, f := range map[string]func(){
		"a descriptor": func() { file, _ = os.Open("/etc/passwd") },
		"goroutines": func() { // some, as another may end meanwhile
			for range 8 {
				go func() { <-end }()
			}
		},
	} {
		if before, after, err := unchanged(f, 10*time.Millisecond); err != nil || !after.more(before) {
			t.Errorf("%s: before %+v, after %+v, %v", what, before, after, err)
		}
	}
	before, after, err := unchanged(func() { close(end); file.Close() }, time.Minute)
	if err != nil || after.more(before) || after.descriptors != before.descriptors-1 {
		t.Errorf("closed: before %+v, after %+v, %v", before, after, err)
	}
	Eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= before.goroutines-8 })
}

func TestMain(m *testing.M) { NoLeaks(m) }
