package redirect

import (
	"testing"

	"github.com/unthunk/unthunk/prog"
)

func TestChoosePackets(t *testing.T) {
	lengths := func(n, bytes int) (frames [][]byte) {
		for range n {
			frames = append(frames, make([]byte, bytes))
		}
		return frames
	}
	for _, test := range []struct {
		packets prog.Packets
		n       int
		leftOut string
	}{
		{prog.Packets{Frames: lengths(3, 60), Seen: 3}, 3, ""},
		{prog.Packets{Frames: lengths(1021, 60), Seen: 1021}, 1008, "1008 of 1021 packets are sent"},
		{prog.Packets{Frames: append(lengths(2, 60), lengths(2, 3000)...), Seen: 90, Cut: 4}, 2,
			"2 of 90 packets are sent; left out: 4 cut short by the capture; 2 above 2044 bytes"},
	} {
		frames, leftOut, err := ChoosePackets(&test.packets, []int{16, 64})
		if err != nil || len(frames) != test.n || leftOut != test.leftOut {
			t.Errorf("%d packets, %q, %v; want %d, %q", len(frames), leftOut, err, test.n, test.leftOut)
		}
	}
	if _, _, err := ChoosePackets(&prog.Packets{Frames: lengths(2, 3000)}, []int{16}); err == nil {
		t.Error("packets that are all too long")
	}
}
