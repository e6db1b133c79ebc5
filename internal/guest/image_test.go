package guest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

// vmlinux is an ELF file with a segment that holds text, with the note of PVH or without, and
// behind them what is not loaded.
func vmlinux(text string, pvh bool) []byte {
	le := binary.LittleEndian
	b := make([]byte, 64+2*56)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], 62)
	le.PutUint64(b[32:], 64)
	le.PutUint64(b[40:], 1<<20) // sections
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	le.PutUint16(b[60:], 7)
	segment := func(at int, kind uint32, content []byte) {
		le.PutUint32(b[at:], kind)
		le.PutUint64(b[at+8:], uint64(len(b)))
		le.PutUint64(b[at+32:], uint64(len(content)))
		b = append(b, content...)
	}
	segment(64, 1, []byte(text))
	note := []byte{4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0, 'X', 'e', 'n', 0, 1, 2, 3, 4, 5, 6, 7, 8}
	if !pvh {
		note[8] = 17
	}
	segment(64+56, 4, append([]byte{4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 'G', 'N', 'U', 0, 9, 0, 0, 0}, note...))
	return append(b, "debug information"...)
}

const made = "Linux version 6.12.1-made (me@here) (gcc (Debian 12.2.0-14) 12.2.0, GNU ld 2.40) #7 SMP Mon\n\x00"

func TestImage(t *testing.T) {
	t.Parallel()
	with := func(b []byte, at int, bytes ...byte) []byte {
		copy(b[at:], bytes)
		return b
	}
	bz := func() []byte { return testutil.BzImage("6.12.1-made", "packed") }
	for name, test := range map[string]struct {
		b                    []byte
		release, version, is string
	}{
		"bzImage":         {bz(), "6.12.1-made", "#1 SMP made up", ""},
		"vmlinux":         {vmlinux("Linux version %s"+made, true), "6.12.1-made", "#7 SMP Mon", "elf pvh"},
		"linked twice":    {vmlinux("Linux version 6.12.1-made (me@here) (gcc) # SMP \n\x00"+made, true), "6.12.1-made", "#7 SMP Mon", "elf pvh"},
		"not numbered":    {vmlinux("Linux version 6.12.1-made (me@here) (gcc) # SMP \n\x00", true), "6.12.1-made", "# SMP ", "elf pvh"},
		"no PVH":          {vmlinux(made, false), "6.12.1-made", "#7 SMP Mon", "elf"},
		"far in it":       {vmlinux(strings.Repeat("Linux version x", 100_000)+made, true), "6.12.1-made", "#7 SMP Mon", "elf pvh"},
		"empty":           {nil, "", "", "the file is empty"},
		"text":            {[]byte(strings.Repeat("no kernel", 100)), "", "", "neither a bzImage nor a vmlinux"},
		"arm64":           {append(with(make([]byte, 4096), 0x38, 0x41, 0x52, 0x4d, 0x64), made...), "6.12.1-made", "#7 SMP Mon", ""},
		"empty Image":     {with(make([]byte, 4096), 0x38, 0x41, 0x52, 0x4d, 0x64), "", "", "Image of arm64 in which no"},
		"32 bit":          {with(bz(), 0x236, 0), "", "", "CONFIG_64BIT"},
		"old":             {with(bz(), 0x206, 9, 2), "", "", "boot protocol 2.09"},
		"cut":             {bz()[:1025], "", "", "truncated"},
		"no version":      {with(bz(), 0x20e, 0, 0), "", "", "no kernel_version"},
		"version behind":  {with(bz(), 0x20e, 0, 0xff), "", "", "no kernel_version"},
		"path as version": {testutil.BzImage("6.1/../../etc", ""), "", "", "impossible release"},
		"word as version": {testutil.BzImage("linux", ""), "", "", "impossible release"},
		"long version":    {testutil.BzImage("6."+strings.Repeat("1", 70), ""), "", "", "impossible release"},
		"object":          {with(vmlinux(made, true), 16, 1), "", "", "an object file"},
		"other machine":   {with(vmlinux(made, true), 18, 183), "", "", "neither"},
		"program":         {vmlinux("Linux version", true), "", "", `no "Linux version " stands`},
		"segments behind": {with(vmlinux(made, true), 32, 0xff, 0xff, 0xff), "", "", "without segments"},
		"segment behind":  {with(vmlinux(made, true), 64+32, 0xff, 0xff, 0xff), "", "", "truncated"},
		"head only":       {vmlinux(made, true)[:60], "", "", "neither"},
	} {
		i, err := parseImage(t.Context(), bytes.NewReader(test.b), int64(len(test.b)))
		if err != nil {
			if test.release != "" || !strings.Contains(err.Error(), test.is) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, want %q", name, err, test.is)
			}
			continue
		}
		if i.release != test.release || i.version != test.version ||
			i.elf != strings.Contains(test.is, "elf") || i.pvh != strings.Contains(test.is, "pvh") {
			t.Errorf("%s: %+v, want %q %q %q", name, i, test.release, test.version, test.is)
		}
	}
}

// Of a bzImage the vmlinux in it is copied where QEMU can boot that, and the bzImage where it cannot or nothing can be unpacked.
func TestCopyPacked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		payload       string
		unpacked, elf bool
	}{
		"PVH":           {zipped(t, vmlinux(made, true)), true, true},
		"no PVH":        {zipped(t, vmlinux(made, false)), true, false},
		"no ELF":        {zipped(t, []byte("no kernel")), true, false},
		"not packed":    {"no kernel", true, false},
		"not asked for": {zipped(t, vmlinux(made, true)), false, false},
	} {
		path := filepath.Join(t.TempDir(), "bzImage")
		b := testutil.BzImage("6.12.1-made", test.payload)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		to, err := nameless()
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if err := copyImage(t.Context(), to, path, test.unpacked); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(io.NewSectionReader(to, 0, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		if elf := bytes.HasPrefix(got, []byte("\x7fELF")); elf != test.elf || !elf && !bytes.Equal(got, b) {
			t.Errorf("%s: ELF %v of %d bytes, want %v", name, elf, len(got), test.elf)
		}
	}
	// What cannot be unpacked is no error, which the end of the run is.
	none := filepath.Join(t.TempDir(), "none")
	if done, err := copyPacked(t.Context(), nil, none); done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := copyPacked(stopped, nil, none); !errors.Is(err, context.Canceled) {
		t.Errorf("a run that was stopped: %v", err)
	}
}

// zipped is b as a kernel is packed in a bzImage: by gzip, with its length behind.
func zipped(t *testing.T, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return string(binary.LittleEndian.AppendUint32(out.Bytes(), uint32(len(b))))
}

// Of a vmlinux the segments are copied, and what is left names no section.
func TestCopyImage(t *testing.T) {
	t.Parallel()
	b := vmlinux(made, true)
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	to, err := nameless()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := copyImage(t.Context(), to, path, false); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(to, 0, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := bytes.CutSuffix(b, []byte("debug information"))
	clear(want[40:48])
	clear(want[60:64])
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	for _, hostile := range []func(string) error{
		func(path string) error { return os.Symlink("/dev/zero", path) },
		func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := hostile(path); err != nil {
			t.Fatal(err)
		}
		if err := copyImage(t.Context(), to, path, false); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Error(err)
		}
	}
	// One that is as large as a disk, with nothing in it.
	sparse := filepath.Join(t.TempDir(), "x")
	if err := errors.Join(os.WriteFile(sparse, testutil.BzImage("1", ""), 0o600), os.Truncate(sparse, 1<<30)); err != nil {
		t.Fatal(err)
	}
	if err := copyImage(t.Context(), to, sparse, false); err == nil || !strings.Contains(err.Error(), "more than 512 MiB") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyImage(ctx, to, path, false); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A copy of an image, of up to 512 MiB, hears the end of a run.
func TestCopyStopped(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"bzImage": testutil.BzImage("1", ""), "vmlinux": vmlinux(made+strings.Repeat("x", 8<<20), true),
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := errors.Join(os.WriteFile(path, b, 0o600), os.Truncate(path, 16<<20)); err != nil {
			t.Fatal(err)
		}
		to, err := nameless()
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		err = copyImage(&fading{t.Context(), 3}, to, path, false)
		if size, _ := to.Seek(0, io.SeekEnd); !errors.Is(err, context.Canceled) || size > 4<<20 {
			t.Errorf("%s: %d bytes, %v", name, size, err)
		}
	}
}

// FuzzImage feeds parseImage what is no kernel: it takes a constant amount of memory, and a release
// is one.
func FuzzImage(f *testing.F) {
	f.Add(testutil.BzImage("6.12.1-made", "packed"))
	f.Add(vmlinux(made, true))
	f.Add(vmlinux(made, false)[:120])
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		testutil.Allocates(t, 4<<20+uint64(2*len(b)), func() {
			i, err := parseImage(t.Context(), bytes.NewReader(b), int64(len(b)))
			if err == nil && (!isRelease(i.release) || i.size > int64(len(b)) || filepath.Base(i.release) != i.release) {
				t.Errorf("%+v", i)
			}
		})
	})
}
