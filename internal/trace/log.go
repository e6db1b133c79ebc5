package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
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
	maxAddrs = 1 << 18
)

// ErrNoWindow is returned for a log without a whole window behind its first.
var ErrNoWindow = errors.New("the log holds no whole window")

// Read reads what QEMU logs of "exec" with blocks of one instruction, up to a line end, and
// returns the shortest window of those between entries of stamp, but for the first one, which
// warms up what was cold. Afterwards r is behind the line end, unless there is an error. What
// it holds while it reads is taken from the budget, and given back when it returns.
//
// A line is "Trace 0: 0x7f… [00000000/ffffffff812b8e40/18c0c2b0/ff022e01] " (QEMU 7.2 and
// 10.0): the second of the four is the address. A block that QEMU took back is logged again
// when it is executed.
func Read(r *bufio.Reader, stamp uint64, end string, budget *Budget) (*Packed, error) {
	p, err := readLog(r, &log{stamp: stamp, budget: budget}, end)
	if err == nil && len(p.lengths) == 0 {
		return nil, ErrNoWindow
	}
	return p, err
}

// ReadFirst is [Read] of the first window, whatever its length.
func ReadFirst(r *bufio.Reader, stamp uint64, end string, budget *Budget) (*Packed, error) {
	p, err := ReadSome(r, stamp, end, budget, func(i int) bool { return i == 0 })
	if err == nil && len(p.lengths) == 0 {
		return nil, ErrNoWindow
	}
	return p, err
}

// ReadSome is [Read] of the windows that wanted tells by their number, from 0; there may be none. All together they may
// have as many instructions as one window may.
func ReadSome(r *bufio.Reader, stamp uint64, end string, budget *Budget, wanted func(i int) bool) (*Packed, error) {
	return readLog(r, &log{stamp: stamp, budget: budget, wanted: wanted}, end)
}

func readLog(r *bufio.Reader, l *log, end string) (p *Packed, err error) {
	defer func() { l.budget.Give(l.taken) }()
	if l.order, err = newPacker(); err != nil {
		return nil, err
	}
	l.index = make(map[uint64]uint32)
	if err := l.read(r, end); err != nil {
		return nil, err
	}
	return l.packed()
}

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
	stamp  uint64
	budget *Budget
	taken  int // bytes of the budget
	// wanted tells the windows that are kept; nil for the shortest.
	wanted func(i int) bool
	index  map[uint64]uint32
	addrs  []uint64
	// stamps are the entries of stamp so far; length is how many instructions the window under way has.
	stamps, length int
	// order are the wanted windows, or the one under way while it may be the shortest; lengths are those of whole ones.
	order   *packer
	lengths []int
	// best is the shortest window so far.
	best []byte
	// last is the address of the last line, while it may still be taken back.
	last    uint64
	pending bool
}

// addrSize is what an address of a log takes in its list and its index, in bytes.
const addrSize = 48

// take takes bytes from the budget.
func (l *log) take(size int) error {
	if err := l.budget.Take(size); err != nil {
		return fmt.Errorf("read QEMU's log: %w", err)
	}
	l.taken += size
	return nil
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
		if l.stamps == maxWindows {
			return fmt.Errorf("read QEMU's log: more than %d windows", maxWindows)
		}
		if err := l.cut(); err != nil {
			return err
		}
	}
	if !l.counts() {
		return nil
	}
	l.length++
	if l.wanted == nil && len(l.lengths) > 0 && l.length > l.lengths[0] {
		return nil // it is not the shortest
	}
	at, ok := l.index[l.last]
	if !ok {
		if len(l.addrs) == maxAddrs {
			return fmt.Errorf("read QEMU's log: more than %d addresses", maxAddrs)
		}
		if err := l.take(addrSize); err != nil {
			return err
		}
		at = uint32(len(l.addrs))
		l.index[l.last], l.addrs = at, append(l.addrs, l.last)
	}
	if l.order.n == maxWindow {
		return fmt.Errorf("read QEMU's log: a window of more than %d instructions", maxWindow)
	}
	grown, err := l.order.add(at)
	if err != nil {
		return err
	}
	return l.take(grown)
}

// counts tells whether the window under way is one that may be kept: not what is before the first stamp, nor the window
// that warms up where the shortest is wanted.
func (l *log) counts() bool {
	if l.wanted != nil {
		return l.stamps > 0 && l.wanted(l.stamps-1)
	}
	return l.stamps > 1
}

// cut ends a window and begins the next.
func (l *log) cut() error {
	ends, length := l.counts(), l.length
	l.stamps, l.length = l.stamps+1, 0
	switch {
	case !ends:
		return nil
	case l.wanted != nil:
		l.lengths = append(l.lengths, length)
		return nil
	case len(l.lengths) == 0 || length < l.lengths[0]:
		order, err := l.order.end()
		if err != nil {
			return err
		}
		if err := l.take(len(order) - len(l.best)); err != nil {
			return err
		}
		l.best, l.lengths = order, []int{length}
	}
	l.order.reset()
	return nil
}

// packed is what is kept of a log that was read.
func (l *log) packed() (*Packed, error) {
	order := l.best
	if l.wanted != nil {
		var err error
		if order, err = l.order.end(); err != nil {
			return nil, err
		}
	}
	return &Packed{slices.Clip(l.addrs), order, slices.Clip(l.lengths)}, nil
}

// Counts are how often each of Addrs was executed.
func (w *Window) Counts() []uint64 {
	counts := make([]uint64, len(w.Addrs))
	for _, at := range w.Order {
		counts[at]++
	}
	return counts
}
