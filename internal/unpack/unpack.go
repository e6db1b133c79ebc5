// Package unpack reads kernels and modules that are packed.
package unpack

import (
	"bytes"
	"compress/gzip"
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

// Max is the largest file that is read, and the largest that one unpacks to, in bytes.
const Max = 512 << 20

var errTooLarge = fmt.Errorf("more than %d MiB", Max>>20)

// maxDictionary is the largest history that a packed file may ask for, in bytes: xz's
// own limit for its highest preset.
const maxDictionary = 64 << 20

// ELF returns the ELF file in b, which may be packed, or the payload of a
// bzImage.
func ELF(b []byte) ([]byte, error) { return elfWithin(b, Max) }

// elfWithin is ELF where neither the file nor what it unpacks to may be larger than
// limit bytes.
func elfWithin(b []byte, limit int) ([]byte, error) {
	switch {
	case len(b) == 0:
		return nil, errors.New("the file is empty")
	case len(b) > limit:
		return nil, errTooLarge
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		return b, nil
	case len(b) > 0x250 && string(b[0x202:0x206]) == "HdrS":
		payload, err := bzPayload(b)
		if err != nil {
			return nil, err
		}
		if b, err = decompress(payload, limit); err != nil {
			return nil, err
		}
	default:
		var err error
		if b, err = decompress(b, limit); err != nil {
			return nil, err
		}
	}
	if !bytes.HasPrefix(b, []byte("\x7fELF")) {
		return nil, errors.New("what is packed in it is no ELF file")
	}
	return b, nil
}

// bzPayload is the packed kernel in a bzImage: Documentation/arch/x86/boot.rst.
func bzPayload(b []byte) ([]byte, error) {
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

// decompress unpacks b up to limit. What follows the packed data, the size that
// the kernel's build appends, is left alone.
func decompress(b []byte, limit int) ([]byte, error) {
	switch {
	case bytes.HasPrefix(b, zstdMagic):
		return unzstd(b, limit)
	case bytes.HasPrefix(b, lz4Magic):
		return unlz4(b, limit)
	}
	r, err := reader(b, limit)
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(Buffer(sizeHint(b, limit) + bytes.MinRead))
	n, err := io.Copy(out, io.LimitReader(r, int64(limit)+1))
	switch {
	case n > int64(limit):
		return nil, errTooLarge
	case err != nil && !bytes.HasPrefix(out.Bytes(), []byte("\x7fELF")):
		return nil, fmt.Errorf("unpack: %w", err)
	case err != nil && !trailing(out.Bytes(), b):
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return out.Bytes(), nil
}

var (
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	lz4Magic  = []byte{0x02, 0x21, 0x4c, 0x18} // the legacy format, which kernels have
)

// unzstd unpacks at once, which needs no window beside what it unpacks to.
func unzstd(b []byte, limit int) ([]byte, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit)))
	if err != nil {
		return nil, fmt.Errorf("unpack zstd: %w", err)
	}
	defer z.Close()
	out, err := z.DecodeAll(b, Buffer(sizeHint(b, limit)))
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), len(out) > limit:
		return nil, errTooLarge
	case err != nil && !trailing(out, b):
		return nil, fmt.Errorf("unpack zstd: %w", err)
	}
	return out, nil
}

// unlz4 unpacks blocks of 8 MiB at once, each behind its size: lib/decompress_unlz4.c.
// A reader would hold a block twice beside what it unpacks to.
func unlz4(b []byte, limit int) ([]byte, error) {
	const block = 8 << 20
	out := Buffer(sizeHint(b, limit) + block)
	for rest := b; len(rest) > 4; {
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
		out = slices.Grow(out, block)
		n, err := lz4.UncompressBlock(rest[:size], out[len(out):][:block])
		if err != nil {
			return nil, fmt.Errorf("unpack lz4: %w", err)
		}
		if out = out[:len(out)+n]; len(out) > limit {
			return nil, errTooLarge
		}
		rest = rest[size:]
	}
	return out, nil
}

// sizeHint is what b may unpack to: a kernel's payload ends in its size. It is no
// promise.
func sizeHint(b []byte, limit int) int {
	if len(b) < 4 {
		return 0
	}
	return int(min(uint64(binary.LittleEndian.Uint32(b[len(b)-4:])), 16*uint64(len(b)), uint64(limit)))
}

// trailing tells whether all that b promises was unpacked, though the reader then
// stumbled over the four bytes of its size that follow.
func trailing(out, b []byte) bool {
	return len(b) > 4 && uint64(binary.LittleEndian.Uint32(b[len(b)-4:])) == uint64(len(out))
}

func reader(b []byte, limit int) (io.Reader, error) {
	dictionary := min(maxDictionary, limit)
	r := bytes.NewReader(b)
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("unpack gzip: %w", err)
		}
		z.Multistream(false)
		return z, nil
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		z, err := xz.NewReader(r, uint32(dictionary))
		if err != nil {
			return nil, fmt.Errorf("unpack xz: %w", err)
		}
		z.Multistream(false)
		return z, nil
	case bytes.HasPrefix(b, []byte{0x5d, 0x00, 0x00}):
		z, err := lzma.ReaderConfig{DictCap: dictionary}.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("unpack lzma: %w", err)
		}
		return z, nil
	}
	return nil, errors.New("no kernel, no module, and not packed in a way that is known")
}
