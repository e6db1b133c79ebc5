package redirect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/xsk"
)

// worker forwards in user space what one device receives to another, on memory that both share.
type worker struct {
	umem *xsk.UMEM
	path *datapath.Datapath
	// in is the socket of the device that frames come in by.
	in   *xsk.Socket
	stop context.CancelFunc
	done chan error
}

// The worker's memory, and its rings, in frames: both devices' rings are full, and as many are on their way.
const (
	workerFrames = 4096
	workerRing   = 1024
)

// newWorker binds to queue 0 of two devices in the calling thread's network namespace and fills their rings. Frames come once
// a program gives them to in.
func newWorker(ctx context.Context, from, to int, mode xsk.Mode) (w *worker, err error) {
	w = &worker{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open a forwarder in user space: %w", err), w.Close())
			w = nil
		}
	}()
	if w.umem, err = xsk.NewUMEM(xsk.Config{Frames: workerFrames}); err != nil {
		return w, err
	}
	options := xsk.Options{Mode: mode, Fill: workerRing, Completion: workerRing, RX: workerRing, TX: workerRing}
	in, out := options, options
	in.Interface, out.Interface = from, to
	sockets, err := xsk.OpenAll(ctx, w.umem, []xsk.Options{in, out})
	if err != nil {
		return w, err
	}
	w.in = sockets[0]
	w.path, err = datapath.New(datapath.Config{
		UMEM: w.umem, Ports: []datapath.Port{datapath.NewXSK(sockets[0]), datapath.NewXSK(sockets[1])},
		Program: func(_ []datapath.Frame, actions []datapath.Action) {
			for i := range actions {
				actions[i] = datapath.Redirect(1)
			}
		},
	})
	return w, err
}

// start forwards until the worker is closed.
func (w *worker) start() {
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	w.done = make(chan error, 1)
	go func() { w.done <- w.path.Run(ctx) }()
}

// workerDrain is how long what the worker has to transmit may take to leave.
const workerDrain = time.Second

// Close stops the worker and frees its memory.
func (w *worker) Close() error {
	var errs []error
	if w.stop != nil {
		w.stop()
		errs = append(errs, <-w.done)
	}
	if w.path != nil {
		w.path.Drain(workerDrain)
		errs = append(errs, w.path.Close())
	}
	if w.umem != nil {
		errs = append(errs, w.umem.Close())
	}
	return errors.Join(errs...)
}
