package datapath_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/xsk"
)

// Frames go from one port to another; those that begin with 0 are dropped.
func Example() {
	umem, err := xsk.NewUMEM(xsk.Config{Frames: 256})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer umem.Close()
	// Memory takes the place of an AF_XDP port, see NewXSK.
	in, _ := datapath.NewMemory(umem, 64)
	out, _ := datapath.NewMemory(umem, 64)
	out.Sent = func(parts [][]byte) { fmt.Printf("sent %s\n", bytes.Join(parts, nil)) }
	path, err := datapath.New(datapath.Config{
		UMEM:  umem,
		Ports: []datapath.Port{in, out},
		Program: func(frames []datapath.Frame, actions []datapath.Action) {
			for i, f := range frames {
				if f.Data[0] != 0 {
					actions[i] = datapath.Redirect(1)
				}
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer path.Close()
	in.Inject([]byte("one"))
	in.Inject([]byte{0, 1, 2})
	in.Inject([]byte("two"))
	n, err := path.Poll()
	fmt.Println(n, err)
	c := path.Counters(nil)
	fmt.Println(c[0].Received, c[0].DroppedByProgram, c[1].Transmitted)
	// Output:
	// sent one
	// sent two
	// 3 <nil>
	// 3 1 2
}

// Two workers have a queue of each device, which ports of memory stand for. Frames of one queue leave by the
// other: each worker hands those of its input to the one that has the output.
func ExampleNewWorkers() {
	umem, err := xsk.NewUMEM(xsk.Config{Frames: 1024})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer umem.Close()
	const in0, in1, out0, out1 = 0, 1, 2, 3
	ports := make([]datapath.Port, 4)
	inputs := make([]*datapath.Memory, 2)
	sent := make(chan string, 2)
	for i := range ports {
		port, err := datapath.NewMemory(umem, 64)
		if err != nil {
			fmt.Println(err)
			return
		}
		if i < len(inputs) {
			inputs[i] = port
		}
		port.Sent = func(parts [][]byte) { sent <- fmt.Sprintf("port %d sent %s", i, bytes.Join(parts, nil)) }
		ports[i] = port
	}
	workers, err := datapath.NewWorkers(datapath.WorkersConfig{
		Config: datapath.Config{UMEM: umem, Ports: ports, Program: func(frames []datapath.Frame, actions []datapath.Action) {
			to := datapath.Redirect(out1)
			if frames[0].Port == in1 { // a batch came by one port
				to = datapath.Redirect(out0)
			}
			for i := range frames {
				actions[i] = to
			}
		}},
		// CPUs: []int{2} keeps a worker on CPU 2.
		Workers: []datapath.Worker{{Ports: []int{in0, out0}}, {Ports: []int{in1, out1}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer workers.Close()
	inputs[0].Inject([]byte("one"))
	inputs[1].Inject([]byte("two"))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- workers.Run(ctx) }()
	fmt.Println(<-sent)
	fmt.Println(<-sent)
	stop()
	fmt.Println(<-done)
	// Unordered output:
	// port 3 sent one
	// port 2 sent two
	// <nil>
}

// The life of a datapath: made, polled, a port lost and put back, drained, closed.
func TestLife(t *testing.T) {
	umem, err := xsk.NewUMEM(xsk.Config{Frames: 128})
	if err != nil {
		t.Fatal(err)
	}
	port := func() *datapath.Memory {
		m, err := datapath.NewMemory(umem, 32)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	in, out := port(), port()
	lost := -1
	path, err := datapath.New(datapath.Config{
		UMEM: umem, Ports: []datapath.Port{in, out}, Batch: 8,
		Lost: func(port int, _ error) { lost = port },
		Program: func(_ []datapath.Frame, actions []datapath.Action) {
			for i := range actions {
				actions[i] = datapath.Redirect(1)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	send := func() {
		t.Helper()
		if !in.Inject([]byte("frame")) {
			t.Fatal("no chunk to receive into")
		}
		if n, err := path.Poll(); n != 1 || err != nil {
			t.Fatalf("received %d, %v", n, err)
		}
	}
	send()
	out.Lose(errors.New("unplugged"))
	send()
	if lost != 1 || path.Present(1) {
		t.Errorf("lost port %d, present %v: want 1, false", lost, path.Present(1))
	}
	send() // to a port that is not there
	if err := path.SetPort(1, port()); err != nil {
		t.Fatal(err)
	}
	send()
	if n := path.Drain(time.Second); n != 0 {
		t.Errorf("%d frames in flight after a drain", n)
	}
	if err := path.Close(); err != nil {
		t.Error(err)
	}
	var sum datapath.Counters
	for i, c := range path.Counters(nil) {
		if !c.Balanced() {
			t.Errorf("port %d does not balance: %+v", i, c)
		}
		sum.Add(c)
	}
	if sum.Received != 4 || sum.Transmitted != 2 || sum.DroppedNoPort+sum.Lost != 2 {
		t.Errorf("%+v: want 4 received, 2 transmitted, 2 lost or dropped", sum)
	}
	if _, err := path.Poll(); !errors.Is(err, xsk.ErrClosed) {
		t.Errorf("poll after close: %v", err)
	}
	if err := umem.Close(); err != nil {
		t.Error(err)
	}
}
