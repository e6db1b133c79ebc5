package cells

import (
	"testing"
)

func TestSigned(t *testing.T) {
	t.Parallel()
	for x, want := range map[float64]string{0: "0.00", -0.001: "0.00", 0.5: "+0.50", -3.14: "-3.1", 104.6: "+105"} {
		if got := Signed(x); got != want {
			t.Errorf("Signed(%v) = %q, want %q", x, got, want)
		}
	}
}
