package memory

import (
	"context"
	"fmt"
	"io"
)

// Buffer keeps what is written to it, up to a number of bytes and until a context ends: what
// is made of files that others made may be larger than they are. It fills pieces and copies
// none, so that it takes no more than it holds.
type Buffer struct {
	ctx    context.Context
	most   int
	size   int
	pieces [][]byte
	err    error
}

// MaxOutput is the most that a verb which only reads files makes of them, in bytes.
const MaxOutput = 64 << 20

// pieceSize is that of a full piece.
const pieceSize = 256 << 10

// NewBuffer takes at most most bytes, and none once ctx is done.
func NewBuffer(ctx context.Context, most int) *Buffer { return &Buffer{ctx: ctx, most: most} }

// FullError says that a [Buffer] had no room.
type FullError struct{ Most int }

func (e *FullError) Error() string { return fmt.Sprintf("it has more than %d MiB", e.Most>>20) }

// Write fails when there is no room for all of p, and when the context has ended. What is
// written after that is lost, with the same error.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.err == nil {
		b.err = b.ctx.Err()
	}
	if b.err == nil && b.size+len(p) > b.most {
		b.err = &FullError{b.most}
	}
	if b.err != nil {
		return 0, b.err
	}
	b.size += len(p)
	for rest := p; len(rest) > 0; {
		last := len(b.pieces) - 1
		if last < 0 || len(b.pieces[last]) == cap(b.pieces[last]) {
			// The first pieces are small: most outputs are.
			b.pieces = append(b.pieces, make([]byte, 0, min(pieceSize, max(4096, b.size))))
			continue
		}
		piece := b.pieces[last]
		n := copy(piece[len(piece):cap(piece)], rest)
		b.pieces[last], rest = piece[:len(piece)+n], rest[n:]
	}
	return len(p), nil
}

// WriteString is [Buffer.Write] of a text.
func (b *Buffer) WriteString(s string) (int, error) { return b.Write([]byte(s)) }

// Err is the first error of Write: writers that look at none are asked here.
func (b *Buffer) Err() error { return b.err }

// Len is how many bytes b holds.
func (b *Buffer) Len() int { return b.size }

// WriteTo writes what b holds. It implements [io.WriterTo].
func (b *Buffer) WriteTo(w io.Writer) (n int64, err error) {
	for _, piece := range b.pieces {
		m, err := w.Write(piece)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
