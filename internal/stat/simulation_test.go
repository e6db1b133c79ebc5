package stat

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// The simulations print their table with
//
//	go test ./stat -run Simulation -v

// machine is a simulated machine. Its speed is a sum of a stationary AR(1)
// process and a random walk, both of logarithms and both running on while
// nothing is measured; every round adds its own layout and noise.
type machine struct {
	r     *rand.Rand
	noise float64 // standard deviation of a round
	ar    float64 // stationary standard deviation of the AR(1) process
	rho   float64 // its correlation from round to round
	walk  float64 // standard deviation of one step of the walk
	modes float64 // half the rounds are slower by this

	arNow, walkNow float64
}

func (m *machine) start() { m.arNow, m.walkNow = m.ar*m.r.NormFloat64(), 0 }

func (m *machine) pass(rounds int) {
	for range rounds {
		m.arNow = m.rho*m.arNow + m.ar*math.Sqrt(1-m.rho*m.rho)*m.r.NormFloat64()
		m.walkNow += m.walk * m.r.NormFloat64()
	}
}

func (m *machine) round() float64 {
	x := m.arNow + m.walkNow + m.noise*m.r.NormFloat64()
	if m.modes > 0 && m.r.IntN(2) == 0 {
		x += m.modes
	}
	return 100 * math.Exp(x)
}

func (m *machine) run(rounds int) []float64 {
	xs := make([]float64, rounds)
	for i := range xs {
		m.pass(1)
		xs[i] = m.round()
	}
	return xs
}

// pair is two rows of one run, the second slower by a factor.
func (m *machine) pair(rounds int, factor float64) (a, b []float64) {
	for range rounds {
		m.pass(1)
		a = append(a, m.round())
		b = append(b, m.round()*factor)
	}
	return a, b
}

// slack is how many of n events of probability p a fair count may show and
// still pass: three standard deviations more.
func slack(n int, p float64) int {
	return int(float64(n)*p + 3*math.Sqrt(float64(n)*p*(1-p)))
}

func TestSimulationCoverage(t *testing.T) {
	t.Parallel()
	const tries = 4000
	for _, rounds := range []int{6, 10, 20, 40} {
		for name, m := range map[string]*machine{
			"normal":  {noise: 0.1},
			"bimodal": {noise: 0.03, modes: 0.3},
		} {
			m.r = random(uint64(rounds))
			m.start()
			truth := 100 * math.Exp(m.modes/2) // the median of either
			missed := 0
			for range tries {
				q := Summarize(m.run(rounds), "ns")
				if truth < q.Low || truth > q.High {
					missed++
				}
			}
			t.Logf("%-8s %2d rounds: interval encloses the median in %.1f %%", name, rounds, 100-100*float64(missed)/tries)
			if missed > slack(tries, 0.05) {
				t.Errorf("%s, %d rounds: interval missed the median in %d of %d", name, rounds, missed, tries)
			}
		}
	}
}

func TestSimulationPaired(t *testing.T) {
	t.Parallel()
	const tries = 2000
	for _, m := range []*machine{
		{noise: 0.02},
		{noise: 0.02, ar: 0.15, rho: 0.97, walk: 0.02},
		{noise: 0.02, modes: 0.2},
	} {
		for _, rounds := range []int{6, 10, 20, 40} {
			m.r = random(uint64(100 + rounds))
			alarms, found, missed := 0, 0, 0
			for range tries {
				m.start()
				if d := Paired(m.pair(rounds, 1)); d.P <= Alpha {
					alarms++
				}
				d := Paired(m.pair(rounds, 1.03))
				if d.P <= Alpha && d.Median > 0 {
					found++
				}
				if d.Low > 3 || d.High < 3 {
					missed++
				}
			}
			t.Logf("one run, %2d rounds, noise %.0f %%, modes %2.0f %% apart, drift %2.0f %%: A/A alarms %4.1f %%, coverage "+
				"%.1f %%, 3 %% found in %5.1f %%",
				rounds, 100*m.noise, 100*m.modes, 100*m.ar, pct(alarms, tries), 100-pct(missed, tries), pct(found, tries))
			if alarms > slack(tries, 0.05) || missed > slack(tries, 0.05) {
				t.Errorf("%d rounds: %d alarms, %d missed of %d", rounds, alarms, missed, tries)
			}
		}
	}
}

func pct(k, n int) float64 { return 100 * float64(k) / float64(n) }

// A/A of two runs on a drifting machine, with a pause between them. The drift
// remembers for a share of the run's length. Alarms are held to 5 % as long as
// that is no more than the run itself; the rest shows where the limits are.
func TestSimulationUnpaired(t *testing.T) {
	t.Parallel()
	const tries = 1000
	type kind struct {
		name string
		m    machine
		held bool // to 5 %
	}
	ar := func(sd, rounds float64) machine {
		return machine{noise: 0.05, ar: sd, rho: math.Exp(-1 / rounds)}
	}
	for _, rounds := range []int{10, 20, 40} {
		n := float64(rounds)
		kinds := []kind{
			{"steady", machine{noise: 0.05}, true},
			{"two modes", machine{noise: 0.03, modes: 0.3}, true},
			{"AR(1) 10 %, run/10", ar(0.1, n/10), true},
			{"AR(1) 10 %, run/3", ar(0.1, n/3), true},
			{"AR(1) 10 %, run", ar(0.1, n), rounds >= 20},
			{"AR(1) 30 %, run", ar(0.3, n), rounds >= 20},
			{"AR(1) 10 %, 3 runs", ar(0.1, 3*n), false},
			{"AR(1) 30 %, 3 runs", ar(0.3, 3*n), false},
			{"walk 2 % a round", machine{noise: 0.05, walk: 0.02}, false},
			{"AR(1) 10 % + walk 1 %", machine{noise: 0.05, ar: 0.1, rho: math.Exp(-3 / n), walk: 0.01}, false},
		}
		for _, k := range kinds {
			line := fmt.Sprintf("two runs, %2d rounds, %-21s alarms", rounds, k.name)
			for _, pause := range []int{0, 200} {
				m := k.m
				m.r = random(uint64(1000*rounds + pause))
				alarms, found := 0, 0
				smallest := make([]float64, 0, tries)
				for range tries {
					m.start()
					a := m.run(rounds)
					m.pass(pause)
					b := m.run(rounds)
					d := Unpaired(a, b)
					if d.P <= Alpha {
						alarms++
					}
					smallest = append(smallest, d.Smallest)
					for i := range b {
						b[i] *= 1.5
					}
					if d := Unpaired(a, b); d.P <= Alpha && d.Median > 0 {
						found++
					}
				}
				line += fmt.Sprintf(" %4.1f %% (pause %d),", pct(alarms, tries), pause)
				if pause == 0 {
					line += fmt.Sprintf(" smallest %3.0f %%, 1.5x found %3.0f %%;", Median(smallest), pct(found, tries))
				}
				if k.held && alarms > slack(tries, 0.05) {
					t.Errorf("%d rounds, %s, pause %d: %d alarms of %d", rounds, k.name, pause, alarms, tries)
				}
			}
			t.Log(line)
		}
	}
}

// A ladder of rows of two equal runs: how often is any called different?
func TestSimulationFamily(t *testing.T) {
	t.Parallel()
	const tries, rows, rounds = 500, 7, 20
	m := &machine{r: random(11), noise: 0.03}
	m.start()
	alarms := 0
	for range tries {
		var ds []Difference
		for range rows {
			ds = append(ds, Paired(m.pair(rounds, 1)))
		}
		for _, d := range Family(ds) {
			if d.P <= Alpha {
				alarms++
				break
			}
		}
	}
	t.Logf("%d rows, %d rounds: any alarm in %.1f %%", rows, rounds, pct(alarms, tries))
	if alarms > slack(tries, 0.05) {
		t.Errorf("%d alarms of %d", alarms, tries)
	}
}

// The smallest difference that would have been seen is seen nine times in ten.
func TestSimulationSmallest(t *testing.T) {
	t.Parallel()
	const tries, rounds = 1000, 25
	m := &machine{r: random(12), noise: 0.04}
	m.start()
	var smallest []float64
	for range tries {
		smallest = append(smallest, Paired(m.pair(rounds, 1)).Smallest)
	}
	factor := 1 + Median(smallest)/100
	found := 0
	for range tries {
		if Paired(m.pair(rounds, factor)).P <= Alpha {
			found++
		}
	}
	t.Logf("a difference of %.2f %% was found in %.1f %%", 100*factor-100, pct(found, tries))
	if share := pct(found, tries); share < 86 || share > 96 {
		t.Errorf("found in %.1f %%, want about 90", share)
	}
}

// caller is a simulated call. Times are in ns. The machine's speed scales all
// times of a round, the round's layout adds to all, and each has noise of its
// own.
type caller struct {
	machine
	price, without float64
	layout         float64 // mean of what the round adds, exponential
	own            float64 // standard deviation of a time's own noise
	skewed         bool    // which is exponential then, else normal
}

// times are the rounds' times of calls of the given prices; each call also has
// a side without it, of the same rounds.
func (c *caller) times(rounds int, prices ...float64) (with, without [][]float64) {
	with, without = make([][]float64, len(prices)), make([][]float64, len(prices))
	for range rounds {
		c.pass(1)
		speed, layout := c.round()/100, c.layout*c.r.ExpFloat64()
		time := func(ns float64) float64 {
			noise := c.r.NormFloat64()
			if c.skewed {
				noise = c.r.ExpFloat64()
			}
			return speed*ns + layout + c.own*noise
		}
		for i, price := range prices {
			with[i] = append(with[i], time(c.without+price))
			without[i] = append(without[i], time(c.without))
		}
	}
	return with, without
}

// priced are the rounds' prices of such calls.
func (c *caller) priced(rounds int, prices ...float64) [][]float64 {
	with, without := c.times(rounds, prices...)
	for i := range with {
		for j := range with[i] {
			with[i][j] -= without[i][j]
		}
	}
	return with
}

// The interval of a price holds it, though both sides are skewed, share what
// befalls a round, or are the same. A price that itself drifts from round to
// round is covered less: that is for [Warnings] to say.
func TestSimulationShift(t *testing.T) {
	t.Parallel()
	const tries = 2000
	for _, k := range []struct {
		name string
		c    caller
	}{
		{"normal", caller{price: 5, own: 1}},
		{"skewed", caller{price: 5, own: 1, skewed: true}},
		{"skewed, layout", caller{price: 5, own: 0.5, skewed: true, layout: 4}},
		{"skewed, layout, speed", caller{price: 5, own: 0.5, skewed: true, layout: 4, machine: machine{noise: 0.05}}},
		{"alike", caller{own: 1}},
		{"alike, skewed, drifting", caller{own: 1, skewed: true, layout: 4, machine: machine{ar: 0.15, rho: 0.97, walk: 0.02}}},
	} {
		k.c.without = 8
		for _, rounds := range []int{6, 10, 20, 40, 120} {
			k.c.r = random(uint64(20 + rounds))
			missed := 0
			for range tries {
				k.c.start()
				with, without := k.c.times(rounds, k.c.price)
				if q := Shift(with[0], without[0], "ns"); k.c.price < q.Low || k.c.price > q.High {
					missed++
				}
			}
			t.Logf("%-23s %3d rounds: interval encloses the price in %.1f %%", k.name, rounds, 100-pct(missed, tries))
			if missed > slack(tries, 0.05) {
				t.Errorf("%s, %d rounds: interval missed the price in %d of %d", k.name, rounds, missed, tries)
			}
		}
	}
}

// Two prices of one run, alike and one higher by half. Coverage is that of the
// difference in ns; a price that drifts has none to cover.
func TestSimulationPairedPrices(t *testing.T) {
	t.Parallel()
	const tries = 2000
	for _, k := range []struct {
		name string
		c    caller
		held bool // the coverage
	}{
		{"normal", caller{own: 0.7}, true},
		{"skewed", caller{own: 0.7, skewed: true, layout: 4, machine: machine{noise: 0.03}}, true},
		{"drifting", caller{own: 0.7, skewed: true, machine: machine{ar: 0.15, rho: 0.97}}, false},
	} {
		k.c.price, k.c.without = 5, 8
		for _, rounds := range []int{6, 10, 20, 40} {
			k.c.r = random(uint64(300 + rounds))
			alarms, found, missed := 0, 0, 0
			for range tries {
				k.c.start()
				ps := k.c.priced(rounds, k.c.price, k.c.price, 1.5*k.c.price)
				if d := PairedPrices(ps[0], ps[1]); d.P <= Alpha {
					alarms++
				}
				d := PairedPrices(ps[0], ps[2])
				if d.P <= Alpha && d.Median > 0 {
					found++
				}
				if truth := 100 * 0.5 * k.c.price / Median(ps[0]); d.Low > truth || d.High < truth {
					missed++
				}
			}
			t.Logf("prices of one run, %2d rounds, %-8s: A/A alarms %4.1f %%, coverage %.1f %%, 50 %% found in %5.1f %%",
				rounds, k.name, pct(alarms, tries), 100-pct(missed, tries), pct(found, tries))
			if alarms > slack(tries, 0.05) || k.held && missed > slack(tries, 0.05) {
				t.Errorf("%d rounds, %s: %d alarms, %d missed of %d", rounds, k.name, alarms, missed, tries)
			}
			if rounds >= 20 && found < tries*9/10 {
				t.Errorf("%d rounds, %s: 50 %% found in %d of %d", rounds, k.name, found, tries)
			}
		}
	}
}

// A/A of a price in two runs, and one that doubled. The price is small against
// its noise, so that rounds of 0 and less occur. Drift is hard to see under such
// noise: the kinds that are not held to 5 % show where the limits are.
func TestSimulationUnpairedPrices(t *testing.T) {
	t.Parallel()
	const tries = 1000
	for _, rounds := range []int{10, 20, 40} {
		n := float64(rounds)
		for _, k := range []struct {
			name string
			m    machine
			held bool // to 5 %
		}{
			{"steady", machine{}, true},
			{"AR(1) 10 %, run/3", machine{ar: 0.1, rho: math.Exp(-3 / n)}, true},
			{"AR(1) 10 %, run", machine{ar: 0.1, rho: math.Exp(-1 / n)}, false},
			{"AR(1) 30 %, run", machine{ar: 0.3, rho: math.Exp(-1 / n)}, false},
		} {
			c := caller{machine: k.m, price: 2, without: 8, own: 0.5}
			c.r = random(uint64(2000 + rounds))
			alarms, found, below := 0, 0, 0
			for range tries {
				c.start()
				a := c.priced(rounds, c.price)[0]
				c.pass(200)
				b := c.priced(rounds, c.price, 2*c.price)
				if d := UnpairedPrices(a, b[0]); d.P <= Alpha {
					alarms++
				}
				if d := UnpairedPrices(a, b[1]); d.P <= Alpha && d.Median > 0 {
					found++
				}
				for _, x := range a {
					if x <= 0 {
						below++
					}
				}
			}
			t.Logf("prices of two runs, %2d rounds, %-17s: alarms %4.1f %%, 2x found %3.0f %%, rounds below 0: %.1f %%",
				rounds, k.name, pct(alarms, tries), pct(found, tries), pct(below, tries*rounds))
			if k.held && alarms > slack(tries, 0.05) {
				t.Errorf("%d rounds, %s: %d alarms of %d", rounds, k.name, alarms, tries)
			}
			if rounds == 40 && k.m.ar == 0 && found < tries*9/10 {
				t.Errorf("%d rounds: 2x found in %d of %d", rounds, found, tries)
			}
		}
	}
}

// The smallest difference of a price is found nine times in ten as well.
func TestSimulationSmallestPrice(t *testing.T) {
	t.Parallel()
	const tries, rounds = 1000, 25
	c := caller{machine: machine{r: random(13)}, price: 5, without: 8, own: 0.7}
	var smallest []float64
	for range tries {
		ps := c.priced(rounds, c.price, c.price)
		smallest = append(smallest, PairedPrices(ps[0], ps[1]).Smallest)
	}
	percent := Median(smallest)
	found := 0
	for range tries {
		ps := c.priced(rounds, c.price, c.price*(1+percent/100))
		if PairedPrices(ps[0], ps[1]).P <= Alpha {
			found++
		}
	}
	t.Logf("a difference of %.1f %% of a price was found in %.1f %%", percent, pct(found, tries))
	if share := pct(found, tries); share < 86 || share > 96 {
		t.Errorf("found in %.1f %%, want about 90", share)
	}
}
