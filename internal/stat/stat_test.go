package stat

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/aclements/go-moremath/stats"
	"golang.org/x/perf/benchmath"
)

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func lognormal(r *rand.Rand, n int, median, sd float64) []float64 {
	xs := make([]float64, n)
	for i := range xs {
		xs[i] = median * math.Exp(sd*r.NormFloat64())
	}
	return xs
}

func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance }

func TestQuantile(t *testing.T) {
	t.Parallel()
	xs := []float64{4, 1, 3, 2}
	for _, tt := range []struct{ q, want float64 }{{0, 1}, {0.5, 2.5}, {1, 4}, {0.25, 1.75}, {-1, 1}, {2, 4}} {
		if got := Quantile(xs, tt.q); got != tt.want {
			t.Errorf("Quantile(%v) = %v, want %v", tt.q, got, tt.want)
		}
	}
	if !slices.Equal(xs, []float64{4, 1, 3, 2}) {
		t.Error("reordered its argument")
	}
	for _, xs := range [][]float64{nil, {1, math.NaN()}} {
		if got := Median(xs); !math.IsNaN(got) {
			t.Errorf("Median(%v) = %v, want NaN", xs, got)
		}
	}
	if got := Median([]float64{math.Inf(1), math.Inf(1)}); !math.IsInf(got, 1) {
		t.Errorf("median of infinities = %v", got)
	}
}

func TestSummarizeTooFew(t *testing.T) {
	t.Parallel()
	for n := range 12 {
		q := Summarize(lognormal(random(1), n, 100, 0.1), "ns")
		if has := !math.IsNaN(q.Low); has != (n >= MinRounds) {
			t.Errorf("%d rounds: interval [%v, %v]", n, q.Low, q.High)
		}
		if q.N != n || q.Unit != "ns" {
			t.Errorf("got %+v", q)
		}
	}
}

// Ranks as in Hollander, Wolfe and Chicken, table of the sign test.
func TestMedianRank(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{5: 0, 6: 1, 8: 1, 9: 2, 12: 3, 20: 6, 31: 10, 50: 18, 100: 40} {
		if got := medianRank(n, 0.05); got != want {
			t.Errorf("medianRank(%d) = %d, want %d", n, got, want)
		}
	}
	if got := medianRank(5000, 0.05); got < 2400 || got > 2450 {
		t.Errorf("medianRank(5000) = %d", got)
	}
}

// The interval is benchstat's, which may drop a rank on one side where that
// still leaves 95 %.
func TestSummarizeOracle(t *testing.T) {
	t.Parallel()
	r := random(2)
	for n := 6; n < 40; n++ {
		xs := lognormal(r, n, 100, 0.2)
		q := Summarize(xs, "ns")
		s := benchmath.AssumeNothing.Summary(benchmath.NewSample(slices.Clone(xs), &benchmath.DefaultThresholds), 0.95)
		if !near(q.Median, s.Center, 1e-9) || q.Low > s.Lo || q.High < s.Hi || q.Low != s.Lo && q.High != s.Hi {
			t.Errorf("n=%d: %v [%v, %v], benchmath %v [%v, %v]", n, q.Median, q.Low, q.High, s.Center, s.Lo, s.Hi)
		}
	}
}

func TestSignedRankDist(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 6, 17, 100, 101, 300} {
		sum, mean := 0.0, 0.0
		dist := signedRankDist(n)
		for k, p := range dist {
			sum += p
			mean += p * float64(k)
		}
		if !near(sum, 1, 1e-9) || !near(mean, float64(n*(n+1))/4, 0.01) {
			t.Errorf("n=%d: sum %v, mean %v", n, sum, mean)
		}
	}
	// Table A.4 of Hollander and Wolfe: P(W <= 8) for n = 10 is 0.024.
	tail := 0.0
	for _, p := range signedRankDist(10)[:9] {
		tail += p
	}
	if !near(tail, 0.024, 0.001) {
		t.Errorf("P(W <= 8; 10) = %v", tail)
	}
}

// Walsh averages by bisection equal Walsh averages by listing them.
func TestSignedRankOrder(t *testing.T) {
	t.Parallel()
	r := random(3)
	for n := 1; n < 25; n++ {
		d := make([]float64, n)
		for i := range d {
			d[i] = float64(r.IntN(9)) / 8 // many ties
			if n%2 == 0 {
				d[i] = r.NormFloat64()
			}
		}
		slices.Sort(d)
		var walsh []float64
		for i := range d {
			for j := i; j < n; j++ {
				walsh = append(walsh, (d[i]+d[j])/2)
			}
		}
		slices.Sort(walsh)
		s := signedRank{d}
		for k := 1; k <= s.walsh(); k++ {
			if got := s.order(k); !near(got, walsh[k-1], 1e-12) {
				t.Fatalf("n=%d: order(%d) = %v, want %v", n, k, got, walsh[k-1])
			}
		}
		for _, x := range walsh {
			atMost, below := 0, 0
			for _, y := range walsh {
				if y <= x {
					atMost++
				}
				if y < x {
					below++
				}
			}
			if s.atMost(x) != atMost || s.below(x) != below {
				t.Fatalf("n=%d: of %v at most %d, below %d, want %d, %d", n, x, s.atMost(x), s.below(x), atMost, below)
			}
		}
	}
}

func TestTwoRunsOracle(t *testing.T) {
	t.Parallel()
	r := random(4)
	for range 20 {
		a, b := lognormal(r, 8+r.IntN(10), 100, 0.1), lognormal(r, 8+r.IntN(10), 105, 0.1)
		la, _ := logs(a)
		lb, _ := logs(b)
		s := twoRuns{a: sorted(la), b: sorted(lb), df: 1}
		want, err := stats.MannWhitneyUTest(a, b, stats.LocationDiffers)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.p(0); !near(got, want.P, 0.02) {
			t.Errorf("p = %v, exact %v", got, want.P)
		}
	}
}

// t quantiles of any table.
func TestStudent(t *testing.T) {
	t.Parallel()
	for df, want := range map[float64]float64{1: 12.706, 5: 2.5706, 10: 2.2281, 100: 1.9840} {
		if got := tQuantile(0.975, df); !near(got, want, 0.001) {
			t.Errorf("t(0.975, %v) = %v, want %v", df, got, want)
		}
	}
	if got := tCDF(0, 3); !near(got, 0.5, 1e-12) {
		t.Errorf("tCDF(0) = %v", got)
	}
}

func TestDifferenceProperties(t *testing.T) {
	t.Parallel()
	r := random(5)
	for name, compare := range map[string]func(a, b []float64) Difference{"paired": Paired, "unpaired": Unpaired} {
		for range 200 {
			n := MinRounds + r.IntN(40)
			a, b := lognormal(r, n, 100, 0.1), lognormal(r, n, 103, 0.1)
			keepA, keepB := slices.Clone(a), slices.Clone(b)
			d := compare(a, b)
			if !slices.Equal(a, keepA) || !slices.Equal(b, keepB) {
				t.Fatalf("%s reordered its arguments", name)
			}
			if !(d.Low <= d.Median && d.Median <= d.High) || d.P < 0 || d.P > 1 || !(d.Smallest > 0) {
				t.Fatalf("%s: %+v", name, d)
			}
			// The interval and the test tell the same.
			if excluded := d.Low > 0 || d.High < 0; excluded != (d.P <= Alpha) && !near(d.P, Alpha, 0.005) {
				t.Fatalf("%s: interval [%v, %v] but p %v", name, d.Low, d.High, d.P)
			}
			// Units do not matter, and the other way round is the inverse.
			for i := range a {
				keepA[i], keepB[i] = a[i]*7, b[i]*7
			}
			if e := compare(keepA, keepB); !near(e.Median, d.Median, 1e-6) || !near(e.Low, d.Low, 1e-6) || !near(e.P, d.P, 1e-6) {
				t.Fatalf("%s: scaled %+v, was %+v", name, e, d)
			}
			if e := compare(b, a); !near((1+e.Median/100)*(1+d.Median/100), 1, 1e-6) || !near((1+e.Low/100)*(1+d.High/100), 1, 1e-6) {
				t.Fatalf("%s: swapped %+v, was %+v", name, e, d)
			}
			if e := d.At(0.001); e.Low > d.Low || e.High < d.High {
				t.Fatalf("%s: at 99.9 %% narrower: %+v, was %+v", name, e, d)
			}
		}
	}
}

func TestDifferenceBadInput(t *testing.T) {
	t.Parallel()
	six := []float64{1, 2, 3, 4, 5, 6}
	for _, tt := range [][2][]float64{
		{nil, nil},
		{six, nil},
		{{1, 2, 3, 4, 5, 0}, six},
		{six, {1, 2, 3, 4, 5, -6}},
		{six, {1, 2, 3, 4, 5, math.NaN()}},
		{six, {1, 2, 3, 4, 5, math.Inf(1)}},
	} {
		for _, d := range []Difference{Paired(tt[0], tt[1]), Unpaired(tt[0], tt[1])} {
			if !math.IsNaN(d.Median) || !math.IsNaN(d.Low) || d.P != 1 || Verdict(d, 2) != CannotTell {
				t.Errorf("%v: %+v", tt, d)
			}
		}
	}
	for n := 1; n < MinRounds; n++ {
		for _, d := range []Difference{Paired(six[:n], six[:n]), Unpaired(six[:n], six[:n])} {
			if d.Median != 0 || !math.IsNaN(d.Low) || Verdict(d, 2) != CannotTell {
				t.Errorf("%d rounds: %+v", n, d)
			}
		}
	}
}

func TestIdenticalSamples(t *testing.T) {
	t.Parallel()
	same := []float64{5, 5, 5, 5, 5, 5, 5}
	for _, d := range []Difference{Paired(same, same), Unpaired(same, same), PairedPrices(same, same), UnpairedPrices(same, same)} {
		if d.Median != 0 || d.Low != 0 || d.High != 0 || d.P != 1 {
			t.Errorf("%+v", d)
		}
		if got := Verdict(d, 2); !strings.HasPrefix(got, "no difference seen (would have seen 0.0") {
			t.Error(got)
		}
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, tt := range []struct {
		d         Difference
		threshold float64
		want      string
		beyond    bool
	}{
		{Difference{Median: 5, Low: 3, High: 7, P: 0.001, Smallest: 3}, 2, Slower, true},
		{Difference{Median: 5, Low: 1, High: 9, P: 0.01, Smallest: 6}, 2, Slower, false},
		{Difference{Median: 0.5, Low: 0.3, High: 0.7, P: 0.001, Smallest: 0.3}, 2, Slower, false},
		{Difference{Median: -5, Low: -7, High: -3, P: 0.001, Smallest: 3}, 2, Faster, false},
		{Difference{Median: 0.1, Low: -0.5, High: 0.7, P: 0.6, Smallest: 0.98}, 2, "no difference seen (would have seen 0.98 %)", false},
		{Difference{Median: 0.1, Low: -1.1, High: 1.3, P: 0.6, Smallest: 1.91}, 2, "no difference seen (would have seen 2.0 %)", false},
		{Difference{Median: 1.0, Low: -0.1, High: 2.1, P: 0.06, Smallest: 1.8}, 2, CannotTell, false},
		{Difference{Median: 0.1, Low: -3, High: 3, P: 0.6, Smallest: 5}, 2, CannotTell, false},
		{Difference{Median: 0.1, Low: -3, High: 3, P: 0.6, Smallest: 12.2}, 15, "no difference seen (would have seen 13 %)", false},
		{Difference{Median: 0.1, Low: -3, High: 3, P: 0.6, Smallest: 5}, 0, "no difference seen (would have seen 5.0 %)", false},
		{Difference{Median: 80, Low: nan, High: nan, P: 0.06, Smallest: nan}, 2, CannotTell, false},
	} {
		if got := Verdict(tt.d, tt.threshold); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.d, got, tt.want)
		}
		if got := Beyond(tt.d, tt.threshold); got != tt.beyond {
			t.Errorf("%+v: beyond %v, want %v", tt.d, got, tt.beyond)
		}
	}
}

func TestHolm(t *testing.T) {
	t.Parallel()
	got := Holm([]float64{0.01, 0.04, 0.03, 0.005, math.NaN()})
	want := []float64{0.04, 0.09, 0.09, 0.025, 1}
	for i := range want {
		if !near(got[i], want[i], 1e-12) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	if len(Holm(nil)) != 0 {
		t.Error("Holm(nil) is not empty")
	}
}

func TestFamily(t *testing.T) {
	t.Parallel()
	r := random(6)
	var ds []Difference
	for i := range 7 {
		a := lognormal(r, 20, 100, 0.05)
		b := slices.Clone(a)
		for j := range b {
			b[j] *= math.Exp(0.015*float64(i) + 0.02*r.NormFloat64())
		}
		ds = append(ds, Paired(a, b))
	}
	for i, d := range Family(ds) {
		if d.P < ds[i].P || d.Low > ds[i].Low && d.Low != 0 || d.High < ds[i].High && d.High != 0 || d.Median != ds[i].Median {
			t.Errorf("alone %+v, in family %+v", ds[i], d)
		}
		if d.P <= Alpha && d.Low < 0 && d.High > 0 {
			t.Errorf("significant across zero: %+v", d)
		}
	}
	if one := Family(ds[:1])[0]; one.Low != ds[0].Low || one.P != ds[0].P {
		t.Errorf("a family of one changed: %+v", one)
	}
	// Ranks of six rounds can call one difference, not seven at once: Student's t does.
	// Ranks of five can call none.
	a := []float64{1, 2, 3, 4, 5, 6}
	b := []float64{2.1, 4, 6.3, 8, 10.5, 12}
	for n, want := range map[int]string{6: Slower, 5: CannotTell} {
		few := slices.Repeat([]Difference{Paired(a[:n], b[:n])}, 7)
		for _, d := range Family(few) {
			if got := Verdict(d, 2); got != want {
				t.Errorf("%d rounds: %+v: %s, want %s", n, d, got, want)
			}
		}
	}
}

func TestDifferenceJSON(t *testing.T) {
	t.Parallel()
	d := Paired([]float64{1, 2, 3}, []float64{2, 4, 6})
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if want := `,"low":null,"high":null,"n":3,"unit":"percent","p":0.25,"smallest":null}`; !strings.HasSuffix(string(b), want) {
		t.Errorf("%s", b)
	}
	var e Difference
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	if e.Median != d.Median || !math.IsNaN(e.Low) || e.N != 3 || !math.IsNaN(e.At(0.01).High) {
		t.Errorf("read back %+v", e)
	}
}

func TestFormatPercent(t *testing.T) {
	t.Parallel()
	for x, want := range map[float64]string{0.981: "0.99", 1.9: "1.9", 1.91: "2.0", 12.2: "13", 0.05: "0.05", math.NaN(): "?"} {
		if got := FormatPercent(x); got != want {
			t.Errorf("FormatPercent(%v) = %q, want %q", x, got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	r := random(7)
	drifting, walking, bimodal := make([]float64, 30), make([]float64, 60), make([]float64, 30)
	step := 0.0
	for i := range drifting {
		drifting[i] = 100 * math.Exp(0.01*float64(i)+0.01*r.NormFloat64())
		bimodal[i] = 100*math.Exp(0.02*r.NormFloat64()) + 60*float64(r.IntN(2))
	}
	for i := range walking {
		step = 0.8*step + 0.03*r.NormFloat64()
		walking[i] = 100 * math.Exp(step)
	}
	for _, tt := range []struct {
		name, want string
		xs         []float64
	}{
		{"few", "5 rounds: a 95 % interval needs 6", []float64{1, 2, 3, 4, 5}},
		{"drift", "drifted by +3", drifting},
		{"correlated", "rounds follow their predecessors", walking},
		{"bimodal", "two modes, near ", bimodal},
		{"steady", "", lognormal(r, 30, 100, 0.05)},
		{"constant", "", slices.Repeat([]float64{5}, 30)},
	} {
		got := strings.Join(Warnings(tt.xs), "; ")
		if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	// Steady rounds seldom warn.
	warned := 0
	for range 500 {
		if len(Warnings(lognormal(r, 20, 100, 0.1))) > 0 {
			warned++
		}
	}
	if warned > 15 {
		t.Errorf("%d of 500 steady runs warned", warned)
	}
}

func BenchmarkPaired(b *testing.B) {
	r := random(8)
	x, y := lognormal(r, 60, 100, 0.1), lognormal(r, 60, 100, 0.1)
	b.ReportAllocs()
	for b.Loop() {
		Paired(x, y)
	}
}

func BenchmarkUnpaired(b *testing.B) {
	r := random(9)
	x, y := lognormal(r, 60, 100, 0.1), lognormal(r, 60, 100, 0.1)
	b.ReportAllocs()
	for b.Loop() {
		Unpaired(x, y)
	}
}

// The sample of a fleet is machines, of which there may be many: intervals of a hundred pairs and of a hundred and one, of
// the exact distribution and of the normal one, are as wide, and fifty thousand pairs take little memory.
func TestManyPairs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	of := func(n int) (a, b []float64) {
		for range n {
			x := 100 + r.NormFloat64()
			a, b = append(a, x), append(b, x*1.01*(1+r.NormFloat64()/100))
		}
		return a, b
	}
	a, b := of(101)
	exact, normal := Paired(a[:100], b[:100]), Paired(a, b)
	if w, v := exact.High-exact.Low, normal.High-normal.Low; math.Abs(w/v-1) > 0.05 || math.Abs(exact.Low-normal.Low) > w/10 {
		t.Errorf("100 pairs: %v, 101 pairs: %v", exact, normal)
	}
	d := Paired(of(50_000))
	if math.Abs(d.Median-1) > 0.05 || d.High-d.Low > 0.05 || d.High-d.Low < 0.005 || d.P > 1e-9 {
		t.Errorf("50 000 pairs: %v [%v, %v], p %v", d.Median, d.Low, d.High, d.P)
	}
}

// Samples of independent machines have no drift: their order says nothing, and intervals are narrower than those of runs.
func TestIndependent(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var a, b []float64
	for range 60 {
		a, b = append(a, 100+r.NormFloat64()), append(b, 102+r.NormFloat64())
	}
	d, again := Independent(a, b), Independent(sorted(a), sorted(b))
	if d.Low != again.Low || d.High != again.High || !(d.Low > 1.3 && d.High < 2.7 && d.P < 1e-6) {
		t.Errorf("%v, sorted %v", d, again)
	}
	if run := Unpaired(a, b); run.High-run.Low < d.High-d.Low {
		t.Errorf("runs that may drift: %v, machines: %v", run, d)
	}
	prices := IndependentPrices([]float64{-1, 0, 1, 2, 3, 4, 5}, []float64{1, 2, 3, 4, 5, 6, 7})
	if prices.Median != 100 || prices.N != 7 {
		t.Errorf("prices of 2 and of 4 ns: %v", prices)
	}
	if none := Independent(nil, b); !math.IsNaN(none.Median) {
		t.Errorf("nothing: %v", none)
	}
}
