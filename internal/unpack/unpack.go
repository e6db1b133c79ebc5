// Package unpack reads kernels and modules that are packed.
package unpack

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
	"github.com/ulikunitz/xz/lzma"
)

// Limits on files, in bytes.
const (
	// Max is the largest file that is read.
	Max = 512 << 20
	// MaxPacked is the largest file that is unpacked, and the largest that one unpacks to.
	// Kernels of distributions have 50 to 90 MB; what is read of one takes twice as much.
	MaxPacked = 192 << 20
	// maxUnsaid is what a file may unpack to that does not say how much that is.
	maxUnsaid = 64 << 20
	// maxDictionary is the largest history that a packed file may ask for: xz's own
	// limit for its highest preset.
	maxDictionary = 64 << 20
	// piece is what is unpacked before the context is looked at. It takes 1 to 20 ms.
	piece = 1 << 20
)

// tooLarge is the error of a file that is, or unpacks to, more than that many bytes.
type tooLarge int

func (limit tooLarge) Error() string {
	if limit < 1<<20 {
		return fmt.Sprintf("more than %d bytes", int(limit))
	}
	return fmt.Sprintf("more than %d MiB", int(limit>>20))
}

var (
	errNoCode = errors.New("what is packed in it is no ELF file, and no Image of arm64")
	errFormat = errors.New("no kernel, no module, and not packed in a way that is known")
)

const elfMagic = "\x7fELF"

// imageHeader is the length of the header of an Image of arm64, in bytes.
const imageHeader = 64

// IsImageARM64 tells an Image of arm64 by its header: the kernel as it is in memory, not packed and without sections
// (Documentation/arch/arm64/booting.rst).
func IsImageARM64(b []byte) bool { return len(b) >= imageHeader && string(b[0x38:0x3c]) == "ARM\x64" }

// isCode tells what [Code] returns.
func isCode(b []byte) bool { return bytes.HasPrefix(b, []byte(elfMagic)) || IsImageARM64(b) }

// Code returns the ELF file or the Image of arm64 in b, which may be packed, the payload of a bzImage or that of a program
// of EFI that unpacks itself (CONFIG_EFI_ZBOOT). When ctx ends it returns the error of ctx.
func Code(ctx context.Context, b []byte) ([]byte, error) { return CodeWithin(ctx, b, MaxPacked) }

// CodeWithin is [Code] where neither a packed file nor what it unpacks to may be larger than
// limit bytes.
func CodeWithin(ctx context.Context, b []byte, limit int) ([]byte, error) {
	switch {
	case len(b) == 0:
		return nil, errors.New("the file is empty")
	case isCode(b):
		return b, nil
	case len(b) > limit:
		return nil, tooLarge(limit)
	}
	payload, err := payload(b)
	if err != nil {
		return nil, err
	}
	if b, err = decompress(ctx, payload, limit); err != nil {
		return nil, err
	}
	if !isCode(b) {
		return nil, errNoCode
	}
	return b, nil
}

// payload is the packed kernel in a bzImage (Documentation/arch/x86/boot.rst) or in a program of EFI, or b when
// that is neither.
func payload(b []byte) ([]byte, error) {
	if len(b) >= imageHeader && string(b[:2]) == "MZ" && string(b[4:8]) == "zimg" {
		return zbootPayload(b)
	}
	if len(b) <= 0x250 || string(b[0x202:0x206]) != "HdrS" {
		return b, nil
	}
	if version := binary.LittleEndian.Uint16(b[0x206:]); version < 0x208 {
		return nil, fmt.Errorf("boot protocol %#x says not where the kernel is: 0x208 does", version)
	}
	setup := uint64(b[0x1f1])
	if setup == 0 {
		setup = 4
	}
	start := (setup+1)*512 + uint64(binary.LittleEndian.Uint32(b[0x248:]))
	end := start + uint64(binary.LittleEndian.Uint32(b[0x24c:]))
	if end > uint64(len(b)) || start >= end {
		return nil, errors.New("truncated: the kernel in the bzImage ends behind the file")
	}
	return b[start:end], nil
}

// zbootPayload is the packed kernel in a program of EFI (drivers/firmware/efi/libstub/zboot-header.S, Linux 6.1), with the
// size that the build appends to formats other than gzip.
func zbootPayload(b []byte) ([]byte, error) {
	start, size := uint64(binary.LittleEndian.Uint32(b[8:])), uint64(binary.LittleEndian.Uint32(b[12:]))
	if size == 0 || start+size > uint64(len(b)) {
		return nil, errors.New("truncated: the kernel in the program of EFI ends behind the file")
	}
	end := start + size
	if !bytes.HasPrefix(b[start:], gzipMagic) {
		end = min(end+4, uint64(len(b)))
	}
	return b[start:end], nil
}

// decompress unpacks b up to limit. What follows the packed data, the size that
// the kernel's build appends, is left alone.
func decompress(ctx context.Context, b []byte, limit int) ([]byte, error) {
	room, most := sizes(b, b, len(b), limit)
	if room > most {
		return nil, tooLarge(most)
	}
	switch {
	case bytes.HasPrefix(b, zstdMagic):
		return unzstd(b, most)
	case bytes.HasPrefix(b, lz4Magic):
		return unlz4(ctx, b, room, most)
	}
	r, err := stream(bytes.NewReader(b), b, min(maxDictionary, limit))
	if err != nil {
		return nil, err
	}
	out, err := readAll(ctx, r, room, most)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case len(out) > most:
		return nil, tooLarge(most)
	case err != nil && !trailing(out, b):
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return out, nil
}

// readAll reads up to one byte more than most, into a buffer that has room for that many
// to begin with. It ends early when what comes is no code.
func readAll(ctx context.Context, r io.Reader, room, most int) ([]byte, error) {
	out := Buffer(min(room, most) + 1)
	for len(out) <= most {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(out) == cap(out) {
			// Half as much again: doubling would take three times of it at once.
			out = append(Buffer(min(max(len(out)/2*3, piece), most+1)), out...)
		}
		n, err := r.Read(out[len(out):min(cap(out), len(out)+piece)])
		out = out[:len(out)+n]
		if len(out) >= imageHeader && !isCode(out) {
			return out, errNoCode
		}
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

var (
	gzipMagic = []byte{0x1f, 0x8b}
	xzMagic   = []byte("\xfd7zXZ\x00")
	lzmaMagic = []byte{0x5d, 0x00, 0x00}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	lz4Magic  = []byte{0x02, 0x21, 0x4c, 0x18} // the legacy format, which kernels have
)

// unzstd unpacks at once, which needs no window beside what it unpacks to.
func unzstd(b []byte, most int) ([]byte, error) {
	// The kernel's build asks for a window of 128 MiB, whatever the size.
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(uint64(max(most, 128<<20))))
	if err != nil {
		return nil, fmt.Errorf("unpack zstd: %w", err)
	}
	defer z.Close()
	out, err := z.DecodeAll(b, Buffer(most)) // what is not written to takes no memory
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, tooLarge(most)
	case err != nil && !trailing(out, b):
		return nil, fmt.Errorf("unpack zstd: %w", err)
	}
	return out, nil
}

// unlz4 unpacks blocks of 8 MiB at once, each behind its size: lib/decompress_unlz4.c.
// A reader would hold a block twice beside what it unpacks to.
func unlz4(ctx context.Context, b []byte, room, most int) ([]byte, error) {
	const block = 8 << 20
	out := Buffer(min(room+block, most+1))
	for rest := b; len(rest) > 4; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		size := binary.LittleEndian.Uint32(rest)
		rest = rest[4:]
		if bytes.Equal(binary.LittleEndian.AppendUint32(nil, size), lz4Magic) {
			continue // another file behind the first
		}
		if uint64(size) > uint64(len(rest)) {
			if trailing(out, b) {
				break
			}
			return nil, errors.New("unpack lz4: truncated")
		}
		left := min(block, most+1-len(out))
		out = slices.Grow(out, left)
		n, err := lz4.UncompressBlock(rest[:size], out[len(out):][:left])
		if err != nil {
			if left < block {
				return nil, tooLarge(most) // it does not fit, if it is not broken
			}
			return nil, fmt.Errorf("unpack lz4: %w", err)
		}
		if out = out[:len(out)+n]; len(out) > most {
			return nil, tooLarge(most)
		}
		rest = rest[size:]
	}
	return out, nil
}

// trailing tells whether all that b promises was unpacked, though the reader then
// stumbled over the four bytes of its size that follow.
func trailing(out, b []byte) bool {
	return len(b) > 4 && uint64(binary.LittleEndian.Uint32(b[len(b)-4:])) == uint64(len(out)) && isCode(out)
}

// stream is a reader of what r unpacks to, which begins with magic. Of formats that join
// several files it reads the first.
func stream(r io.Reader, magic []byte, dictionary int) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(magic, gzipMagic):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("unpack gzip: %w", err)
		}
		z.Multistream(false)
		return z, nil
	case bytes.HasPrefix(magic, xzMagic):
		z, err := xz.NewReader(r, uint32(dictionary))
		if err != nil {
			return nil, fmt.Errorf("unpack xz: %w", err)
		}
		z.Multistream(false)
		return z, nil
	case bytes.HasPrefix(magic, lzmaMagic):
		z, err := lzma.ReaderConfig{DictCap: dictionary}.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("unpack lzma: %w", err)
		}
		return z, nil
	}
	return nil, errFormat
}
