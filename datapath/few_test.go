package datapath

import (
	"math"
	"testing"

	"github.com/unthunk/unthunk/xsk"
)

// With fewer chunks than the fill rings hold each port can receive.
func TestFewChunks(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 64})
	var ports []Port
	for range 4 {
		ports = append(ports, newMemory(t, u, 64))
	}
	newDatapath(t, Config{UMEM: u, Ports: ports, Program: to(0)})
	for i, p := range ports {
		if n := p.(*Memory).filled.len(); n != 16 {
			t.Errorf("port %d has %d chunks of 64, want 16", i, n)
		}
	}
}

// A port that can never be there is none of those that are.
func TestRedirectBeyond(t *testing.T) {
	for _, port := range []int{-1, math.MinInt, MaxPorts, 1 << 32, math.MaxInt} {
		if a := Redirect(port); a != noPort {
			t.Errorf("Redirect(%d) is %d", port, a)
		}
	}
	u := newUMEM(t, xsk.Config{Frames: 64})
	in := newMemory(t, u, 16)
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in}, Program: to(1 << 32)})
	in.Inject([]byte("frame"))
	if _, err := d.Poll(); err != nil {
		t.Fatal(err)
	}
	if c := d.Counters(nil)[0]; c.DroppedNoPort != 1 {
		t.Errorf("%+v", c)
	}
}
