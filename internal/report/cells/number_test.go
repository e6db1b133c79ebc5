package cells

import (
	"math"
	"testing"
)

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0.123: "0.12", 1.234: "1.23", 9.996: "10.0", 12.34: "12.3", 99.96: "100", 658.4: "658", -51.3: "-51.3", math.NaN(): "?"} {
		if got := Number(x); got != want {
			t.Errorf("Number(%v) = %q, want %q", x, got, want)
		}
	}
	for x, want := range map[float64]string{0: "0.00", -0.001: "0.00", 0.5: "+0.50", -3.14: "-3.1", 104.6: "+105"} {
		if got := Signed(x); got != want {
			t.Errorf("Signed(%v) = %q, want %q", x, got, want)
		}
	}
}
