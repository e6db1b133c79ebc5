package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
)

// Window are the instructions between two entries of the function that takes time stamps.
type Window struct {
	// Addrs are the addresses that were executed, each once. Order are the instructions in
	// their order, as places in Addrs.
	Addrs []uint64
	Order []uint32
}

// Limits on a log, which is of a kernel that nobody vouches for.
const (
	// maxLines are those of a log: at 3 µs each that is a minute and a half.
	maxLines = 32 << 20
	// maxWindow is how many instructions a window may have: 128 packets take 400 000 one by one.
	maxWindow = 4 << 20
	// maxWindows is how many windows a log may have: 32 slots have some 100.
	maxWindows = 1 << 16
	// maxAddrs is how many addresses a log may have: some 5000 are usual.
	maxAddrs = 1 << 20
)

// ErrNoWindow is returned for a log without a whole window behind its first.
var ErrNoWindow = errors.New("the log holds no whole window")

// Read reads what QEMU logs of "exec" with blocks of one instruction, up to a line end, and
// returns the shortest window of those between entries of stamp, but for the first one, which
// warms up what was cold. lengths are those of all, in instructions. Afterwards r is behind the
// line end, unless there is an error.
//
// A line is "Trace 0: 0x7f… [00000000/ffffffff812b8e40/18c0c2b0/ff022e01] " (QEMU 7.2 and
// 10.0): the second of the four is the address. A block that QEMU took back is logged again
// when it is executed.
func Read(r *bufio.Reader, stamp uint64, end string) (w *Window, lengths []int, err error) {
	return readLog(r, &log{stamp: stamp, index: make(map[uint64]uint32)}, end)
}

// ReadFirst is [Read] of the first window, whatever its length.
func ReadFirst(r *bufio.Reader, stamp uint64, end string) (w *Window, lengths []int, err error) {
	return readLog(r, &log{stamp: stamp, first: true, index: make(map[uint64]uint32)}, end)
}

func readLog(r *bufio.Reader, l *log, end string) (w *Window, lengths []int, err error) {
	for range maxLines {
		line, err := r.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				return nil, nil, errors.New("read QEMU's log: a line that is too long")
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, nil, fmt.Errorf("read QEMU's log: %w", err)
		}
		line = line[:len(line)-1]
		if string(line) == end {
			if err := l.execute(); err != nil {
				return nil, nil, err
			}
			return l.shortest()
		}
		if err := l.line(line); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("read QEMU's log: more than %d instructions", maxLines)
}

// log is one that is being read.
type log struct {
	stamp uint64
	first bool // the first window is wanted, and no other is kept
	index map[uint64]uint32
	addrs []uint64
	// stamps are the entries of stamp so far; window is the one under way, best the shortest.
	stamps       int
	window, best []uint32
	lengths      []int
	// last is the address of the last line, while it may still be taken back.
	last    uint64
	pending bool
}

// takenBack begin the lines by which QEMU says that it did not execute the block that it has
// logged last, but left it for an interrupt or translates it again.
var takenBack = [][]byte{[]byte("Stopped execution of TB chain"), []byte("cpu_io_recompile:")}

var traced = []byte("Trace ")

func (l *log) line(line []byte) error {
	if !bytes.HasPrefix(line, traced) {
		for _, words := range takenBack {
			if bytes.HasPrefix(line, words) {
				l.pending = false
			}
		}
		return nil // of another kind
	}
	addr, ok := address(line)
	if !ok {
		return fmt.Errorf("read QEMU's log: no address in %.80q", line)
	}
	if err := l.execute(); err != nil {
		return err
	}
	l.last, l.pending = addr, true
	return nil
}

// address is the second of the numbers between brackets.
func address(line []byte) (addr uint64, ok bool) {
	i := bytes.IndexByte(line, '[')
	if i < 0 {
		return 0, false
	}
	_, rest, ok := bytes.Cut(line[i:], []byte("/"))
	digits, _, ok2 := bytes.Cut(rest, []byte("/"))
	if !ok || !ok2 || len(digits) == 0 || len(digits) > 16 {
		return 0, false
	}
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		addr = addr<<4 | uint64(c)
	}
	return addr, true
}

// execute takes the pending instruction for executed.
func (l *log) execute() error {
	if !l.pending {
		return nil
	}
	l.pending = false
	if l.last == l.stamp {
		if len(l.lengths) == maxWindows {
			return fmt.Errorf("read QEMU's log: more than %d windows", maxWindows)
		}
		l.cut()
	}
	if l.stamps < 1 || l.stamps < 2 && !l.first || l.first && l.best != nil {
		return nil // before the windows that count, or behind the one
	}
	at, ok := l.index[l.last]
	if !ok {
		if len(l.addrs) == maxAddrs {
			return fmt.Errorf("read QEMU's log: more than %d addresses", maxAddrs)
		}
		at = uint32(len(l.addrs))
		l.index[l.last], l.addrs = at, append(l.addrs, l.last)
	}
	if len(l.window) == maxWindow {
		return fmt.Errorf("read QEMU's log: a window of more than %d instructions", maxWindow)
	}
	l.window = append(l.window, at)
	return nil
}

// cut ends a window and begins the next.
func (l *log) cut() {
	l.stamps++
	if l.stamps < 2 || l.stamps < 3 && !l.first || l.first && l.best != nil {
		return
	}
	l.lengths = append(l.lengths, len(l.window))
	if l.best == nil || len(l.window) < len(l.best) {
		l.best, l.window = l.window, l.best
	}
	l.window = l.window[:0]
}

// shortest is the shortest window with the addresses that are in it.
func (l *log) shortest() (*Window, []int, error) {
	if l.best == nil {
		return nil, nil, ErrNoWindow
	}
	w := &Window{Order: make([]uint32, len(l.best))}
	const none = math.MaxUint32
	places := make([]uint32, len(l.addrs))
	for i := range places {
		places[i] = none
	}
	for i, at := range l.best {
		if places[at] == none {
			places[at] = uint32(len(w.Addrs))
			w.Addrs = append(w.Addrs, l.addrs[at])
		}
		w.Order[i] = places[at]
	}
	return w, l.lengths, nil
}

// Counts are how often each of Addrs was executed.
func (w *Window) Counts() []uint64 {
	counts := make([]uint64, len(w.Addrs))
	for _, at := range w.Order {
		counts[at]++
	}
	return counts
}
