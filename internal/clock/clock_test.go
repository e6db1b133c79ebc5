package clock

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

// Two stretches of time give one rate, and one that a CPU of the name in
// /proc/cpuinfo can have.
func TestRate(t *testing.T) {
	testutil.AMD64(t)
	var rates [2]float64
	for i := range rates {
		c := Start()
		time.Sleep(100 * time.Millisecond)
		rates[i] = c.Rate()
	}
	if rates[0] == 0 {
		testutil.Missing(t, "constant_tsc")
	}
	if math.Abs(rates[0]/rates[1]-1) > 1e-3 {
		t.Errorf("%.0f Hz, then %.0f", rates[0], rates[1])
	}
	if rates[0] < 5e8 || rates[0] > 1e10 {
		t.Errorf("%.0f Hz", rates[0])
	}
	if c := Start(); c.Rate() != 0 {
		t.Error("a rate after no time")
	}
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`cpu MHz\s*: ([0-9.]+)`).FindSubmatch(b); m != nil {
		mhz, _ := strconv.ParseFloat(string(m[1]), 64)
		t.Logf("%.1f MHz; the kernel says %.1f", rates[0]/1e6, mhz)
	}
}

// The chain of multiplications takes its cycles at a clock that cores have.
func TestCore(t *testing.T) {
	testutil.AMD64(t)
	fastest := 0.0
	for range 100 {
		fastest = max(fastest, Core())
	}
	if fastest < 5e8 || fastest > 1e10 {
		t.Errorf("%.0f Hz", fastest)
	}
	// 3 to the power of 2^10, modulo 2^64.
	want := uint64(3)
	for range 10 {
		want *= want
	}
	if got := multiply(10); got != want {
		t.Errorf("%d, want %d", got, want)
	}
	t.Logf("%.2f GHz", fastest/1e9)
}
