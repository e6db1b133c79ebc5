package rounds

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/stat"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	defaults := Schedule{Rounds: 15, Duration: 20 * time.Second}
	for _, test := range []struct {
		schedule Schedule
		want     string // in the error; empty when there is none
	}{
		{Schedule{}, ""},
		{Schedule{Rounds: 1, Duration: time.Second}, ""},
		{Schedule{Rounds: Max, Duration: 24 * time.Hour}, ""},
		{Schedule{Rounds: -1}, "-1 rounds are not within 1 … 10000"},
		{Schedule{Rounds: Max + 1}, "10001 rounds are not within 1 … 10000"},
		{Schedule{Duration: time.Millisecond}, "duration 1ms is not within 1s … 24h"},
		{Schedule{Duration: 25 * time.Hour}, "duration 25h0m0s is not within 1s … 24h"},
	} {
		got := ""
		if err := test.schedule.Or(defaults).Validate(); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%+v: error %q, want %q", test.schedule, got, test.want)
		}
	}
	if got, want := (Schedule{Rounds: 3}).Or(defaults), (Schedule{Rounds: 3, Duration: 20 * time.Second}); got != want {
		t.Errorf("defaults make %+v, want %+v", got, want)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	var numbers []int
	var shown []Progress
	o, err := Schedule{Rounds: 3, Duration: time.Hour}.Run(t.Context(), func(p Progress) { shown = append(shown, p) },
		func(r Round) error {
			numbers = append(numbers, r.Number)
			r.Show("a row")
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Outcome{Begun: 3, Planned: 3}, o); diff != "" || o.Warning() != "" {
		t.Errorf("outcome (-want +got):\n%swarning %q", diff, o.Warning())
	}
	if diff := cmp.Diff([]int{0, 1, 2}, numbers); diff != "" {
		t.Errorf("rounds (-want +got):\n%s", diff)
	}
	for i, p := range shown {
		if p.Left <= 0 || p.Left > time.Hour {
			t.Errorf("round %d: %v left of an hour", i, p.Left)
		}
		shown[i].Left = 0
	}
	want := []Progress{
		{Round: 1, Rounds: 3, What: "a row"}, {Round: 2, Rounds: 3, What: "a row"}, {Round: 3, Rounds: 3, What: "a row"},
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
}

// The first rounds are run however late it is: without them there is no interval.
func TestRunOutOfTime(t *testing.T) {
	t.Parallel()
	o, err := Schedule{Rounds: 20}.Run(t.Context(), nil, func(r Round) error {
		r.Show("nobody is told")
		return nil
	})
	if want := (Outcome{Begun: stat.MinRounds, Planned: 20}); err != nil || o != want {
		t.Errorf("outcome %+v, error %v, want %+v", o, err, want)
	}
	if got, want := o.Warning(), "6 of 20 rounds fitted into the duration"; got != want {
		t.Errorf("warning %q, want %q", got, want)
	}
}

func TestRunEnds(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, test := range []struct {
		name    string
		measure func(Round) error
		want    Outcome
		err     error
	}{
		{"error", func(Round) error { return broken }, Outcome{Begun: 1, Planned: 9}, broken},
		{"stopped", func(r Round) error {
			if r.Number == 2 {
				cancel()
			}
			return ctx.Err()
		}, Outcome{Begun: 3, Planned: 9, Incomplete: true}, nil},
	} {
		o, err := Schedule{Rounds: 9, Duration: time.Hour}.Run(ctx, nil, test.measure)
		if o != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: outcome %+v, error %v, want %+v, %v", test.name, o, err, test.want, test.err)
		}
		if w := o.Warning(); test.want.Incomplete && w != "" {
			t.Errorf("%s: warning %q", test.name, w)
		}
	}
}

// A round gets an equal share of what is left when it asks.
func TestEnd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		number int
		left   time.Duration
		want   time.Duration
	}{
		{0, time.Hour, 15 * time.Minute},
		{2, time.Hour, 30 * time.Minute},
		{3, time.Hour, time.Hour},
		{3, -time.Hour, -time.Hour},
	} {
		before := time.Now()
		got := Round{Number: test.number, rounds: 4, end: before.Add(test.left)}.End()
		after := time.Now()
		if got.Before(before.Add(test.want)) || got.After(after.Add(test.want)) {
			t.Errorf("round %d of 4 with %v left ends in %v, want %v", test.number, test.left, got.Sub(before), test.want)
		}
	}
}

func TestCPU(t *testing.T) {
	t.Parallel()
	usable, err := UsableCPUs()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []CPU{{}, OnCPU(-1)} {
		if got, err := c.Pick(); err != nil || got != usable[len(usable)-1] {
			t.Errorf("%+v picks %d, error %v; usable are %v", c, got, err, usable)
		}
		if _, given := c.Number(); given {
			t.Errorf("%+v has a number", c)
		}
	}
	if got, err := OnCPU(usable[0]).Pick(); err != nil || got != usable[0] {
		t.Errorf("CPU %d picks %d, error %v", usable[0], got, err)
	}
	if n, given := OnCPU(7).Number(); n != 7 || !given {
		t.Errorf("CPU 7 is CPU %d, given %v", n, given)
	}
	if _, err := OnCPU(1 << 20).Pick(); err == nil || !strings.Contains(err.Error(), "CPU 1048576 is not one of") {
		t.Errorf("CPU 1048576: error %v", err)
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	var s Slots
	for i := range 100 {
		s.Add(i >= 5)
	}
	if s.Unusable() || s.Warning() != "5 of 100 slots left out: their packet counts disagreed" {
		t.Errorf("%+v: unusable %v, warning %q", s, s.Unusable(), s.Warning())
	}
	s.Bad++
	if !s.Unusable() {
		t.Errorf("%+v are usable", s)
	}
	if w := (Slots{All: 100}).Warning(); w != "" {
		t.Errorf("no bad slot: warning %q", w)
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	c := Counts{Sent: 2, Redirected: 2, Received: 3}
	c.Add(Counts{Sent: 1, Redirected: 1, Received: 3})
	for _, test := range []struct {
		counts Counts
		copies uint64
		want   bool
	}{
		{c, 2, true}, {c, 1, false}, {Counts{}, 1, false}, {Counts{3, 2, 2}, 1, false}, {Counts{3, 3, 3}, 1, true},
	} {
		if got := test.counts.Agree(test.copies); got != test.want {
			t.Errorf("%+v with %d copies agree: %v", test.counts, test.copies, got)
		}
	}
	err := c.Disagree()
	if want := "packet counts disagree: 3 sent, 3 redirected, 6 received"; err.Error() != want || !errors.Is(err, ErrDisagree) {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	if got := QuickHalf([]float64{100, 1, 3}); got != 2 {
		t.Errorf("the mean of the smaller half of 100, 1, 3 is %v, want 2", got)
	}
	xs := []float64{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}
	if got := Undisturbed(xs); got != stat.Quantile(xs, 0.1) || got < 1 || got > 3 {
		t.Errorf("the 10th percentile of 1 … 11 is %v", got)
	}
}
