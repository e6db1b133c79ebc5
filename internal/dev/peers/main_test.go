package main

import (
	"bytes"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

// The test binary is a forwarder that forwards nothing, and one that ends, too.
func TestMain(m *testing.M) {
	switch os.Getenv("PEER") {
	case "ends":
		os.Stderr.WriteString("no such device\n")
		os.Exit(1)
	case "sleeps":
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	testutil.NoLeaks(m)
}

func TestRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {"true"}, {"=true"}, {"a="}, {"-rounds", "x", "a=b"}, {"-output", "tap", "a=b"}} {
		var stderr bytes.Buffer
		if code := run(t.Context(), args, &bytes.Buffer{}, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%q: exit code %d: %s", args, code, &stderr)
		}
	}
}

func TestRatio(t *testing.T) {
	nan := math.NaN()
	a := []float64{2, 4, 6, nan, 8, 10, 12, 14}
	b := []float64{1, 2, 3, 9, 4, 5, 6, nan}
	if q := ratio(a, b); math.Abs(q.Median-2) > 1e-9 || q.N != 6 {
		t.Errorf("twice as fast is %+v", q)
	}
}

func TestWrite(t *testing.T) {
	peers, err := parse([]string{"ours=a {in} {out}", "other=b", "broken=c"})
	if err != nil {
		t.Fatal(err)
	}
	peers[0].mpps["veth"] = []float64{1, 1.1, 1, 1, 1, 1, 1.2}
	peers[1].mpps["veth"] = []float64{0.5, 0.5, math.NaN(), 0.5, 0.5, 0.5, 0.6}
	peers[2].mpps["veth"] = []float64{math.NaN()}
	peers[2].failed["veth"] = os.ErrNotExist
	var out bytes.Buffer
	if err := write(t.Context(), &out, peers, []string{"veth"}, 7, time.Second, 60, 4); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"ours         1.000 [1.000, 1.200]", "other        0.500 [0.500, 0.600]  2.0", "broken       -",
		"! broken failed 1 times: file does not exist",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 81 {
			t.Errorf("too long: %s", line)
		}
	}
}

// A forwarder that ends says why.
func TestMeasureFails(t *testing.T) {
	testutil.Root(t)
	cpus, err := twoCPUs()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	for _, kind := range []string{"veth", "ifb"} {
		t.Setenv("PEER", "ends")
		_, err = measure(t.Context(), []string{os.Args[0]}, kind, 60, time.Second, cpus, 1)
		testutil.SkipMissing(t, err)
		if err == nil || !strings.Contains(err.Error(), "no such device") {
			t.Errorf("%s: a forwarder that ends: %v", kind, err)
		}
	}
	t.Setenv("PEER", "sleeps")
	if _, err = measure(t.Context(), []string{os.Args[0]}, "veth", 60, time.Second, cpus, 1); err == nil ||
		!strings.Contains(err.Error(), "no frame passed") {
		t.Errorf("a forwarder that does nothing: %v", err)
	}
}
