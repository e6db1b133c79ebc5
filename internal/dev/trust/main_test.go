package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/verify"
)

// The test binary is a busy loop too.
func TestMain(m *testing.M) {
	if isLoad() {
		return
	}
	testutil.NoLeaks(m)
}

// saved is a run whose rows take factor times what they usually do, with steady references.
func saved(run string, seed uint64, factor float64) *record.Saved {
	doc := recordtest.Ladder(run, seed, factor)
	var refs []record.Reference
	for _, name := range []string{record.CoreClock, record.KernelLoop, record.NearWalk, record.FarWalk} {
		r := record.Reference{Name: name, Rounds: doc.Rows[0].Rounds}
		for i := range r.Rounds {
			r.Samples = append(r.Samples, 1+0.001*float64(i%3))
		}
		q := stat.Summarize(r.Samples, record.ReferenceUnit(name))
		r.Value = &q
		refs = append(refs, r)
	}
	doc.AddReferences("", refs)
	return record.NewSaved(doc)
}

// place is that of a situation.
func place(t *testing.T, name string) int {
	t.Helper()
	for i, s := range situations() {
		if s.name == name {
			return i
		}
	}
	t.Fatalf("no situation %q", name)
	return 0
}

// Records that were kept are judged, what is simulated of them too.
func TestJudge(t *testing.T) {
	t.Parallel()
	p := plan{folder: t.TempDir()}
	two := situations()[place(t, "two runs")]
	for n, factor := range []float64{1, 1, 1.5, 0.7} {
		one := outcome{runs: []*record.Saved{saved("a", uint64(n)+10, 1), saved("b", uint64(n)+50, factor)}}
		if err := p.save(one, two, n); err != nil {
			t.Fatal(err)
		}
	}
	found, err := p.judge()
	if err != nil {
		t.Fatal(err)
	}
	got := found.tallies[place(t, "two runs")]
	if got.tries != 4 || got.faster != 1 || got.slower != 1 || got.called != 2 || got.called+got.moved+got.open+got.none != 4 {
		t.Errorf("%+v", got)
	}
	// Half the speed explains a path of 1.4 or 2 times the time, not one of 3.
	if half := found.tallies[place(t, "half the speed, simulated")]; half.tries != 4 || half.moved+half.called != 4 ||
		half.slower != 1 || half.plain < 3 {
		t.Errorf("half the speed: %+v", half)
	}
	if pace := found.tallies[place(t, "slower clock, same path, simulated")]; pace.tries != 4 || pace.moved < 2 {
		t.Errorf("same path: %+v", pace)
	}
	var out bytes.Buffer
	found.write(&out)
	if rows := strings.Count(out.String(), "\n"); rows != 2+4 || !strings.Contains(out.String(), "| two runs | 4 | 1 | 1 |") {
		t.Errorf("table:\n%s", out.String())
	}
	// A hole between tries is passed over.
	if err := os.Remove(p.file(two, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if found, err := p.judge(); err != nil || found.tallies[place(t, "two runs")].tries != 3 {
		t.Errorf("with a hole: %+v, %v", found, err)
	}
	// A row without a number in a try is one that cannot be told of.
	refused := outcome{runs: []*record.Saved{saved("a", 1, 1), saved("b", 2, 1)}}
	rows := refused.runs[1].Bench().Rows
	for i := range rows {
		rows[i] = record.BenchRow{Name: rows[i].Name, Labels: rows[i].Labels, Refused: "packet counts disagree"}
	}
	var y trust
	if _, err := y.add(place(t, "two runs"), refused); err != nil || y.tallies[place(t, "two runs")].open != 1 {
		t.Errorf("refused: %+v, %v", y.tallies, err)
	}
	out.Reset()
	if y.write(&out); !strings.Contains(out.String(), "| two runs | 1 | 0 | 0 | 0 | 1 | 0 | 0 | – | – |") {
		t.Errorf("table:\n%s", out.String())
	}
	// A try that has records is not made again.
	if one, err := p.load(two, 3); err != nil || len(one.runs) != 2 {
		t.Errorf("%+v, %v", one, err)
	}
}

func TestStages(t *testing.T) {
	t.Parallel()
	q := func(x float64) *stat.Quantity { return &stat.Quantity{Median: x, Low: x, High: x, N: 7, Unit: "ns"} }
	made := func(receive, small float64, cannotTell string) *record.Profile {
		p := &record.Profile{}
		p.Packet, p.CannotTell = q(100), cannotTell
		p.Rows = []record.ProfileRow{
			{Name: "receive", Ns: q(receive)}, {Name: "locks", Ns: q(small)}, {Name: record.Unattributed, Ns: q(20)},
		}
		return p
	}
	var s stages
	quiet := made(50, 0.5, "")
	for _, busy := range []*record.Profile{made(54, 4, ""), made(57, 1, ""), made(99, 1, "busy"), made(46, 1, ""),
		made(54, 2, ""), made(57, 1, ""), made(50, 0, "")} {
		s.add(quiet, busy)
	}
	if name, percent := s.worst(); name != "receive" || math.Abs(percent-6) > 1e-9 { // locks are too small a stage
		t.Errorf("worst is %s by %v %%", name, percent)
	}
	var out bytes.Buffer
	s.write(&out)
	const want = `
7 pairs of profiles; in 1 of them one cannot tell

| stage | ns quiet | ns busy | change in % |
|---|---|---|---|
| packet | 100.0 | 100.0 | 0.00 [0.00, 0.00] |
| receive | 50.0 | 53.0 | +6.0 [-3.0, +15.0] |
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// A loop runs where it was told to, and ends with its load.
func TestLoad(t *testing.T) {
	cpu, err := rounds.CPU{}.Pick()
	if err != nil {
		t.Fatal(err)
	}
	children := func() []int { return testutil.Children(t, os.Getpid()) }
	if had := children(); len(had) > 0 {
		t.Fatalf("children %v before", had)
	}
	end := load{loops: []loop{{cpus: []int{cpu}}, {cpus: []int{cpu}, memory: true}}}.start(0)
	var pids []int
	for deadline := time.Now().Add(20 * time.Second); len(pids) < 2 && time.Now().Before(deadline); {
		pids = children()
		time.Sleep(10 * time.Millisecond)
	}
	if len(pids) != 2 {
		t.Errorf("children %v, want 2", pids)
	}
	for _, pid := range pids {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &set); err != nil || set.Count() != 1 || !set.IsSet(cpu) {
			t.Errorf("a loop may run on %d CPUs, error %v; want CPU %d", set.Count(), err, cpu)
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if left := children(); len(left) > 0 {
		t.Errorf("children %v are left", left)
	}
}

// A process goes into a group with half of a CPU, and comes back.
func TestHalve(t *testing.T) {
	testutil.Root(t)
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	lift, err := halve()
	if err != nil {
		testutil.Missing(t, "a control group for the time of CPUs: "+err.Error())
	}
	within, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || !strings.Contains(string(within), "unthunk-trust") {
		t.Errorf("in %s, error %v", within, err)
	}
	if err := lift(); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile("/proc/self/cgroup"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("in %s, error %v; before in %s", after, err, before)
	}
}

// Verdicts hold at 95 %: three false ones of ten come in 1.2 % of the cases.
func falseVerdicts(found *trust) verify.Finding {
	f := verify.Finding{Holds: true}
	var figures []string
	for i, s := range situations() {
		if y := found.tallies[i]; y != nil {
			figures = append(figures, fmt.Sprintf("%s: %d of %d", s.name, y.called, y.tries))
			f.Holds = f.Holds && y.called <= 2
		}
	}
	f.Figure = strings.Join(figures, "; ")
	return f
}

func TestVerifyVerdicts(t *testing.T) {
	check := verify.Check{Claim: "of 10 tries of each situation at most 2 call a row faster or slower where nothing differs"}
	verifyTrust(t, check, 3*time.Second, []string{"one run", "two runs", "half", "slower memory", "slower clock"}, falseVerdicts)
}

func TestVerifyVerdictsOnChange(t *testing.T) {
	check := verify.Check{
		Claim: "of 10 tries in which the machine changes at most 2 call a row faster or slower", Disturbing: true,
	}
	verifyTrust(t, check, 3*time.Second, []string{"speed", "busy"}, falseVerdicts)
}

func TestVerifySlower(t *testing.T) {
	check := verify.Check{Claim: "8 of 10 tries or more call what is slower: by 10 % in one run, by 40 % in two"}
	verifyTrust(t, check, 3*time.Second, []string{"slower, "}, func(found *trust) verify.Finding {
		f := verify.Finding{Holds: true}
		var figures []string
		for i, s := range situations() {
			if y := found.tallies[i]; y != nil {
				figures = append(figures, fmt.Sprintf("%s: %d of %d", s.title(), y.slower, y.tries))
				f.Holds = f.Holds && y.slower >= 8
			}
		}
		f.Figure = strings.Join(figures, "; ")
		return f
	})
}

func TestVerifyBusyStages(t *testing.T) {
	check := verify.Check{
		Claim: "with four busy loops each stage of 5 % of a packet or more is on average within 10 % of the quiet machine's",
		// Half of the runs are disturbed by what the check is about.
		Disturbing: true,
	}
	verifyTrust(t, check, 5*time.Second, []string{"profiles"}, func(found *trust) verify.Finding {
		s := found.stages
		if told := s.tries - s.unknown; told < stat.MinRounds { // chance alone moves a mean of few by 10 %
			return verify.Finding{Unknown: fmt.Sprintf("%d of %d pairs can tell", told, s.tries)}
		}
		name, percent := s.worst()
		_, _, packet := change(s.pairs[record.PacketRow])
		return verify.Finding{
			Figure: fmt.Sprintf("packet %+.1f %%, %s %+.1f %%; in %d of %d pairs one cannot tell", packet.Median, name, percent,
				s.unknown, s.tries),
			Holds: math.Abs(percent) <= 10,
		}
	})
}

// verifyTrust makes ten tries of situations, and judges what came of them.
func verifyTrust(
	t *testing.T, check verify.Check, length time.Duration, only []string, judge func(*trust) verify.Finding,
) {
	t.Helper()
	testutil.Root(t)
	var err error
	if check.CPU, err = (rounds.CPU{}).Pick(); err != nil {
		t.Fatal(err)
	}
	check.Measure = func(t *testing.T, short bool) verify.Finding {
		p := plan{tries: 10, duration: length, only: only}
		if short {
			p.tries, p.duration = 1, time.Second
		}
		found, err := p.run(t.Context(), t.Output())
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		return judge(found)
	}
	verify.Run(t, check)
}
