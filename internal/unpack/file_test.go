package unpack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, name string, b []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFile(t *testing.T) {
	t.Parallel()
	want := elfOf(3 << 20)
	for name, b := range map[string][]byte{"plain": want, "gzip": formats[0].packed(t, want), "bzImage": bzImage(formats[3].packed(t, want))} {
		got, err := File(t.Context(), write(t, name, b))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d: %v", name, len(got), len(want), err)
		}
	}
	for want, b := range map[string][]byte{"the file is empty": nil, "no kernel, no module": []byte("te")} {
		if _, err := File(t.Context(), write(t, "x", b)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", b, err, want)
		}
	}
}

// What is not a regular file is refused at once: reading /dev/zero has no end, and opening
// a pipe waits for who writes.
func TestNotRegular(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe, zero := filepath.Join(dir, "pipe"), filepath.Join(dir, "zero")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Symlink("/dev/zero", zero)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, zero, dir} {
		if _, err := File(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := Reserve(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("reserve for %s: %v", path, err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(write(t, "x", []byte("text")), link); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(link, 10); string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := ReadFileNoFollow(link, 10); err == nil || !strings.Contains(err.Error(), "it is a symbolic link") {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := ReadFile(write(t, "x", make([]byte, 11)), 10); err == nil || !strings.Contains(err.Error(), "more than 10 bytes") {
		t.Error(err)
	}
}

// A sparse file as large as a kernel with debug information is one; a packed one is not.
func TestSparse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		magic string
		size  int64
		want  string
	}{
		{elfMagic, Max + 1, "more than 512 MiB"},
		{string(gzipMagic), MaxPacked + 1, "more than 192 MiB"},
	} {
		path := write(t, "x", []byte(test.magic))
		if err := os.Truncate(path, test.size); err != nil {
			t.Fatal(err)
		}
		if _, err := File(t.Context(), path); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.magic, err, test.want)
		}
	}
}

// What a file of each format says of its size is what it unpacks to.
func TestSaid(t *testing.T) {
	t.Parallel()
	const size = 100_000
	for _, f := range formats {
		packed := f.packed(t, elfOf(size))
		want := uint64(0) // the writers of tests do not know the size before
		if f.name == "gzip" || f.name == "xz" {
			want = size
		}
		if got := said(packed, packed); got != want {
			t.Errorf("%s says %d, want %d", f.name, got, want)
		}
		if room, most := sizes(packed, packed, len(packed), MaxPacked); most != maxUnsaid || want != 0 && room != size {
			t.Errorf("%s: room for %d, at most %d", f.name, room, most)
		}
	}
	xz := formats[1].packed(t, elfOf(size))
	for n := range xz {
		saidByXz(xz[:n])
		saidByXz(xz[n:])
	}
	// The size that the kernel's build appends.
	lz4 := sized(formats[4].packed(t, elfOf(size)), size)
	if room, _ := sizes(lz4, lz4, len(lz4), MaxPacked); room != size {
		t.Errorf("room for %d, want %d", room, size)
	}
	// The header of lzma has the size, too.
	lzma := append([]byte{0x5d, 0, 0, 1, 0}, binary.LittleEndian.AppendUint64(nil, size)...)
	if got := said(lzma, lzma); got != size {
		t.Errorf("lzma says %d", got)
	}
}

// bomb is a file of some format that unpacks to size bytes, nearly all zero.
func bomb(t testing.TB, f format, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := f.pack(&out)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, piece)
	copy(zeros, elfMagic)
	for n := 0; n < size; n += len(zeros) {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
		clear(zeros[:4])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A bomb of each format is refused before it takes more than five times what it may unpack
// to: buffers that grow by a part take three to four times the last one, one after the
// other, and a decoder has a window.
func TestBombs(t *testing.T) {
	const most = 5 * maxUnsaid
	for _, f := range formats {
		b := bomb(t, f, maxUnsaid+piece)
		switch f.name {
		case "gzip": // with a size that is not true
			b = binary.LittleEndian.AppendUint32(b[:len(b)-4], 1000)
		case "xz": // without its index
			b = b[:len(b)-12]
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := Code(t.Context(), b)
		runtime.ReadMemStats(&after)
		if _, ok := errors.AsType[tooLarge](err); !ok {
			t.Errorf("%s: %d bytes, %v", f.name, len(got), err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > most {
			t.Errorf("%s: %d bytes allocated, want at most %d", f.name, n, most)
		}
	}
}

// Unpacking ends with its context.
func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, f := range formats {
		path := write(t, f.name, f.packed(t, elfOf(100_000)))
		if _, err := File(ctx, path); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", f.name, err)
		}
	}
	if _, err := File(ctx, write(t, "plain", elfOf(100))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Files that need all the memory are read one after the other, small ones beside them.
func TestReserve(t *testing.T) {
	large, small := write(t, "large", []byte(elfMagic)), write(t, "small", []byte(elfMagic))
	if err := os.Truncate(large, 300<<20); err != nil {
		t.Fatal(err)
	}
	release, err := Reserve(t.Context(), small)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Reserve(ctx, large); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beside a small one: %v", err)
	}
	release()
	release() // once more is nothing
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			release, err := Reserve(t.Context(), large)
			if err != nil {
				t.Error(err)
				return
			}
			release()
		})
	}
	group.Wait()
}

// need is more for what may unpack to more.
func TestNeed(t *testing.T) {
	t.Parallel()
	packed, lz4 := formats[1].packed(t, elfOf(1<<20)), formats[4].packed(t, elfOf(1000))
	for name, test := range map[string]struct {
		b    []byte
		want int64
	}{
		"plain":   {elfOf(1000), 4000},
		"said":    {packed, int64(len(packed)) + 4<<20},
		"unsaid":  {lz4, maxAtOnce},
		"a bomb":  {binary.LittleEndian.AppendUint32([]byte{0x1f, 0x8b, 8, 0}, 1<<31), maxAtOnce},
		"no file": {nil, 4 * maxUnsaid},
	} {
		if got, err := need(write(t, "x", test.b)); err != nil || got != test.want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, test.want)
		}
	}
}

// What was large goes back to the system when it is released; of files that only might have
// been large nothing is collected.
func TestRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "empty.ko")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	forced := func() uint32 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.NumForcedGC
	}
	hold := func() {
		release, err := Reserve(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	runtime.GC()
	before := forced()
	for range 20 {
		hold()
	}
	if n := forced() - before; n != 0 {
		t.Errorf("the heap was collected %d times for 20 files without content", n)
	}
	large := make([]byte, maxAtOnce/2+1<<20)
	large[0] = 1
	hold()
	if n := forced() - before; n != 1 {
		t.Errorf("the heap was collected %d times with %d MiB in use", n, len(large)>>20)
	}
}
