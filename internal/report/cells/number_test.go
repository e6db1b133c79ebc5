package cells

import "testing"

func TestPerPackets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		x               float64
		one, many, want string
	}{
		{2, "", "", "2 a packet"}, {0.3125, "branch", "branches", "5 branches in 16 packets"}, {0, "", "", "0 a packet"},
		{1, "branch", "branches", "1 branch a packet"}, {0.1, "", "", "0.1 a packet"},
		{1183.734375, "", "instructions", "75759 instructions in 64 packets"},
	} {
		if got := PerPackets(tt.x, tt.one, tt.many); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.x, got, tt.want)
		}
	}
}
