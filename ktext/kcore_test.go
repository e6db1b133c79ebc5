package ktext

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
)

// A core file of one segment.
func TestKcoreFile(t *testing.T) {
	le := binary.LittleEndian
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 4) // ET_CORE
	le.PutUint16(b[18:], 62)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], 64) // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	const addr = 0xffffffff81000000
	ph := b[64:]
	le.PutUint32(ph, 1) // PT_LOAD
	le.PutUint64(ph[8:], uint64(len(b)))
	le.PutUint64(ph[16:], addr)
	le.PutUint64(ph[32:], 4)
	le.PutUint64(ph[40:], 4)
	file := filepath.Join(t.TempDir(), "kcore")
	if err := os.WriteFile(file, append(b, "code"...), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := openKcore(file)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	got := make([]byte, 2)
	if err := k.ReadAddr(got, addr+2); err != nil || string(got) != "de" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []uint64{addr - 1, addr + 3, addr + 4, 0, ^uint64(0)} {
		if k.ReadAddr(got, bad) == nil {
			t.Errorf("read %#x", bad)
		}
	}
	if _, err := openKcore(file + "x"); feature.AsMissing(err) == nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openKcore(file); err == nil {
		t.Error("opened a text")
	}
}

// The same bytes as BPF reads.
func TestKcore(t *testing.T) {
	testutil.Root(t)
	k, err := OpenKcore()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer k.Close()
	live, err := OpenLive()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer live.Close()
	table, err := ksym.Live()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	s, _ := table.Lookup("xdp_do_redirect")
	a, b := make([]byte, 256), make([]byte, 256)
	if err := k.ReadAddr(a, s.Addr); err != nil {
		t.Fatal(err)
	}
	if err := live.ReadAddr(b, s.Addr); err != nil || !bytes.Equal(a, b) {
		t.Errorf("%v: /proc/kcore and BPF differ", err)
	}
}

// FuzzKcore reads from a file that no kernel made: what is read is in the file.
func FuzzKcore(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"), uint64(0xffffffff81000000))
	// As TestOpenKcore's, with a segment of four bytes at address 64.
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20], b[32], b[52], b[54], b[56] = 4, 62, 1, 64, 64, 56, 1
	b[64], b[72], b[80], b[96] = 1, byte(len(b)), 64, 4
	f.Add(append(b, "code"...), uint64(66))
	// One for all, in memory: a folder for each, or a disk, takes longer than all else.
	fd, err := unix.MemfdCreate("kcore", unix.MFD_CLOEXEC)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { unix.Close(fd) })
	file := fmt.Sprintf("/proc/self/fd/%d", fd)
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var k *Kcore
		var err error
		testutil.Allocates(t, 20<<20+64*uint64(len(data)), func() { k, err = openKcore(file) }) // debug/elf reads 10 MiB at once
		if err != nil {
			return
		}
		defer k.Close()
		got := make([]byte, 2)
		if k.ReadAddr(got, addr) == nil && !bytes.Contains(data, got) {
			t.Errorf("read %x at %#x, which the file does not have", got, addr)
		}
	})
}
