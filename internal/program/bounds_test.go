package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/testutil"
)

// asked is a context that ends when it was asked so often whether it has ended.
type asked struct {
	context.Context
	left atomic.Int64
}

func endsAfter(t *testing.T, asks int64) *asked {
	a := &asked{Context: t.Context()}
	a.left.Store(asks)
	return a
}

func (a *asked) Err() error {
	if a.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// newMap makes a map for a test.
func newMap(t *testing.T, spec *ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(spec)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// A table is read until its context ends, also where no entry is in it.
func TestEachEnds(t *testing.T) {
	testutil.Root(t)
	const n = 1000
	for _, spec := range []*ebpf.MapSpec{
		{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: n}, {Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: n},
	} {
		m := newMap(t, spec)
		read := 0
		count := func(_, _ []byte) error { read++; return nil }
		if err := each(endsAfter(t, 10), m, count); !errors.Is(err, context.Canceled) || read > 10 {
			t.Errorf("%v: %d entries, %v", spec, read, err)
		}
		read = 0
		if err := each(t.Context(), m, count); err != nil || read != n && spec.Type == ebpf.Array {
			t.Errorf("%v: %d entries, %v", spec, read, err)
		}
	}
}

// dumpOf is a file of a dump with the same entry n times.
func dumpOf(t *testing.T, n int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "dump.json")
	entry := `{"key":[0,0,0,0],"value":[1,0,0,0]}`
	text := "[" + strings.Repeat(entry+",", n-1) + entry + "]"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// variablesSpec is an object with four bytes of variables.
func variablesSpec() *ebpf.CollectionSpec {
	return &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{".bss": {
		Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1, Contents: []ebpf.MapKV{{Key: uint32(0), Value: make([]byte, 4)}},
	}}}
}

// Variables are filled from a file until the context ends.
func TestFillsEnd(t *testing.T) {
	t.Parallel()
	files := map[string]string{".bss": dumpOf(t, 1000)}
	if open, err := openFills(endsAfter(t, 10), variablesSpec(), files); !errors.Is(err, context.Canceled) {
		open.Close()
		t.Errorf("a context that ends: %v", err)
	}
	spec := variablesSpec()
	if _, err := openFills(t.Context(), spec, files); err != nil || contents(spec.Maps[".bss"])[0] != 1 {
		t.Errorf("%v, %v", contents(spec.Maps[".bss"]), err)
	}
}

// Pack ends with its context, before it begins and when it has begun.
func TestPackEnds(t *testing.T) {
	t.Parallel()
	object, err := os.ReadFile(compile(t))
	if err != nil {
		t.Fatal(err)
	}
	target, err := Parse(compile(t) + ":balance")
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, pack := range map[string]func(context.Context, Options) (*Packed, error){
		"file":  func(ctx context.Context, o Options) (*Packed, error) { return Pack(ctx, target, o) },
		"bytes": func(ctx context.Context, o Options) (*Packed, error) { return PackObject(ctx, object, "balance", o) },
	} {
		if p, err := pack(ended, Options{}); !errors.Is(err, context.Canceled) || p != nil {
			t.Errorf("%s, before it begins: %v, %v", name, p, err)
		}
		filled := Options{Maps: map[string]string{".bss": dumpOf(t, 1)}}
		if p, err := pack(endsAfter(t, 1), filled); !errors.Is(err, context.Canceled) || p != nil { // it has asked once
			t.Errorf("%s, when it has begun: %v, %v", name, p, err)
		}
		if p, err := pack(t.Context(), Options{}); err != nil || p.Name != "balance" {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

// A value that no call reads or writes is refused before there is room for it.
func TestLargeValues(t *testing.T) {
	testutil.Root(t)
	const size = maxBatch + 8
	const want = "its values have 64 MiB each: at most 64 are copied"
	spec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1}
	m := newMap(t, spec)
	object := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{"outer": spec}}
	source := &liveMap{m: m, info: &ebpf.MapInfo{Type: ebpf.Array, ValueSize: size}, name: "outer"}
	nothing := func(_, _ []byte) error { return nil }
	for name, read := range map[string]func() error{
		"openFills": func() error {
			_, err := openFills(t.Context(), object, map[string]string{"outer": dumpOf(t, 1)})
			if _, ok := errors.AsType[*OptionError](err); !ok {
				return fmt.Errorf("%w is no OptionError", err)
			}
			return err
		},
		"copyEntries": func() error { _, err := copyEntries(t.Context(), m, m, newGrowing(m, new(uint64))); return err },
		"each":        func() error { return each(t.Context(), m, nothing) },
		"dump": func() error {
			room := MaxPacked
			_, _, err := (&Packed{Dumps: map[string][]byte{}}).dump(t.Context(), "outer", m, &room)
			return err
		},
		"copyVariables": func() error { return errors.New((&Opened{}).copyVariables("outer", spec, source).Why) },
	} {
		testutil.Allocates(t, 1<<20, func() {
			if err := read(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		})
	}
}

// What is written for a guest has hardly more bytes than there is room for, however large a value is.
func TestDumperRoom(t *testing.T) {
	t.Parallel()
	const room = 1000
	value := make([]byte, 16<<20)
	testutil.Allocates(t, 1<<20, func() {
		d := dumper{room: room}
		d.entry([]byte{0, 0, 0, 0}, value, false)
		if err := d.within(); !errors.Is(err, errTooMuch) || len(d.b) > 2*room {
			t.Errorf("%d bytes, %v", len(d.b), err)
		}
	})
	d := dumper{room: room}
	d.entry([]byte{0, 0, 0, 0}, make([]byte, 8), false)
	if err := d.within(); err != nil {
		t.Error(err)
	}
}
