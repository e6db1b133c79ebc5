package unpack

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/unthunk/unthunk/internal/testutil"
)

// format is a way to pack.
type format struct {
	name  string
	magic string
	pack  func(io.Writer) (io.WriteCloser, error)
}

var formats = []format{
	{"gzip", "\x1f\x8b", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }},
	{"xz", "\xfd7zXZ\x00", func(w io.Writer) (io.WriteCloser, error) {
		return xz.WriterConfig{DictCap: 1 << 16}.NewWriter(w)
	}},
	// The first byte is the properties, the next four the size of the dictionary.
	{"lzma", "\x5d\x00\x00", func(w io.Writer) (io.WriteCloser, error) {
		return lzma.WriterConfig{DictCap: 1 << 16, EOSMarker: true}.NewWriter(w)
	}},
	{"zstd", "\x28\xb5\x2f\xfd", func(w io.Writer) (io.WriteCloser, error) {
		return zstd.NewWriter(w, zstd.WithWindowSize(1<<16))
	}},
	// The kernel's build writes the legacy format.
	{"lz4", "\x02\x21\x4c\x18", func(w io.Writer) (io.WriteCloser, error) {
		z := lz4.NewWriter(w)
		return z, z.Apply(lz4.LegacyOption(true))
	}},
}

func (f format) packed(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := f.pack(&out)
	if err == nil {
		_, err = z.Write(b)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatalf("%s: %v", f.name, err)
	}
	if !strings.HasPrefix(out.String(), f.magic) {
		t.Fatalf("%s begins with %x", f.name, out.Bytes()[:8])
	}
	return out.Bytes()
}

// elfOf is n bytes that begin as an ELF file does and are not all alike.
func elfOf(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := []byte("\x7fELF")
	for len(b) < n {
		b = append(b, byte(rng.IntN(4)))
	}
	return b
}

// bzImage is an image of the boot protocol 2.08 with a payload.
func bzImage(payload []byte) []byte {
	b := make([]byte, 5*512, 5*512+len(payload))
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x208)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(b, payload...)
}

// imageOf is n bytes that begin as an Image of arm64 does and are not all alike.
func imageOf(n int) []byte {
	b := elfOf(n)
	copy(b, "MZ\x40\xfa")
	copy(b[0x38:], "ARM\x64")
	return b
}

// zboot is a program of EFI with a payload, and behind that its size unless it is of gzip.
func zboot(payload []byte, size int) []byte {
	b := make([]byte, 4096, 4096+len(payload)+100)
	copy(b, "MZ\x00\x00zimg")
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[12:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[0x38:], 0x818223cd)
	b = append(b, payload...)
	if !bytes.HasPrefix(payload, gzipMagic) {
		b = binary.LittleEndian.AppendUint32(b, uint32(size))
	}
	return append(b, make([]byte, 60)...) // the code that unpacks it
}

// sized is what the kernel's build makes of packed data: the size it unpacks to
// follows.
func sized(packed []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(slices.Clone(packed), uint32(size))
}

func TestFormats(t *testing.T) {
	t.Parallel()
	want := elfOf(100_000)
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			packed := f.packed(t, want)
			for name, b := range map[string][]byte{
				"alone":           packed,
				"with its size":   sized(packed, len(want)),
				"bzImage":         bzImage(packed),
				"bzImage, a size": bzImage(sized(packed, len(want))),
			} {
				got, err := Code(t.Context(), b)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, want %d: %v", name, len(got), len(want), err)
				}
			}
			for _, n := range []int{len(f.magic), len(packed) / 2} {
				if got, err := Code(t.Context(), packed[:n]); err == nil {
					t.Errorf("cut to %d of %d bytes: %d bytes, no error", n, len(packed), len(got))
				}
			}
			if _, err := Code(t.Context(), f.packed(t, []byte("text"))); err == nil || !strings.Contains(err.Error(), "no ELF") {
				t.Errorf("packed text: %v", err)
			}
			if _, err := Code(t.Context(), f.packed(t, packed)); err == nil || !strings.Contains(err.Error(), "no ELF") {
				t.Errorf("packed twice: %v", err)
			}
		})
	}
	if got, err := Code(t.Context(), want); err != nil || !bytes.Equal(got, want) {
		t.Errorf("plain: %d bytes, want %d: %v", len(got), len(want), err)
	}
}

// An Image of arm64, as it is, packed, and packed in a program of EFI.
func TestImagesARM64(t *testing.T) {
	t.Parallel()
	const limit = 1 << 18
	want := imageOf(100_000)
	check := func(name string, b []byte) {
		t.Helper()
		if got, err := CodeWithin(t.Context(), b, limit); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d: %v", name, len(got), len(want), err)
		}
	}
	check("plain", want)
	for _, f := range formats {
		packed := f.packed(t, want)
		check(f.name, packed)
		check(f.name+" in a program", zboot(packed, len(want)))
		bomb := f.packed(t, append(slices.Clone(want), make([]byte, limit)...))
		for _, size := range []int{0, len(want), limit + len(want)} {
			if got, err := CodeWithin(t.Context(), zboot(bomb, size), limit); !errors.Is(err, tooLarge(limit)) || got != nil {
				t.Errorf("%s, a bomb with a size of %d: %d bytes, %v", f.name, size, len(got), err)
			}
		}
		if got, err := CodeWithin(t.Context(), zboot(packed[:len(packed)/2], len(want)), limit); err == nil {
			t.Errorf("%s, half of it: %d bytes, no error", f.name, len(got))
		}
		if got, err := CodeWithin(t.Context(), zboot(f.packed(t, elfOf(200)[4:]), 196), limit); err == nil {
			t.Errorf("%s, no kernel in it: %d bytes, no error", f.name, len(got))
		}
	}
	if got, err := CodeWithin(t.Context(), want[:imageHeader-1], limit); err == nil {
		t.Errorf("a part of a header: %d bytes, no error", len(got))
	}
}

// A small file that unpacks to more than the limit is refused, whatever size it claims.
func TestLimit(t *testing.T) {
	t.Parallel()
	const limit = 1 << 18
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			fits := append([]byte("\x7fELF"), make([]byte, limit-4)...)
			if got, err := CodeWithin(t.Context(), f.packed(t, fits), limit); err != nil || len(got) != limit {
				t.Errorf("%d bytes, want %d: %v", len(got), limit, err)
			}
			bomb := f.packed(t, append(fits, make([]byte, 7*limit)...))
			for _, size := range []int{0, 4, limit, 1<<32 - 1} {
				got, err := CodeWithin(t.Context(), sized(bomb, size), limit)
				if err == nil || got != nil {
					t.Errorf("a size of %d: %d bytes: %v", size, len(got), err)
				}
			}
			if _, err := CodeWithin(t.Context(), bomb, limit); !errors.Is(err, tooLarge(limit)) {
				t.Errorf("%v, want %v", err, tooLarge(limit))
			}
		})
	}
}

// The limit of Code is MaxPacked: a frame of zstd says in its header what it unpacks to
// (RFC 8878, section 3.1.1.1).
func TestMax(t *testing.T) {
	t.Parallel()
	b := binary.LittleEndian.AppendUint32([]byte("\x28\xb5\x2f\xfd\xa0"), MaxPacked+1)
	b = append(b, 1, 0, 0) // a last block, of nothing
	if _, err := Code(t.Context(), b); err == nil || err.Error() != "more than 192 MiB" {
		t.Error(err)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	old := bzImage(nil)
	binary.LittleEndian.PutUint16(old[0x206:], 0x207)
	behind := bzImage(elfOf(100))
	binary.LittleEndian.PutUint32(behind[0x24c:], 101)
	far := bzImage(elfOf(100))
	binary.LittleEndian.PutUint32(far[0x248:], 1<<32-1)
	for want, b := range map[string][]byte{
		"the file is empty":      nil,
		"no kernel, no module":   []byte("text"),
		"boot protocol 0x207":    old,
		"truncated: the kernel":  behind,
		"truncated":              far,
		"truncated: the kernel ": bzImage(nil),
		"program of EFI":         zboot(elfOf(1000), 1000)[:4096+100],
		"program of EFI ends":    zboot(nil, 0),
	} {
		if got, err := Code(t.Context(), b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v, want %q", len(got), err, want)
		}
	}
}

func FuzzGzip(f *testing.F)    { fuzz(f, formats[0]) }
func FuzzXz(f *testing.F)      { fuzz(f, formats[1]) }
func FuzzLzma(f *testing.F)    { fuzz(f, formats[2]) }
func FuzzZstd(f *testing.F)    { fuzz(f, formats[3]) }
func FuzzLz4(f *testing.F)     { fuzz(f, formats[4]) }
func FuzzBzImage(f *testing.F) { fuzz(f, format{name: "bzImage"}) }

// fuzz unpacks what begins with a format's magic: nothing panics, what comes out is an ELF
// file or an Image within the limit, and the memory that it takes is bounded by the limit too, however
// much is packed in it.
func fuzz(f *testing.F, kind format) {
	const limit = 1 << 16
	for _, seed := range formats {
		bomb := seed.packed(f, append(elfOf(300), make([]byte, 1<<20)...))
		if kind.name == "bzImage" {
			f.Add(bzImage(seed.packed(f, elfOf(300))))
			f.Add(bzImage(bomb))
			f.Add(zboot(seed.packed(f, imageOf(300)), 300))
			f.Add(zboot(bomb, 300))
		} else if kind.name == seed.name {
			packed := seed.packed(f, elfOf(300))[len(kind.magic):]
			f.Add(packed)
			f.Add(sized(packed, 300))
			f.Add(bomb[len(kind.magic):])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append([]byte(kind.magic), b...)
		testutil.Allocates(t, unpackBudget, func() {
			got, err := CodeWithin(t.Context(), b, limit)
			switch {
			case err != nil && got != nil:
				t.Errorf("%d bytes and %v", len(got), err)
			case err == nil && !bytes.HasPrefix(got, []byte("\x7fELF")) && !IsImageARM64(got):
				t.Errorf("begins with %x", got[:min(len(got), 8)])
			case len(got) > limit:
				t.Errorf("%d bytes, the limit is %d", len(got), limit)
			}
		})
	})
}

// unpackBudget is the memory that unpacking up to 64 KiB takes: a block of lz4 has 8 MiB.
const unpackBudget = 10 << 20

// asking are archives that ask for a history of so many bytes, a power of two: zstd in blocks of 128 KiB of one byte
// each, and lzma.
func asking(t testing.TB, history int) [][]byte {
	window := byte(bits.Len(uint(history))-11) << 3
	lzma := formats[2].packed(t, make([]byte, 1<<20))
	binary.LittleEndian.PutUint32(lzma[1:], uint32(history))
	blocks := bytes.Repeat([]byte("\x02\x00\x10x"), 40)
	return [][]byte{append([]byte("\x28\xb5\x2f\xfd\x00"+string([]byte{window})), blocks...), lzma}
}

// A reader takes its history, half as much while that grows, and what the format takes: at most 100 MiB. One that asks
// for more history is refused.
func TestReaderHistory(t *testing.T) {
	for i, archive := range asking(t, maxDictionary) {
		testutil.Allocates(t, 100<<20, func() {
			r, err := NewReader(t.Context(), bytes.NewReader(archive))
			if err != nil {
				t.Fatalf("archive %d: %v", i, err)
			}
			defer r.Close()
			if n, err := io.Copy(io.Discard, r); n < 1<<20 || err != nil && i > 0 { // zstd has no last block
				t.Errorf("archive %d: %d bytes, %v", i, n, err)
			}
		})
	}
	for i, archive := range asking(t, 2*maxDictionary) {
		testutil.Allocates(t, 100<<20, func() {
			r, err := NewReader(t.Context(), bytes.NewReader(archive))
			if err == nil {
				defer r.Close()
				_, err = io.Copy(io.Discard, r)
			}
			if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("archive %d with a history of 128 MiB: %v", i, err)
			}
		})
	}
}

// FuzzReader reads the beginning of what archives unpack to, with a history that takes little time to make.
func FuzzReader(f *testing.F) {
	const history, budget = 1 << 20, 10 << 20
	for _, seed := range formats {
		f.Add(seed.packed(f, elfOf(300)))
		f.Add(seed.packed(f, make([]byte, 1<<20)))
	}
	for _, archive := range slices.Concat(asking(f, history), asking(f, 2*history)) {
		f.Add(archive)
	}
	// "text", by bzip2.
	f.Add([]byte("BZh91AY&SY\xcb(\xd3-\x00\x00\x00\x81\x80\x02\x00\x04@ \x00!\x98\x19\x83,.\xe4\x8ap\xa1!\x96Q\xa6Z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		testutil.Allocates(t, budget, func() {
			r, err := newReader(t.Context(), bytes.NewReader(b), history)
			if err != nil {
				return
			}
			defer r.Close()
			_, _ = io.CopyN(io.Discard, r, 4<<20)
		})
	})
}
