package redirect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
)

// Real devices are veth pairs here: userA ==veth== in, out ==veth== userB.
func TestRunPair(t *testing.T) {
	testutil.Root(t)
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	userA, _, err := lab.VethPair("usera", "in")
	if err != nil {
		t.Fatal(err)
	}
	_, userB, err := lab.VethPair("out", "userb")
	if err != nil {
		t.Fatal(err)
	}
	if err := userB.EnableGRO(); err != nil {
		t.Fatal(err)
	}
	var pass link.Link // takes what TX returns
	err = lab.Do(func() error {
		d, err := device.Named("usera")
		if err == nil {
			pass, err = d.AttachPass()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pass.Close()
	for _, d := range []DevicePair{
		{Out: "out"}, {Out: "out", Mode: Generic}, {Out: "out", Tracepoints: true},
		{Scenario: Drop}, {Scenario: Drop, Mode: Generic}, {Scenario: TX}, {Scenario: Pass}, {Scenario: Pass, Mode: Generic},
	} {
		d.In, d.Schedule = "in", rounds.Schedule{Rounds: 3, Duration: 2 * time.Second}
		t.Run(fmt.Sprintf("%s %s tracepoints=%v", d.Name(), d.Mode, d.Tracepoints), func(t *testing.T) {
			stop := flood.Start(t, lab, userA.Index)
			defer stop()
			var found PairResult
			var seconds []Interval
			err := lab.Do(func() (err error) {
				found, err = RunPair(t.Context(), d, func(i Interval) { seconds = append(seconds, i) })
				return err
			})
			if err != nil {
				testutil.SkipMissing(t, err)
				t.Fatal(err)
			}
			row := found.Row
			if row.Refused != "" {
				t.Fatalf("%s; %+v", row.Refused, row)
			}
			if row.Mpps.Median <= 0 || row.Counts.Redirected == 0 || len(row.Lost) > 0 ||
				(row.FramesPerXmit != nil) != d.Tracepoints {
				t.Errorf("row %+v", row)
			}
			frames := uint64(0)
			for _, q := range row.Queues {
				if frames += q.Frames; q.Queue != 0 || q.Bytes != 60*q.Frames {
					t.Errorf("queue %+v", q)
				}
			}
			if frames != row.Counts.Redirected {
				t.Errorf("%d frames by queues, %d in all", frames, row.Counts.Redirected)
			}
			if len(seconds) == 0 || seconds[0].Frames() == 0 || (seconds[0].Left != nil) != (d.Scenario == "" || d.Scenario == TX) {
				t.Errorf("seconds %+v", seconds)
			}
			var names []string
			for _, r := range found.References {
				if names = append(names, r.Name); !slices.Equal(r.Rounds, row.Rounds) {
					t.Errorf("reference %s has rounds %v, the row %v", r.Name, r.Rounds, row.Rounds)
				}
			}
			for _, want := range []string{record.KernelLoop, record.NearWalk, record.FarWalk, record.OtherTasks} {
				if want == record.FarWalk && memory.Limit() < 256<<20 {
					continue // it is left out
				}
				if !slices.Contains(names, want) {
					t.Errorf("references %v lack %s", names, want)
				}
			}
		})
	}
	t.Run("down", func(t *testing.T) {
		stop := flood.Start(t, lab, userA.Index)
		defer stop()
		var found PairResult
		err := lab.Do(func() (err error) {
			out, err := netlink.LinkByName("out")
			if err != nil {
				return err
			}
			handle, err := netlink.NewHandle()
			if err != nil {
				return err
			}
			defer handle.Close()
			time.AfterFunc(500*time.Millisecond, func() { handle.LinkSetDown(out) })
			found, err = RunPair(t.Context(), DevicePair{In: "in", Out: "out", Tracepoints: true,
				Schedule: rounds.Schedule{Rounds: 2, Duration: 3 * time.Second}}, nil)
			return errors.Join(err, handle.LinkSetUp(out))
		})
		if err != nil {
			t.Fatal(err)
		}
		row := found.Row
		if !strings.Contains(row.Refused, "network is down: the device that frames leave by is down (ip link set DEV up)") {
			t.Errorf("refused: %q", row.Refused)
		}
		i := slices.IndexFunc(row.Lost, func(l record.LostFrames) bool { return l.At == record.LostRedirect })
		if i < 0 || row.Lost[i].Error != "network is down" || row.Lost[i].Frames == 0 {
			t.Errorf("lost %+v", row.Lost)
		}
	})
	// What has left is read before what came, however long a busy machine lets the reader wait between them.
	t.Run("begin", func(t *testing.T) {
		stop := flood.Start(t, lab, userA.Index)
		defer stop()
		for seen, try := 0, 0; seen < 10; try++ { // a busy machine may send nothing meanwhile
			if try == 500 {
				t.Fatalf("frames came in %d of %d tries", seen, try)
			}
			time.Sleep(20 * time.Millisecond) // what the last program redirected leaves
			err := lab.Do(func() (err error) {
				before, err := netlink.LinkByName("out")
				if err != nil {
					return err
				}
				attached, err := DevicePair{In: "in", Out: "out"}.Attach(t.Context())
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, attached.Close()) }()
				time.Sleep(20 * time.Millisecond)
				r := pairRun{AttachedPair: attached, plan: DevicePair{Scenario: Map}}
				if err := r.begin(); err != nil {
					return err
				}
				left, came := rose(r.first.out.TxPackets, before.Attrs().Statistics.TxPackets), r.first.handled()
				if left > came {
					t.Errorf("%d frames had left, %d had come", left, came)
				}
				if came > 0 {
					seen++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("deaf", func(t *testing.T) {
		if _, _, err := lab.VethPair("deaf", "plain"); err != nil {
			t.Fatal(err)
		}
		err := lab.Do(func() (err error) {
			_, err = RunPair(t.Context(), DevicePair{In: "in", Out: "deaf"}, nil)
			return err
		})
		const want = "deaf takes no redirected frames: its peer plain has no XDP program and no GRO: ethtool -K plain gro on"
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	})
	t.Run("idle", func(t *testing.T) {
		var found PairResult
		err := lab.Do(func() (err error) {
			found, err = RunPair(t.Context(), DevicePair{In: "in", Out: "out", Schedule: rounds.Schedule{Rounds: 1, Duration: time.Second}}, nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		row := found.Row
		if !strings.Contains(row.Refused, "nothing arrived") || row.Mpps != nil {
			t.Errorf("row %+v", row)
		}
	})
	t.Run("taken", func(t *testing.T) {
		lab2, err := netlab.New(0)
		if err != nil {
			t.Fatal(err)
		}
		defer lab2.Close()
		c, err := build(t.Context(), lab2, 0, Plan{}.withDefaults().chains()[0], cores{}, counting)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = lab2.Do(func() error {
			l, err := netlink.LinkByIndex(c.tested.Index)
			if err != nil {
				return err
			}
			_, err = RunPair(t.Context(), DevicePair{In: l.Attrs().Name, Out: "lo",
				Schedule: rounds.Schedule{Rounds: 1, Duration: time.Second}}, nil)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "has an XDP program already") {
			t.Errorf("a device that is taken: %v", err)
		}
	})
	t.Run("nothing left", func(t *testing.T) {
		err := lab.Do(func() error {
			l, err := netlink.LinkByName("in")
			if err == nil && l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached {
				err = fmt.Errorf("an XDP program is still attached")
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// What happened between two readings, by queue and CPU; counters that a driver resets do not
// fall below 0.
func TestDeviceCountsSince(t *testing.T) {
	before := deviceCounts{at: time.Unix(1, 0), queues: []chain.QueueCount{{Queue: 0, CPU: 1, Frames: 5, Bytes: 300}}}
	before.out.TxPackets, before.in.RxMissedErrors, before.out.TxDropped = 100, 7, 9
	after := deviceCounts{at: time.Unix(3, 0), queues: []chain.QueueCount{
		{Queue: 1, CPU: 0, Frames: 4, Bytes: 240, Failed: 2}, {Queue: 0, CPU: 1, Frames: 8, Bytes: 480},
	}}
	after.out.TxPackets, after.in.RxMissedErrors = 105, 10
	five := uint64(5)
	want := Interval{
		End: time.Unix(3, 0), Length: 2 * time.Second,
		Queues: []record.QueueCount{{Queue: 0, CPU: 1, Frames: 3, Bytes: 180}, {Queue: 1, CPU: 0, Frames: 4, Bytes: 240}},
		Left:   &five,
		Lost:   []record.LostFrames{{At: record.LostMissed, Frames: 3}, {At: record.LostNoPort, Frames: 2}},
	}
	if diff := cmp.Diff(want, after.since(before, Map)); diff != "" {
		t.Error(diff)
	}
	if got := after.since(before, Drop); got.Left != nil || got.Frames() != 7 {
		t.Errorf("%+v", got)
	}
}

func TestPairRefusal(t *testing.T) {
	reading := func(frames, left uint64) deviceCounts {
		c := deviceCounts{queues: []chain.QueueCount{{Frames: frames}}}
		c.out.TxPackets, c.in.RxPackets = left, frames
		return c
	}
	for _, test := range []struct {
		plan   DevicePair
		last   deviceCounts
		want   string
		rounds int
	}{
		{DevicePair{}, reading(100000, 99999), "", 1},
		{DevicePair{}, reading(100000, 200000), "", 1}, // the device has other traffic
		{DevicePair{}, reading(100000, 50000), "of 100000 frames that came by a and were redirected, 50000 left by b, " +
			"as its own statistics say; --tracepoints says why", 1},
		{DevicePair{Scenario: TX}, reading(100000, 0), "returned by XDP_TX, 0 left by a", 1},
		{DevicePair{Scenario: Drop}, reading(100000, 0), "", 1},
		{DevicePair{Scenario: Drop}, reading(0, 0), "nothing arrived on a", 1},
		{DevicePair{Scenario: Drop}, reading(10, 0), noRound, 0},
	} {
		r := pairRun{plan: test.plan.withDefaults(), last: test.last, ns: make([]float64, test.rounds)}
		if r.plan.In = "a"; r.plan.Scenario == Map {
			r.plan.Out = "b"
		}
		got := r.refusal(r.last.since(r.first, r.plan.Scenario))
		if !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%+v: %q, want %q", test.plan, got, test.want)
		}
	}
}
