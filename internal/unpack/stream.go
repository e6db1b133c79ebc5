package unpack

import (
	"bufio"
	"compress/bzip2"
	"context"
	"io"

	"github.com/klauspost/compress/zstd"
)

// NewReader reads what r, an archive that may be packed, unpacks to: with gzip, xz, zstd,
// lzma or bzip2, or as it is. It holds at most 64 MiB of history. When ctx ends, reading
// returns the error of ctx.
func NewReader(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	return newReader(ctx, r, maxDictionary)
}

// newReader is [NewReader] with a history of at most so many bytes.
func newReader(ctx context.Context, r io.Reader, history int) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(heard{ctx, r}, 64<<10)
	magic, err := buffered.Peek(6)
	if err != nil {
		return nil, err
	}
	switch {
	case string(magic[:4]) == string(zstdMagic):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(history)))
		if err != nil {
			return nil, err
		}
		return closer{heard{ctx, z}, z.Close}, nil
	case string(magic[:3]) == "BZh":
		return closer{heard{ctx, bzip2.NewReader(buffered)}, func() {}}, nil
	}
	if packed, err := stream(buffered, magic, history); err != errFormat {
		return closer{heard{ctx, packed}, func() {}}, err
	}
	return closer{buffered, func() {}}, nil
}

// Heard reads what r does; when ctx ends it returns the error of ctx.
func Heard(ctx context.Context, r io.Reader) io.Reader { return heard{ctx, r} }

// heard is a reader that ends with its context.
type heard struct {
	ctx context.Context
	r   io.Reader
}

func (h heard) Read(p []byte) (int, error) {
	if err := h.ctx.Err(); err != nil {
		return 0, err
	}
	return h.r.Read(p[:min(len(p), piece)])
}

type closer struct {
	io.Reader
	close func()
}

func (c closer) Close() error {
	c.close()
	return nil
}
