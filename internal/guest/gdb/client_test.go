package gdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// stub answers each command with what is next in a list, and keeps what it was sent.
type stub struct {
	io.Reader
	got bytes.Buffer
}

func (s *stub) Write(b []byte) (int, error) { return s.got.Write(b) }

// says are packets as a stub sends them, each after its acknowledgment.
func says(packets ...string) string {
	var b strings.Builder
	for _, p := range packets {
		fmt.Fprintf(&b, "+$%s#%02x", p, sum([]byte(p)))
	}
	return b.String()
}

func TestClient(t *testing.T) {
	t.Parallel()
	s := &stub{Reader: strings.NewReader(says("OK", "T05thread:01;", "O6b6f0d0a", "OK", "OK", "48}\x0389", "OK", "W00"))}
	c := New(s)
	code := make([]byte, 2)
	if err := errors.Join(c.Break(0xffffffff81000000), c.Continue()); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Monitor("one-insn-per-tb on"); out != "ko" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := c.Monitor("log none"); out != "" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	// QEMU escapes no digit; a stub may.
	if err := c.Memory(code, 0x10); err == nil {
		t.Errorf("memory of %x in three digits too many", code)
	}
	if err := c.Unbreak(0x10); err != nil {
		t.Error(err)
	}
	if err := c.Continue(); !errors.Is(err, ErrEnded) {
		t.Errorf("a guest that ended: %v", err)
	}
	if err := c.Continue(); !errors.Is(err, ErrEnded) {
		t.Errorf("a connection that ended: %v", err)
	}
	for _, want := range []string{"$Z0,ffffffff81000000,1#", "$c#63+", "$qRcmd,6c6f67206e6f6e65#", "$m10,2#", "$z0,10,1#"} {
		if !strings.Contains(s.got.String(), want) {
			t.Errorf("no %q was sent: %q", want, s.got.String())
		}
	}
}

// Memory is read in pieces that fit into packets.
func TestMemory(t *testing.T) {
	t.Parallel()
	s := &stub{Reader: strings.NewReader(says(strings.Repeat("0a", maxMemory), "ff"))}
	code := make([]byte, maxMemory+1)
	if err := New(s).Memory(code, 0); err != nil || code[0] != 10 || code[maxMemory] != 255 {
		t.Errorf("%v: %x … %x", err, code[0], code[maxMemory])
	}
	if want := fmt.Sprintf("$m%x,1#", maxMemory); !strings.Contains(s.got.String(), want) {
		t.Errorf("%q, want %q", s.got.String(), want)
	}
}

func TestUnmapped(t *testing.T) {
	t.Parallel()
	s := &stub{Reader: strings.NewReader(says("E14"))}
	if err := New(s).Memory(make([]byte, 1), 1); !errors.Is(err, ErrUnmapped) {
		t.Error(err)
	}
}

func TestBadStub(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		says("E22"):                                 `answers Z0,1,1 by "E22"`,
		"$OK#00":                                    "wrong sum",
		"$" + strings.Repeat("x", maxPacket+1):      "more than 128 KiB",
		strings.Repeat("+", maxNoise+2):             "no packet in 64 KiB",
		"$O":                                        "the guest has ended",
		says("X09"):                                 "the guest has ended",
		says("") + says("OK") /* an unknown one */ : `answers Z0,1,1 by ""`,
	} {
		if err := New(&stub{Reader: strings.NewReader(said)}).Break(1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", said, err, want)
		}
	}
	long := strings.Repeat(says("O"+strings.Repeat("61", 1000)), 70)
	if _, err := New(&stub{Reader: strings.NewReader(long)}).Monitor("x"); err == nil || !strings.Contains(err.Error(), "64 KiB") {
		t.Error(err)
	}
}

// FuzzClient reads what no stub sent: it ends, and takes no more memory than a packet.
func FuzzClient(f *testing.F) {
	f.Add([]byte(says("OK", "O6b6f", "OK", "0102", "T05")))
	f.Add([]byte("+++$}#7d$}}#fa$OK#9a"))
	f.Fuzz(func(t *testing.T, said []byte) {
		testutil.Allocates(t, uint64(1<<20+64*len(said)), func() {
			c := New(&stub{Reader: bytes.NewReader(said)})
			var code [2]byte
			for _, err := range []error{c.Break(1), c.Memory(code[:], 1), c.Continue()} {
				if err != nil && strings.Contains(err.Error(), "\n") {
					t.Error(err)
				}
			}
			_, _ = c.Monitor("log none")
		})
	})
}
