package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/rounds"
)

// lengthFlags say how long a run takes and where.
type lengthFlags struct {
	quick    bool
	rounds   int
	duration time.Duration
	cpu      int
}

// Sizes of a --quick run: the fewest rounds that have an interval, and one.
const (
	quickRounds   = 7
	quickDuration = 7 * time.Second
)

func (l *lengthFlags) add(cmd *cobra.Command, rounds int, duration time.Duration) {
	fl := cmd.Flags()
	fl.BoolVar(&l.quick, "quick", false, "finish in under 10 s")
	fl.IntVar(&l.rounds, "rounds", rounds, fmt.Sprintf("rounds, each on new chains (with --quick %d)", quickRounds))
	fl.DurationVar(&l.duration, "duration", duration,
		fmt.Sprintf("length of the whole run (with --quick %v)", quickDuration))
	fl.IntVar(&l.cpu, "cpu", -1, "CPU under test; -1 is the last one")
}

// schedule is that of a run.
func (l lengthFlags) schedule() rounds.Schedule {
	return rounds.Schedule{Rounds: l.rounds, Duration: l.duration}
}

// resolve applies --quick to what was not given, and checks the rest.
func (l lengthFlags) resolve(cmd *cobra.Command) (lengthFlags, error) {
	if l.quick && !cmd.Flags().Changed("rounds") {
		l.rounds = quickRounds
	}
	if l.quick && !cmd.Flags().Changed("duration") {
		l.duration = quickDuration
	}
	switch {
	case l.rounds < 1:
		return l, usagef("%d rounds are too few", l.rounds)
	case l.duration < time.Second:
		return l, usagef("a duration of %v is too short: 1s at least", l.duration)
	case l.cpu < -1:
		return l, usagef("CPU %d is not a CPU", l.cpu)
	}
	if l.cpu >= 0 {
		if _, err := rounds.OnCPU(l.cpu).Pick(); err != nil {
			return l, usageError{err}
		}
	}
	return l, nil
}
