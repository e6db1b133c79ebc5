package fleet

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// Of what a server says messages with parameters are counted, in however small pieces it comes.
func TestHeard(t *testing.T) {
	t.Parallel()
	said := "R\x00\x00\x00\x08\x00\x00\x00\x00" + "S\x00\x00\x00\x08a\x00b\x00" + "Z\x00\x00\x00\x05I" + "S\x00\x00\x00\x04" +
		"D\x00\x00\x00\x0aSSSSSS" + "A\x00\x00\x00\x00" + "S\x00\x00\x00\x09aa\x00b\x00"
	for _, r := range []io.Reader{strings.NewReader(said), iotest.OneByteReader(strings.NewReader(said))} {
		h := &heard{Reader: r}
		got, err := io.ReadAll(h)
		if err != nil || string(got) != said || h.parameters != 9+5+10 {
			t.Errorf("%d bytes of parameters in %q: %v", h.parameters, got, err)
		}
	}
}

// However a server lies about lengths, each byte that it says is given on or refused, and what it has for parameters is bounded.
func FuzzHeard(f *testing.F) {
	f.Add([]byte("S\x00\x00\x00\x08a\x00b\x00Z\x00\x00\x00\x05I"), uint8(3))
	f.Add([]byte("S\xff\xff\xff\xffa"), uint8(1))
	f.Fuzz(func(t *testing.T, said []byte, piece uint8) {
		whole, cut := &heard{Reader: bytes.NewReader(said)}, &heard{}
		whole.greeted.Store(true)
		got, err := io.ReadAll(whole)
		if (err == nil) != (whole.parameters <= maxGreeting) || err == nil && !bytes.Equal(got, said) {
			t.Errorf("%d of %d bytes, %d of parameters: %v", len(got), len(said), whole.parameters, err)
		}
		for rest := said; len(rest) > 0; {
			n := min(len(rest), int(piece)+1)
			cut.follow(rest[:n])
			rest = rest[n:]
		}
		if err == nil && cut.parameters != whole.parameters {
			t.Errorf("%d bytes of parameters in pieces of %d, %d in one", cut.parameters, int(piece)+1, whole.parameters)
		}
	})
}
