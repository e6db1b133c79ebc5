package forward

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/unthunk/unthunk/datapath"
)

// Sample writes one in N frames to a pcap file, with a time in ns. What
// the writer cannot keep up with is left out and counted.
type Sample struct {
	every   int
	frames  chan sampled
	done    chan error
	free    chan []byte
	missed  atomic.Uint64
	written atomic.Uint64
}

type sampled struct {
	at   time.Time
	data []byte
	len  uint32
}

// snapLen is how much of a frame is kept, in bytes.
const snapLen = 2048

// sampleQueue is how many frames wait to be written.
const sampleQueue = 256

// NewSample takes one of every frames, once it is started. every is 1 or more.
func NewSample(every int) *Sample {
	s := &Sample{
		every: every, frames: make(chan sampled, sampleQueue), done: make(chan error, 1),
		free: make(chan []byte, sampleQueue),
	}
	for range sampleQueue {
		s.free <- make([]byte, snapLen)
	}
	return s
}

// Start writes the header of a pcap file to w, and from then on the sampled frames. It
// comes before the first frame, and Close after the last.
func (s *Sample) Start(w io.Writer) error {
	buf := bufio.NewWriter(w)
	if _, err := buf.Write(datapath.PcapHeader()); err != nil {
		return fmt.Errorf("write pcap file: %w", err)
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("write pcap file: %w", err)
	}
	go s.write(buf)
	return nil
}

// sampler takes the frames of one worker.
type sampler struct {
	*Sample
	skip int // frames until the next
}

// take is called for each batch, by the worker.
func (s *sampler) take(frames []datapath.Frame) {
	for i := s.skip; i < len(frames); i += s.every {
		s.keep(&frames[i])
		s.skip = i + s.every
	}
	s.skip = max(0, s.skip-len(frames))
}

func (s *Sample) keep(f *datapath.Frame) {
	select {
	case buf := <-s.free:
		n := copy(buf[:cap(buf)], f.Data)
		s.frames <- sampled{time.Now(), buf[:n], f.Len} // there is room: buffers are as many
	default:
		s.missed.Add(1)
	}
}

func (s *Sample) write(w *bufio.Writer) {
	var failed error
	var h [16]byte
	for f := range s.frames {
		if failed == nil {
			datapath.PutPcapRecord(h[:], f.at, len(f.data), int(f.len))
			_, err1 := w.Write(h[:])
			_, err2 := w.Write(f.data)
			if failed = errors.Join(err1, err2); failed == nil {
				s.written.Add(1)
			}
			if len(s.frames) == 0 && failed == nil {
				failed = w.Flush()
			}
		}
		s.free <- f.data
	}
	if failed == nil {
		failed = w.Flush()
	}
	s.done <- failed
}

// Written and Missed are how many frames were written, and left out.
func (s *Sample) Written() uint64 { return s.written.Load() }
func (s *Sample) Missed() uint64  { return s.missed.Load() }

// Close writes what is left of a started sample. Nothing must be forwarded any more.
func (s *Sample) Close() error {
	close(s.frames)
	if err := <-s.done; err != nil {
		return fmt.Errorf("write pcap file: %w", err)
	}
	return nil
}
