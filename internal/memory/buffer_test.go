package memory

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestBuffer(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	b := NewBuffer(t.Context(), 2<<20)
	var want bytes.Buffer
	for b.Len() < 1<<20 {
		p := bytes.Repeat([]byte{byte(random.Uint32())}, random.IntN(60_000))
		want.Write(p)
		if n, err := b.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	var got bytes.Buffer
	if n, err := b.WriteTo(&got); err != nil || n != int64(want.Len()) || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes of %d, %v", n, want.Len(), err)
	}
	room := 0
	for _, piece := range b.pieces {
		room += cap(piece)
	}
	if room > b.Len()+pieceSize {
		t.Errorf("%d bytes take %d", b.Len(), room)
	}
}

// What does not fit, and what comes after it, is an error; so is all once the context ended.
func TestBufferFull(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	b := NewBuffer(ctx, 10)
	b.WriteString("12345")
	for _, text := range []string{"123456", "1"} {
		var full *FullError
		if n, err := b.WriteString(text); n != 0 || !errors.As(err, &full) || b.Err() != err || full.Most != 10 {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	b = NewBuffer(ctx, 10)
	cancel()
	if n, err := b.WriteString("1"); n != 0 || err != context.Canceled || b.Err() != err {
		t.Errorf("%d, %v", n, err)
	}
	var s strings.Builder
	if n, err := b.WriteTo(&s); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
