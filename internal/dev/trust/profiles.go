package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/profile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

const (
	// sampleRate is high enough that chance moves a stage of leastStage by a few percent in some seconds, in Hz.
	sampleRate = 4000
	// leastStage is the least share of a packet of a stage that is looked at, in percent.
	leastStage = 5
	// nearEnough is by how much a stage may differ when other tasks are busy, in percent.
	nearEnough = 10
)

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

// stages counts pairs of profiles, of a quiet machine and of a busy one.
type stages struct {
	tries int
	// unknown are those in which one of the two says that it cannot tell, near others in which each stage of the busy
	// machine's is near enough to the quiet one's, far the rest.
	unknown, near, far int
	// packet and worst are by how much the packet and the stage that differs most differ in the others, in percent.
	packet, worst []float64
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
	more := func(quiet, busy *stat.Quantity) float64 { return 100 * (busy.Median/quiet.Median - 1) }
	packet, worst := more(quiet.Packet, busy.Packet), 0.0
	texts := []string{fmt.Sprintf("packet %+.1f %%", packet)}
	for _, was := range quiet.Rows {
		if was.Name == record.Unattributed || was.Ns.Median < leastStage/100.*quiet.Packet.Median {
			continue
		}
		differs := -100.0 // where the busy one has no such stage
		for _, is := range busy.Rows {
			if is.Name == was.Name {
				differs = more(was.Ns, is.Ns)
			}
		}
		texts = append(texts, fmt.Sprintf("%s %+.1f %%", was.Name, differs))
		if math.Abs(differs) > math.Abs(worst) {
			worst = differs
		}
	}
	s.packet, s.worst = append(s.packet, packet), append(s.worst, worst)
	if math.Abs(worst) <= nearEnough {
		s.near++
	} else {
		s.far++
	}
	return strings.Join(texts, ", ")
}

// write prints the table.
func (s *stages) write(w io.Writer) {
	fmt.Fprintf(w, "\n| pairs of profiles | cannot tell | stages within %d %% | beyond | packet | stage that differs most |\n"+
		"|---|---|---|---|---|---|\n", nearEnough)
	fmt.Fprintf(w, "| %d | %d | %d | %d | %s | %s |\n", s.tries, s.unknown, s.near, s.far, span(s.packet), span(s.worst))
}

// span is from the least to the most in percent.
func span(xs []float64) string {
	if len(xs) == 0 {
		return "–"
	}
	return fmt.Sprintf("%+.1f … %+.1f %%", stat.Quantile(xs, 0), stat.Quantile(xs, 1))
}
