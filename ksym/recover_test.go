package ksym

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestRecoverRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	// An index without its tables.
	rising := make([]byte, 4096)
	for i := range tokenCount {
		le.PutUint16(rising[2048+2*i:], uint16(3*i))
	}
	for name, data := range map[string][]byte{"nothing": nil, "zeros": make([]byte, 1<<20), "noise": noise, "an index alone": rising} {
		if table, err := Recover(data); !errors.Is(err, ErrNoTables) || table != nil {
			t.Errorf("%s: %v, %v", name, table, err)
		}
	}
}

// built are tables of two symbols in the layout of Linux 6.4, one token a letter.
func built() []byte {
	var b []byte
	align := func() {
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
	}
	names := []string{"T_text", "tfunction"}
	b = append(b, make([]byte, 16)...)
	b = le.AppendUint32(b, uint32(len(names)))
	align()
	for _, name := range names {
		b = append(append(b, byte(len(name))), name...)
	}
	align()
	b = le.AppendUint32(b, 0) // one marker
	align()
	// Token n is the letter n; one that is no letter is some other.
	var index []uint16
	start := len(b)
	for i := range tokenCount {
		index = append(index, uint16(len(b)-start))
		token := byte(i)
		if i == 0 {
			token = '0'
		}
		b = append(b, token, 0)
	}
	align()
	for _, off := range index {
		b = le.AppendUint16(b, off)
	}
	align()
	for _, off := range []int32{-1, -4097} {
		b = le.AppendUint32(b, uint32(off))
	}
	align()
	return le.AppendUint64(b, 0xffffffff81000000)
}

func TestRecover(t *testing.T) {
	table, err := Recover(append(make([]byte, 24), built()...))
	if err != nil {
		t.Fatal(err)
	}
	want := []Symbol{
		{Addr: 0xffffffff81000000, Size: 0x1000, Type: 'T', Name: "_text"},
		{Addr: 0xffffffff81001000, Type: 't', Name: "function"},
	}
	if diff := cmp.Diff(want, table.Module("")); diff != "" {
		t.Error(diff)
	}
}

// relative are tables of count symbols in the layout of Linux 7.2, at an address.
func relative(addr uint64, count int) []byte {
	b := make([]byte, 20)
	align := func() {
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	b = le.AppendUint32(b, uint32(count))
	var markers []uint32
	first := len(b)
	for n := range count {
		if n%256 == 0 {
			markers = append(markers, uint32(len(b)-first))
		}
		name := "T_text"
		if n > 0 {
			name = fmt.Sprintf("tf%d", n)
		}
		b = append(append(b, byte(len(name))), name...)
	}
	align()
	for _, at := range markers {
		b = le.AppendUint32(b, at)
	}
	var index []uint16
	start := len(b)
	for i := range tokenCount {
		index = append(index, uint16(len(b)-start))
		b = append(b, max(byte(i), 1), 0)
	}
	for _, off := range index {
		b = le.AppendUint16(b, off)
	}
	for n := range count {
		to := 0xffffffff81000000 + 16*uint64(n)
		b = le.AppendUint32(b, uint32(to-addr-uint64(len(b))))
	}
	return b
}

func TestRecoverAt(t *testing.T) {
	const addr = 0xffffffff82400000
	table, err := RecoverAt(relative(addr, 300), addr)
	if err != nil {
		t.Fatal(err)
	}
	want := Symbol{Addr: 0xffffffff81000010, Size: 16, Type: 't', Name: "f1"}
	if s, ok := table.Lookup("f1"); !ok || s != want || table.Len() != 300 {
		t.Errorf("%+v of %d symbols, want %+v", s, table.Len(), want)
	}
	if table, err = RecoverAt(append(make([]byte, 24), built()...), addr); err != nil || table.Len() != 2 {
		t.Errorf("tables of Linux 6.4: %v, %v", table, err)
	}
	if _, err := Recover(relative(addr, 300)); !errors.Is(err, ErrNoTables) {
		t.Errorf("addresses without one to begin at: %v", err)
	}
}

// Names that are short in the file and long when expanded are not all made.
func TestRecoverLongNames(t *testing.T) {
	var tables tables
	for i := range tables.tokens {
		tables.tokens[i] = append(bytes.Repeat([]byte("a"), maxToken-1), byte(i))
	}
	const count = maxNames/(10*maxToken) + 1000
	const size = 11 // of a name in the file: ten tokens
	for n := range count {
		tables.data = append(tables.data, size-1, byte(n), byte(n>>8), byte(n>>16), 0, 0, 0, 0, 0, 0, 0)
	}
	markers := len(tables.data)
	for n := range (count + 255) / 256 {
		tables.data = le.AppendUint32(tables.data, uint32(n*256*size))
	}
	if b, ok := tables.read(0, markers, count); ok {
		t.Errorf("%d symbols of %d bytes each", len(b.syms), 10*maxToken)
	}
	// A number of symbols that the data cannot hold takes no memory.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tables.read(0, 8, maxTables)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes allocated", got)
	}
}

// Names may seem to begin every 8 bytes, and all of them be read before they turn out to end
// elsewhere: that ends too.
func TestRecoverWork(t *testing.T) {
	const blocks, count, names = 4, 0x307, 256 * 600 / 8
	tables := tables{align: 8, left: work{names: 10 * count, reads: maxTries}}
	for range names + 2*count { // the number of names, which is a name of 7 tokens too
		tables.data = le.AppendUint64(tables.data, count)
	}
	markers := len(tables.data)
	for n := range blocks {
		tables.data = le.AppendUint32(tables.data, uint32(8*256*n))
	}
	if _, ok := tables.names(markers, blocks); ok {
		t.Error("symbols were found")
	}
	if left := tables.left.names; left > 0 || left < -count {
		t.Errorf("%d names were read, %d are the limit", 10*count-left, 10*count)
	}
	// Where they end as they should, and what they expand to is no kernel's.
	for i := range tables.tokens {
		tables.tokens[i] = []byte("a")
	}
	tables.left = work{names: maxWork, reads: 0}
	tables.data = append(tables.data[8*(names+count):markers:markers], tables.data[markers:]...)
	if _, ok := tables.names(8*count, blocks); ok || tables.left.names != maxWork {
		t.Errorf("%d names were read when no table may be", maxWork-tables.left.names)
	}
}

// Many tables of tokens are no kernel's, and each would be tried for long.
func TestRecoverTries(t *testing.T) {
	decoy := built()[56:] // no number of symbols, no names
	if table, err := Recover(append(bytes.Repeat(decoy, maxTries-1), built()...)); err != nil || table.Len() != 2 {
		t.Errorf("%v, %v", table, err)
	}
	if table, err := Recover(append(bytes.Repeat(decoy, maxTries), built()...)); !errors.Is(err, ErrNoTables) {
		t.Errorf("%v, %v", table, err)
	}
}

func FuzzRecover(f *testing.F) {
	f.Add(built())
	f.Add(relative(1<<63, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		var table *Table
		var err error
		testutil.Allocates(t, 1<<20+512*uint64(len(b)), func() { table, err = RecoverAt(b, 1<<63) }) // names are packed
		if (err == nil) != (table != nil) {
			t.Errorf("%v, %v", table, err)
		}
	})
}

// Debian's 6.12 has a mark of the linker where its first thunk begins.
func TestFindPlainest(t *testing.T) {
	table, err := New([]Symbol{
		{Addr: 0x1000, Type: 'T', Name: "__softirqentry_text_end"},
		{Addr: 0x1000, Type: 'T', Name: "__x86_indirect_thunk_rax"},
		{Addr: 0x1000, Type: 'T', Name: "__pi___x86_indirect_thunk_rax"},
		{Addr: 0x1020, Type: 'T', Name: "next"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s, off, ok := table.Find(0x1004); !ok || off != 4 || s.Name != "__x86_indirect_thunk_rax" || s.Size != 0x20 {
		t.Errorf("%+v, %d, %v", s, off, ok)
	}
}
