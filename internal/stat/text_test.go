package stat

import (
	"math"
	"testing"
)

func TestNumber(t *testing.T) {
	t.Parallel()
	for x, want := range map[float64]string{
		0: "0.00", 0.123: "0.12", 9.994: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 12345: "12345",
		-9.996: "-10.0", -0.004: "0.00", math.Inf(1): "?",
	} {
		if got := Number(x); got != want {
			t.Errorf("%v is %s, want %s", x, got, want)
		}
	}
	if got := Number(math.NaN()); got != "?" {
		t.Errorf("unknown is %s", got)
	}
	for x, want := range map[float64]string{0: "0", 10: "10", 1180.3300781250: "1180.330078125", -0.5: "-0.5"} {
		if got := Exact(x); got != want {
			t.Errorf("%v is exactly %s, want %s", x, got, want)
		}
	}
	if got := Exact(math.NaN()); got != "none" {
		t.Errorf("unknown is exactly %s", got)
	}
}

func TestQuantityText(t *testing.T) {
	t.Parallel()
	q := Quantity{Median: 12.14, Low: 11.3, High: 12.72, N: 7, Unit: "ns"}
	if got := q.Text(Number); got != "12.1 ns [11.3, 12.7]" {
		t.Error(got)
	}
	if got := q.Text(Fixed(0)); got != "12 ns [11, 13]" {
		t.Error(got)
	}
	q.High, q.Unit = math.NaN(), ""
	if got := q.Text(Fixed(3)); got != "12.140" {
		t.Error(got)
	}
	if got := q.Interval(Number); got != "" {
		t.Error(got)
	}
}

func TestSigned(t *testing.T) {
	t.Parallel()
	for x, want := range map[float64]string{0: "0.00", -0.001: "0.00", 0.5: "+0.50", -3.14: "-3.1", 104.6: "+105"} {
		if got := Signed(x); got != want {
			t.Errorf("Signed(%v) = %q, want %q", x, got, want)
		}
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for want, q := range map[string]Quantity{
		"4.00":                {Median: 4, Low: 3, High: 5},
		"0 to 5.00":           {Median: 4, Low: -3, High: 5},
		"0 to 0.21":           {Median: -0.03, Low: -0.2, High: 0.21},
		"0 to less than 0.01": {Median: -0.03, Low: -0.2, High: 0.002},
		"0":                   {Median: -3, Low: -4, High: -2},
		"about 0":             {Median: -3, Low: nan, High: nan},
		"3.00":                {Median: 3, Low: nan, High: nan},
		"?":                   {Median: nan, Low: nan, High: nan},
	} {
		if got := q.Cost(Number); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
}
