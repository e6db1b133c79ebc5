package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
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
	// maxWindow is how many instructions a window may have: 128 packets take 400 000 one by one, and 4.4 million in fragments.
	maxWindow = 8 << 20
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
	if err := l.read(r, end); err != nil {
		return nil, nil, err
	}
	if l.best == nil {
		return nil, nil, ErrNoWindow
	}
	return l.join(l.best), l.lengths, nil
}

// Windows are some of a log.
type Windows struct {
	log *log
	of  [][]uint32 // places in the log's addresses
}

// ReadSome is [Read] of the windows that wanted tells by their number, from 0. All together they may have as many
// instructions as one window may.
func ReadSome(r *bufio.Reader, stamp uint64, end string, wanted func(i int) bool) (*Windows, error) {
	l := &log{stamp: stamp, wanted: wanted, index: make(map[uint64]uint32)}
	if err := l.read(r, end); err != nil {
		return nil, err
	}
	return &Windows{log: l, of: l.some}, nil
}

// Len is how many windows there are.
func (w *Windows) Len() int { return len(w.of) }

// OfLength are the windows that have as many instructions.
func (w *Windows) OfLength(instructions int) *Windows {
	out := &Windows{log: w.log}
	for _, one := range w.of {
		if len(one) == instructions {
			out.of = append(out.of, one)
		}
	}
	return out
}

// Each is the i-th window.
func (w *Windows) Each(i int) *Window { return w.log.join(w.of[i]) }

// Joined is all windows, one behind the other.
func (w *Windows) Joined() *Window { return w.log.join(w.of...) }

// read reads up to a line end.
func (l *log) read(r *bufio.Reader, end string) error {
	for range maxLines {
		line, err := r.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				return errors.New("read QEMU's log: a line that is too long")
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read QEMU's log: %w", err)
		}
		line = line[:len(line)-1]
		if string(line) == end {
			return l.execute()
		}
		if err := l.line(line); err != nil {
			return err
		}
	}
	return fmt.Errorf("read QEMU's log: more than %d instructions", maxLines)
}

// log is one that is being read.
type log struct {
	stamp uint64
	first bool // the first window is wanted, and no other is kept
	// wanted tells the windows that are kept in some, in place of one in best; nil for none. kept are their instructions.
	wanted func(i int) bool
	some   [][]uint32
	kept   int
	index  map[uint64]uint32
	addrs  []uint64
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
	if !l.counts() {
		return nil
	}
	at, ok := l.index[l.last]
	if !ok {
		if len(l.addrs) == maxAddrs {
			return fmt.Errorf("read QEMU's log: more than %d addresses", maxAddrs)
		}
		at = uint32(len(l.addrs))
		l.index[l.last], l.addrs = at, append(l.addrs, l.last)
	}
	if len(l.window)+l.kept == maxWindow {
		return fmt.Errorf("read QEMU's log: a window of more than %d instructions", maxWindow)
	}
	l.window = append(l.window, at)
	return nil
}

// counts tells whether the window under way is one that may be kept: not what is before the first stamp, nor the window
// that warms up where the shortest is wanted, nor one behind the first where that is.
func (l *log) counts() bool {
	switch {
	case l.wanted != nil:
		return l.stamps > 0 && l.wanted(l.stamps-1)
	case l.first:
		return l.stamps > 0 && l.best == nil
	}
	return l.stamps > 1
}

// cut ends a window and begins the next.
func (l *log) cut() {
	ends := l.counts()
	l.stamps++
	if !ends {
		return
	}
	l.lengths = append(l.lengths, len(l.window))
	switch {
	case l.wanted != nil:
		l.some, l.kept = append(l.some, slices.Clone(l.window)), l.kept+len(l.window)
	case l.best == nil || len(l.window) < len(l.best):
		l.best, l.window = l.window, l.best
	}
	l.window = l.window[:0]
}

// join makes a window of some, one behind the other, with the addresses that are in them.
func (l *log) join(windows ...[]uint32) *Window {
	n := 0
	for _, window := range windows {
		n += len(window)
	}
	w := &Window{Order: make([]uint32, 0, n)}
	const none = math.MaxUint32
	places := slices.Repeat([]uint32{none}, len(l.addrs))
	for _, window := range windows {
		for _, at := range window {
			if places[at] == none {
				places[at] = uint32(len(w.Addrs))
				w.Addrs = append(w.Addrs, l.addrs[at])
			}
			w.Order = append(w.Order, places[at])
		}
	}
	return w
}

// Counts are how often each of Addrs was executed.
func (w *Window) Counts() []uint64 {
	counts := make([]uint64, len(w.Addrs))
	for _, at := range w.Order {
		counts[at]++
	}
	return counts
}
