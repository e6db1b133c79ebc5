package memory

import (
	"io"
	"strings"
	"testing"
)

func TestHead(t *testing.T) {
	t.Parallel()
	h := NewHead(3)
	for _, step := range []struct {
		p, kept string
		cut     bool
	}{{"", "", false}, {"12", "12", false}, {"3", "123", false}, {"", "123", false}, {"45", "123", true}, {"", "123", true}} {
		if n, err := h.Write([]byte(step.p)); n != len(step.p) || err != nil || h.String() != step.kept || h.Cut() != step.cut {
			t.Errorf("%q: %d, %v, %q, %v", step.p, n, err, h.Bytes(), h.Cut())
		}
	}
}

// What a command prints is copied by io.Copy, which takes ReadFrom in place of Write where there is one.
func TestHeadOfCopy(t *testing.T) {
	t.Parallel()
	const most, printed = 1 << 10, 4 << 20
	h := NewHead(most)
	if n, err := io.Copy(h, io.LimitReader(endless('x'), printed)); n != printed || err != nil {
		t.Fatal(n, err)
	}
	if h.String() != strings.Repeat("x", most) || !h.Cut() || cap(h.kept) > 4*most {
		t.Errorf("of %d bytes %d are kept, in %d; cut: %v", printed, len(h.kept), cap(h.kept), h.Cut())
	}
}

// endless reads one byte for ever.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}
