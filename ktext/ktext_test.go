package ktext

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
)

func TestBytes(t *testing.T) {
	src := Bytes{Addr: 0xfffffffffffffff0, Code: []byte("0123456789abcdef")}
	for _, tt := range []struct {
		addr uint64
		n    int
		want string
	}{
		{0xfffffffffffffff0, 16, "0123456789abcdef"},
		{0xfffffffffffffff4, 2, "45"},
		{0xffffffffffffffff, 1, "f"},
		{0xffffffffffffffff, 2, ""},
		{0xffffffffffffffef, 1, ""},
		{0, 1, ""},
		{0xfffffffffffffff0, 17, ""},
	} {
		p := make([]byte, tt.n)
		err := src.ReadAddr(p, tt.addr)
		if (err == nil) != (tt.want != "") || err == nil && string(p) != tt.want {
			t.Errorf("%d at %#x: %q %v", tt.n, tt.addr, p, err)
		}
	}
}

func open(t testing.TB) *Live {
	t.Helper()
	testutil.Root(t)
	l, err := OpenLive()
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestLive(t *testing.T) {
	l := open(t)
	table, err := ksym.Live()
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	banner, ok := table.Lookup("linux_banner")
	if !ok {
		testutil.Missing(t, "CONFIG_KALLSYMS_ALL")
	}
	p := make([]byte, 14)
	if err := l.ReadAddr(p, banner.Addr); err != nil || string(p) != "Linux version " {
		t.Errorf("banner %q %v", p, err)
	}

	// More than one window, and the same bytes in small pieces.
	text, ok := table.Lookup("_stext")
	if !ok {
		t.Fatal("no _stext")
	}
	whole := make([]byte, 2*window+100)
	if err := l.ReadAddr(whole, text.Addr); err != nil {
		t.Fatal(err)
	}
	for off := window - 50; off < window+50; off += 7 {
		p := make([]byte, 7)
		if err := l.ReadAddr(p, text.Addr+uint64(off)); err != nil || !bytes.Equal(p, whole[off:off+7]) {
			t.Errorf("at %d: % x, want % x: %v", off, p, whole[off:off+7], err)
		}
	}
	if err := l.ReadAddr(nil, text.Addr); err != nil {
		t.Error(err)
	}
}

func TestLiveFaults(t *testing.T) {
	l := open(t)
	// Address 0, user space, a non-canonical hole, the last page.
	for _, addr := range []uint64{0, 0x400000, 0x0000800000000000, 0xdead000000000000} {
		if err := l.ReadAddr(make([]byte, 8), addr); !errors.Is(err, syscall.EFAULT) && !errors.Is(err, syscall.ERANGE) {
			t.Errorf("%#x: %v", addr, err)
		}
	}
}

func TestClosed(t *testing.T) {
	l := open(t)
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := l.ReadAddr(make([]byte, 1), 0); err == nil {
		t.Error("read after close")
	}
}

func TestMissing(t *testing.T) {
	for _, err := range []error{syscall.EPERM, syscall.EACCES, syscall.EINVAL} {
		if feature.AsMissing(missing("load program", err)) == nil {
			t.Errorf("%v is not missing", err)
		}
	}
	if err := missing("load program", syscall.ENOMEM); feature.AsMissing(err) != nil || !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("ENOMEM: %v", err)
	}
}

func BenchmarkLive(b *testing.B) {
	l := open(b)
	table, err := ksym.Live()
	if err != nil {
		b.Fatal(err)
	}
	text, ok := table.Lookup("_stext")
	if !ok {
		b.Fatal("no _stext")
	}
	p := make([]byte, window)
	b.SetBytes(window)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.ReadAddr(p, text.Addr); err != nil {
			b.Fatal(err)
		}
	}
}
