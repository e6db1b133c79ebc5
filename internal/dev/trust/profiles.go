package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/profile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

const (
	// sampleRate is high enough that chance moves a stage of leastStage by a few percent in some seconds, in Hz.
	sampleRate = 4000
	// leastStage is the least share of a packet of a stage that [stages.worst] looks at, in percent.
	leastStage = 5
)

// shownStage is the least share of a packet of a stage that is in the table, in percent.
const shownStage = 1

// profileRun is `unthunk profile --quick --rate 4000 --duration …`.
func profileRun(ctx context.Context, d time.Duration) (*record.Profile, error) {
	doc := record.New[record.ProfileRow]("profile", host.Identify(host.Options{}))
	raw, err := profile.Run(ctx, profile.Plan{
		Chain: redirect.Plan{Schedule: rounds.Schedule{Rounds: quickRounds, Duration: d}}, Rate: sampleRate,
	}, nil)
	if err != nil {
		return nil, err
	}
	if raw.Incomplete {
		return nil, context.Cause(ctx)
	}
	p := raw.Record(nil)
	doc.Rows, doc.Warnings = p.Rows, p.Warnings
	doc.AddReferences("", raw.References)
	p.Document = *doc
	return p, nil
}

// stages are pairs of profiles, of a quiet machine and of a busy one.
type stages struct {
	tries int
	// unknown are those in which one of the two says that it cannot tell.
	unknown int
	// names are the whole packet and the stages in order, pairs what they took in the others, in ns.
	names []string
	pairs map[string][][2]float64
}

// add judges a pair, and says what came of it.
func (s *stages) add(quiet, busy *record.Profile) (said string) {
	s.tries++
	for _, p := range []*record.Profile{quiet, busy} {
		if p.CannotTell != "" {
			s.unknown++
			return "cannot tell: " + p.CannotTell
		}
	}
	if s.pairs == nil {
		s.pairs = make(map[string][][2]float64)
	}
	var texts []string
	pair := func(name string, quiet, busy float64) {
		if s.pairs[name] == nil {
			s.names = append(s.names, name)
		}
		s.pairs[name] = append(s.pairs[name], [2]float64{quiet, busy})
		texts = append(texts, fmt.Sprintf("%s %.1f to %.1f", name, quiet, busy))
	}
	pair(record.PacketRow, quiet.Packet.Median, busy.Packet.Median)
	for _, stage := range functions.Stages() {
		was, is := stageNs(quiet, stage), stageNs(busy, stage)
		if stage != functions.StageUnattributed && (was > 0 || is > 0) {
			pair(string(stage), was, is)
		}
	}
	return strings.Join(texts, ", ") + " ns"
}

// stageNs is what a stage takes, 0 where it has no sample.
func stageNs(p *record.Profile, stage functions.Stage) float64 {
	for _, row := range p.Rows {
		if row.Name == string(stage) {
			return row.Ns.Median
		}
	}
	return 0
}

// change is the mean difference of pairs in percent of the mean on the quiet machine, with that mean and the busy one's.
func change(pairs [][2]float64) (quiet, busy float64, percent stat.Quantity) {
	for _, p := range pairs {
		quiet += p[0] / float64(len(pairs))
		busy += p[1] / float64(len(pairs))
	}
	var changes []float64
	for _, p := range pairs {
		changes = append(changes, 100*(p[1]-p[0])/quiet)
	}
	return quiet, busy, stat.Mean(changes, "percent")
}

// worst is the stage of leastStage or more that differs most, and by how much in percent.
func (s *stages) worst() (name string, percent float64) {
	packet, _, _ := change(s.pairs[record.PacketRow])
	for _, stage := range s.names {
		quiet, _, d := change(s.pairs[stage])
		if quiet >= leastStage*packet/100 && math.Abs(d.Median) >= math.Abs(percent) {
			name, percent = stage, d.Median
		}
	}
	return name, percent
}

// write prints the table.
func (s *stages) write(w io.Writer) {
	fmt.Fprintf(w, "\n%d pairs of profiles; in %d of them one cannot tell\n", s.tries, s.unknown)
	if len(s.names) == 0 {
		return
	}
	fmt.Fprint(w, "\n| stage | ns quiet | ns busy | change in % |\n|---|---|---|---|\n")
	packet, _, _ := change(s.pairs[record.PacketRow])
	for _, name := range s.names {
		quiet, busy, d := change(s.pairs[name])
		if quiet < shownStage*packet/100 {
			continue
		}
		fmt.Fprintf(w, "| %s | %.1f | %.1f | %s %s |\n", name, quiet, busy, stat.Signed(d.Median),
			cells.Interval(d.Low, d.High, stat.Signed))
	}
}
