package trace

import (
	"bufio"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// long is a log of a window of a stamp alone, and of one with n instructions behind it, at the addresses that at tells.
func long(n int, at func(i int) uint64) io.Reader {
	i, left := -2, []byte(nil)
	return readerFunc(func(p []byte) (int, error) {
		for len(left) == 0 {
			addr := uint64(stamped)
			switch {
			case i > n:
				return 0, io.EOF
			case i >= 0 && i < n:
				addr = at(i)
			}
			left = append(left[:0], "Trace 0: 0x7f [0/"...)
			left = append(strconv.AppendUint(left, addr, 16), "/0/0] \n"...)
			if i == n {
				left = append(left, "END\n"...)
			}
			i++
		}
		k := copy(p, left)
		left = left[k:]
		return k, nil
	})
}

const stamped = 0xffffffff81000000

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A packed window is the same when it is unpacked, however long, and packets that go the same way take a twentieth.
func TestPack(t *testing.T) {
	t.Parallel()
	budget := NewBudget(64 << 20)
	for name, test := range map[string]struct {
		at   func(i int) uint64
		most int // bytes
	}{
		"packets": {func(i int) uint64 { j := uint64(i % 35_000); return 1 + (j*j%7919+j)%3000 }, 4 << 20 / 20},
		"any":     {func(i int) uint64 { j := uint64(i); return 1 + (j*j%7919+j)%3000 }, 4 << 20},
	} {
		p, err := Read(bufio.NewReader(long(1<<20, test.at)), stamped, "END", budget)
		if err != nil {
			t.Fatal(err)
		}
		w := unpacked(t, p, 1<<20+1)
		for i := range 1 << 20 {
			if got := w.Addrs[w.Order[i+1]]; got != test.at(i) {
				t.Fatalf("%s: instruction %d is at %#x, want %#x", name, i, got, test.at(i))
			}
		}
		if p.Size() > test.most+8*3001 {
			t.Errorf("%s: %d bytes packed of %d", name, p.Size(), 4<<20)
		}
	}
	if budget.Taken() != 0 {
		t.Errorf("%d bytes are not given back", budget.Taken())
	}
}

// What is kept of a log is what its size says, whatever the log was like: nothing of the reading stays.
func TestPackedSize(t *testing.T) {
	const n = maxAddrs - 1
	any := func(int) bool { return true }
	var all []*Packed
	before := heap()
	for range 4 {
		// Each address once, in an order that cannot be compressed well.
		p, err := ReadSome(bufio.NewReader(long(n, func(i int) uint64 { return uint64(i)*0x9e3779b97f4a7c15 | 1 })), stamped, "END",
			NewBudget(64<<20), any)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	size := 0
	for _, p := range all {
		size += p.Size()
	}
	if got := heap() - before; got > int64(size+size/2+4<<20) {
		t.Errorf("%d bytes are kept, of which %d are known", got, size)
	}
	runtime.KeepAlive(all)
}

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A log that takes more than there is ends, and gives all back.
func TestReadBudget(t *testing.T) {
	t.Parallel()
	for name, log := range map[string]func(i int) uint64{
		"addresses":    func(i int) uint64 { return uint64(i) + 1 },
		"instructions": func(i int) uint64 { j := uint64(i); return 1 + (j*j*j>>7^j*0x9e3779b97f4a7c15>>40)%1000 },
	} {
		budget := NewBudget(1 << 19)
		_, err := Read(bufio.NewReader(long(4<<20, log)), stamped, "END", budget)
		if err == nil || !strings.Contains(err.Error(), "of traces at a time") || budget.Taken() != 0 {
			t.Errorf("%s: %v, %d bytes are not given back", name, err, budget.Taken())
		}
	}
	_, err := Read(bufio.NewReader(long(2*maxAddrs, func(i int) uint64 { return uint64(i) + 1 })), stamped, "END", NewBudget(64<<20))
	if err == nil || !strings.Contains(err.Error(), "addresses") {
		t.Error(err)
	}
}

// What is made of windows ends with its context, and says why that ended.
func TestEnded(t *testing.T) {
	t.Parallel()
	p, err := Read(reader(logged(stamped, stamped, 1, 2, stamped)+"END\n"), stamped, "END", NewBudget(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	w := unpacked(t, p, 3)
	reason := errors.New("a signal")
	ctx, end := context.WithCancelCause(t.Context())
	program := testProgram()
	asked := 0
	opts := Options{Code: program.code, Name: func(uint64) (string, uint64, bool) { asked++; return "", 0, false }}
	// The context ends after the first window, so that no other is cut.
	trees := 0
	three := &Window{Addrs: w.Addrs, Order: slices.Repeat(w.Order, 3)}
	err = CutEach(ctx, three, 3, opts, func(*Tree) error { trees++; end(reason); return nil })
	if !errors.Is(err, reason) || trees != 1 || asked != len(w.Addrs) {
		t.Errorf("%d windows are cut after %d names: %v", trees, asked, err)
	}
	if _, err := p.Unpack(ctx, 3); !errors.Is(err, reason) {
		t.Errorf("unpacked: %v", err)
	}
	tree, err := Cut(t.Context(), w, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tree.Functions(ctx, func([]string, bool) string { return "" }); !errors.Is(err, reason) {
		t.Errorf("summed up: %v", err)
	}
	asked = 0
	if _, err := Cut(ctx, w, opts); !errors.Is(err, reason) || asked > 0 {
		t.Errorf("cut: %v", err)
	}
}
