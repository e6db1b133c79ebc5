package conclusion

import (
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestProfileBridge(t *testing.T) {
	t.Parallel()
	q := func(x float64) *stat.Quantity {
		return &stat.Quantity{Median: x, Low: 0.9 * x, High: 1.1 * x, N: 7, Unit: "ns"}
	}
	const bench, mean = "As bench counts it, by the quickest tenth of the windows, a packet takes ",
		" The mean of all windows, which the stages add up to, is "
	for _, test := range []struct {
		undisturbed, packet *stat.Quantity
		want                string
	}{
		{q(261.4), q(271.6), bench + "261 ns [235, 288]." + mean + "11 ns more: 272 ns."}, // 10.2, but 272 less 261 is 11
		{q(95.34), q(104.4), bench + "95.3 ns [85.8, 105]." + mean + "9 ns more: 104 ns."},
		{q(8.25), q(8.13), bench + "8.25 ns [7.42, 9.08]." + mean + "0.12 ns less: 8.13 ns."},
		{q(261.4), q(260.9), bench + "261 ns [235, 288]." + mean + "as much: 261 ns."},
		{nil, q(260), ""},
		{q(260), nil, ""},
	} {
		got := ProfileBridge(&record.ProfileParts{Packet: test.packet, Undisturbed: test.undisturbed})
		if got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// Whoever adds up the numbers of the line arrives at the mean, to half of the last digit of either.
func TestProfileBridgeAddsUp(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`takes ([0-9.]+) ns .* is (?:([0-9.]+) ns (more|less)|as much): ([0-9.]+) ns\.$`)
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		quick := stat.Quantity{Median: math.Exp(7 * random.Float64()), Unit: "ns", N: 7}
		quick.Low, quick.High = quick.Median, quick.Median
		all := quick
		all.Median *= 1 + 0.3*random.NormFloat64()
		if all.Median <= 0 {
			continue
		}
		got := ProfileBridge(&record.ProfileParts{Packet: &all, Undisturbed: &quick})
		m := line.FindStringSubmatch(got)
		if m == nil {
			t.Fatalf("%q", got)
		}
		number := func(s string) float64 { x, _ := strconv.ParseFloat(s, 64); return x }
		sum := number(m[1])
		if m[3] == "more" {
			sum += number(m[2])
		} else {
			sum -= number(m[2])
		}
		_, quickDigits, _ := strings.Cut(m[1], ".")
		_, allDigits, _ := strings.Cut(m[4], ".")
		unit := math.Pow10(-min(len(quickDigits), len(allDigits)))
		if math.Abs(sum-number(m[4])) > 0.51*unit {
			t.Errorf("%q: the sum is %v", got, sum)
		}
	}
}
