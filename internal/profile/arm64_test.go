package profile

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// Where a function of arm64 has no frame yet, or none any more, the frame pointer is its caller's and the call chain lacks that: the
// link register says how the function was entered. Else it says where another call returned to.
func TestEnteredARM64(t *testing.T) {
	const base = 0xffff800080000000
	words := map[uint64]uint32{
		0x000: 0xd503233f, 0x004: 0xa9bf7bfd, 0x008: 0x910003fd, // outer: paciasp; stp x29, x30, [sp, #-16]!; mov x29, sp
		0x00c: 0x9400003d,                                       // bl middle
		0x010: 0xd503201f,                                       // nop
		0x100: 0xd503233f, 0x104: 0xa9bf7bfd, 0x108: 0x910003fd, // middle, the same
		0x10c: 0xd63f0020, 0x110: 0xd503201f, // blr x1; nop
		0x200: 0xd503233f, 0x204: 0xa9bf7bfd, 0x208: 0x910003fd, // inner, the same
		0x20c: 0xd503201f, 0x210: 0xa8c17bfd, 0x214: 0xd50323bf, 0x218: 0xd65f03c0, 0x21c: 0xd503201f, // nop; ldp; autiasp; ret; nop
	}
	// GCC, and clang, which adds to sp behind it.
	for _, ldp := range []uint32{0xa8c17bfd, 0xa9417bfd} {
		words[0x210] = ldp
		testEntered(t, base, words)
	}
}

// testEntered takes samples in these words of code.
func testEntered(t *testing.T, base uint64, words map[uint64]uint32) {
	t.Helper()
	code := make([]byte, 0x300)
	for at, w := range words {
		binary.LittleEndian.PutUint32(code[at:], w)
	}
	table, err := ksym.Parse(strings.NewReader(fmt.Sprintf("%x t outer\n%x t middle\n%x t inner\n%x t end\n",
		base, base+0x100, base+0x200, base+0x300)))
	if err != nil {
		t.Fatal(err)
	}
	k := kernel.New(ktext.Bytes{Addr: base, Code: code}, table, nil)
	k.Arch = "arm64"
	for _, test := range []struct {
		at    uint64 // in inner
		chain []uint64
		want  string
	}{
		{0x200, []uint64{0x010}, "inner+0x0 middle+0x10 outer+0x10"},
		{0x204, []uint64{0x010}, "inner+0x4 middle+0x10 outer+0x10"},
		{0x208, []uint64{0x010}, "inner+0x8 middle+0x10 outer+0x10"},
		{0x20c, []uint64{0x110, 0x010}, "inner+0xc middle+0x10 outer+0x10"},
		{0x210, []uint64{0x110, 0x010}, "inner+0x10 middle+0x10 outer+0x10"},
		{0x214, []uint64{0x010}, "inner+0x14 middle+0x10 outer+0x10"},
		{0x218, []uint64{0x010}, "inner+0x18 middle+0x10 outer+0x10"},
		{0x21c, []uint64{0x110, 0x010}, "inner+0x1c middle+0x10 outer+0x10"}, // behind the return, on another way
		{0x200, []uint64{0x110, 0x010}, "inner+0x0 middle+0x10 outer+0x10"},  // the kernel has found the caller
	} {
		s := newStacks()
		chain := []uint64{base + test.at}
		for _, ret := range test.chain {
			chain = append(chain, base+ret)
		}
		s.add(chain, base+0x110, circumstances{}, 1)
		s.end(table, newReader(k), unscaled)
		stack := s.all()[0]
		var frames []string
		for _, f := range stack.Frames {
			frames = append(frames, fmt.Sprintf("%s+%#x", f.Function, f.Offset))
		}
		if got := strings.Join(frames, " "); got != test.want {
			t.Errorf("at %#x: %s, want %s", test.at, got, test.want)
		}
		stack.enter(newReader(k))
		if e := stack.entry; e.kind != indirectly || e.site.Function != "middle" || e.site.Offset != 0xc {
			t.Errorf("at %#x: entered %+v, want by the blr of middle", test.at, e)
		}
	}
	// Without a link register the call chain is as it was.
	s := newStacks()
	s.add([]uint64{base + 0x200, base + 0x010}, 0, circumstances{}, 1)
	s.end(table, newReader(k), unscaled)
	if n := len(s.all()[0].Frames); n != 2 {
		t.Errorf("%d frames, want 2", n)
	}
}
