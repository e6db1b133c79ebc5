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
			t.Logf("one run, %2d rounds, noise %.0f %%, modes %2.0f %% apart, drift %2.0f %%: A/A alarms %4.1f %%, coverage %.1f %%, 3 %% found in %5.1f %%",
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
