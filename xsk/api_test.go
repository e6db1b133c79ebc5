package xsk_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/unthunk/unthunk/xsk"
)

// Frames of queue 0 of device 2 come to a socket, and go back out by it.
func Example() {
	ctx := context.Background()
	umem, err := xsk.NewUMEM(xsk.Config{Frames: 1024})
	if err != nil {
		panic(err)
	}
	defer umem.Close()
	socket, err := xsk.Open(ctx, umem, xsk.Options{Interface: 2})
	if err != nil {
		panic(err)
	}
	defer socket.Close()
	chunks := make([]uint64, 512)
	socket.Fill.Put(chunks[:umem.Alloc(chunks)])
	program, err := xsk.Attach(2, xsk.ProgramOptions{Sockets: []*xsk.Socket{socket}})
	if err != nil {
		panic(err)
	}
	defer program.Close()
	frames := make([]xsk.Desc, 64)
	for {
		n := socket.RX.Take(frames)
		socket.TX.Put(frames[:n])
		if err := socket.Kick(); err != nil {
			panic(err)
		}
		done := socket.Completion.Take(chunks[:64])
		socket.Fill.Put(chunks[:done])
	}
}

func ExampleUMEM() {
	umem, err := xsk.NewUMEM(xsk.Config{Frames: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer umem.Close()
	chunks := make([]uint64, 2)
	n := umem.Alloc(chunks)
	frame := xsk.Desc{Addr: chunks[1] + 100, Len: 5}
	copy(umem.Data(frame), "hello")
	fmt.Println(n, umem.Available(), umem.Base(frame.Addr), umem.Index(frame.Addr))
	// Output: 2 2 4096 1
}

// The life of a UMEM, and what a socket refuses before it asks the kernel.
func TestUMEMLife(t *testing.T) {
	umem, err := xsk.NewUMEM(xsk.Config{Frames: 8})
	if err != nil {
		t.Fatal(err)
	}
	chunks := make([]uint64, 16)
	if n := umem.Alloc(chunks); n != 8 {
		t.Errorf("%d chunks, want 8", n)
	}
	last := xsk.Desc{Addr: chunks[7], Len: xsk.DefaultFrameSize}
	if !umem.Valid(last) || len(umem.Data(last)) != xsk.DefaultFrameSize {
		t.Errorf("%+v is not valid", last)
	}
	last.Addr++
	if umem.Valid(last) || umem.Data(last) != nil {
		t.Errorf("%+v is valid and reaches out of its chunk", last)
	}
	if err := umem.Free(chunks[:8]); err != nil {
		t.Error(err)
	}
	if err := umem.Free(chunks[:1]); err == nil {
		t.Error("a chunk is freed twice")
	}
	if _, err := xsk.Open(t.Context(), umem, xsk.Options{}); err == nil {
		t.Error("a socket on no device")
	}
	canceled, stop := context.WithCancel(t.Context())
	stop()
	if _, err := xsk.Open(canceled, umem, xsk.Options{Interface: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if err := umem.Close(); err != nil {
		t.Error(err)
	}
	if _, err := xsk.Open(t.Context(), umem, xsk.Options{Interface: 1}); !errors.Is(err, xsk.ErrClosed) {
		t.Errorf("%v, want %v", err, xsk.ErrClosed)
	}
}
