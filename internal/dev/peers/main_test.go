package main

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/xsk"
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
	case "forwards":
		if err := forward(os.Args[1], os.Args[2]); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	testutil.NoLeaks(m)
}

// forward is a forwarder, until SIGTERM.
func forward(in, out string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	var all []xsk.Options
	for _, name := range []string{in, out} {
		device, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		all = append(all, xsk.Options{Interface: device.Index})
	}
	umem, err := xsk.NewUMEM(xsk.Config{Frames: 8192, FrameSize: 2048})
	if err != nil {
		return err
	}
	sockets, err := xsk.OpenAll(ctx, umem, all)
	if err != nil {
		return err
	}
	path, err := datapath.New(datapath.Config{
		UMEM: umem, Ports: []datapath.Port{datapath.NewXSK(sockets[0]), datapath.NewXSK(sockets[1])},
		Program: func(_ []datapath.Frame, actions []datapath.Action) {
			for i := range actions {
				actions[i] = datapath.Redirect(1)
			}
		},
	})
	if err != nil {
		return err
	}
	program, err := xsk.Attach(all[0].Interface, xsk.ProgramOptions{Sockets: sockets[:1]})
	if err != nil {
		return err
	}
	return errors.Join(path.Run(ctx), program.Close(), path.Close(), umem.Close())
}

// A forwarder that forwards has a rate, and latencies at each load; what was sent and did not arrive is known.
func TestForwards(t *testing.T) {
	testutil.Root(t)
	cpus, err := twoCPUs()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Setenv("PEER", "forwards")
	command := []string{os.Args[0], "{in}", "{out}"}
	r, err := measure(t.Context(), command, "veth", 60, 100*time.Millisecond, cpus, 1000)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if r.frames == 0 || r.core <= 0 || r.user < 0 || r.user > r.core {
		t.Errorf("%+v", r)
	}
	at, err := latency(t.Context(), command, 60, 200*time.Millisecond, cpus)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{name: "ours", failed: map[string]error{}, latencies: at}
	for i := range at {
		l := &at[i]
		if n := l.received(); n == 0 || n > l.sent {
			t.Errorf("load %v: of %d frames %d arrived", loads[i], l.sent, n)
		}
		if a, b := l.below(0.5), l.below(0.999); a <= 0 || a > b {
			t.Errorf("load %v: half of the frames took %v at most, 99.9 %% %v", loads[i], a, b)
		}
	}
	var out bytes.Buffer
	if err := writeLatency(&out, []*peer{p}, 1, time.Second, 60); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
}

// Latencies are the ends of buckets, whose last has all that are longer.
func TestBelow(t *testing.T) {
	var l latencies
	for _, n := range []int{0, 0, 9, buckets - 1} {
		one := latencies{arrived: make([]uint64, buckets), sent: 1, took: time.Second}
		one.arrived[n] = 1
		l.add(one)
	}
	for part, want := range map[float64]time.Duration{0.5: 128, 0.51: 1280, 0.75: 1280, 0.9: buckets << bucketShift} {
		if got := l.below(part); got != want {
			t.Errorf("%v of them took %v at most, want %v", part, got, want)
		}
	}
	if l.sent != 4 || l.took != 4*time.Second || l.received() != 4 {
		t.Errorf("%d sent in %v, %d received", l.sent, l.took, l.received())
	}
	if s := microseconds(1280); s != "1.28" {
		t.Errorf("1280 ns are %s µs", s)
	}
	if s := microseconds(buckets << bucketShift); s != ">8388" {
		t.Errorf("the last bucket is %s µs", s)
	}
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
	for i, mpps := range []uint64{1000, 1100, 1000, 1000, 1000, 1000, 1200} {
		peers[0].add("veth", rate{mpps, time.Millisecond, 100 * time.Microsecond}, nil)
		if i == 2 {
			peers[1].add("veth", rate{}, os.ErrDeadlineExceeded)
			continue
		}
		peers[1].add("veth", rate{mpps / 2, time.Millisecond, 200 * time.Microsecond}, nil)
	}
	peers[2].add("veth", rate{}, os.ErrNotExist)
	var out bytes.Buffer
	if err := write(&out, peers, []string{"veth"}, 7, time.Second, 60, 4); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"ours         1.000 [1.000, 1.200]  96    863", "other        0.500 [0.500, 0.600]  381   1524  2.0", "  2.207\n", "broken       -",
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

// Where the first never had a rate the others have theirs, and nothing to compare it with.
func TestWriteWithoutFirst(t *testing.T) {
	peers, err := parse([]string{"broken=a", "other=b"})
	if err != nil {
		t.Fatal(err)
	}
	for range 7 {
		peers[0].add("veth", rate{}, os.ErrNotExist)
		peers[1].add("veth", rate{1000, time.Millisecond, 200 * time.Microsecond}, nil)
	}
	var out bytes.Buffer
	if err := write(&out, peers, []string{"veth"}, 7, time.Second, 60, 4); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^other +1\.000 \[.*\] +200 +800 +- +-$`).MatchString(out.String()) || strings.Contains(out.String(), "NaN") {
		t.Errorf("it wrote\n%s", &out)
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
