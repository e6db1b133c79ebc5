package page

import (
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// flameStage is the stage that a function has by where it is called from, and what of
// that its callees inherit. It depends on names alone, never on samples, so that a
// function has one color in all flame graphs.
type flameStage struct {
	stage functions.Stage
	base  flameBase
	// transmits is set below a function that calls ndo_xdp_xmit.
	transmits bool
}

// flameBase is what calls a function: what is known of the stage of those without one.
type flameBase int

const (
	// outside is what no packet goes through: system calls, interrupts, tasks.
	outside flameBase = iota
	inGenerator
	inSoftirq
	inPoll
	inSink
	inObserver
)

// of is the stage of a function that this one calls. sink tells that the samples are of
// the sink's poll, which has the functions of any other. It follows the rules by which
// package profile gives a sample its stage.
func (s flameStage) of(name string, sink bool) flameStage {
	own := functions.StageOf(name)
	if own == functions.StagePagePool {
		own = functions.StageReturn
	}
	program := cells.ShortName(name) != name
	switch {
	case own == functions.StageObserver || s.base == inObserver:
		return flameStage{functions.StageObserver, inObserver, false}
	case functions.Has(name, functions.Generator), s.base == outside && program && strings.HasSuffix(name, "_generate"):
		return flameStage{functions.StageGenerator, inGenerator, false}
	case functions.Has(name, functions.Interrupt):
		return flameStage{}
	case functions.Has(name, functions.Poll):
		base := inPoll
		if sink {
			base = inSink
		}
		return flameStage{functions.StageSoftirq, base, false}
	case functions.Has(name, functions.SoftirqLoop), s.base == inGenerator && own == functions.StageSoftirq:
		return flameStage{functions.StageSoftirq, inSoftirq, false}
	case s.base == inGenerator || s.base == inSoftirq:
		return flameStage{s.stage, s.base, false}
	case s.base == inSink:
		if own == "" || own == functions.StageProgram {
			own = functions.StageSink
		}
		return flameStage{own, inSink, false}
	}
	next := flameStage{own, s.base, functions.Has(name, functions.Transmits)}
	if own != "" {
		return next
	}
	next.stage = s.stage
	switch {
	case s.transmits:
		next.stage = functions.StageTransmit
	case s.base == inPoll && s.stage == functions.StageSoftirq: // called by what calls polls
		next.stage = functions.StageReceive
	}
	return next
}

// flameColors are the colors of stages, for both themes: light enough for dark letters,
// and apart from one another and from the two colors of paper (TestFlameColors).
var flameColors = map[functions.Stage]string{
	"":                          "#d6d1c6",
	functions.StageGenerator:    "#a9b3bd",
	functions.StageReceive:      "#74b9f0",
	functions.StageProgram:      "#7fd07f",
	functions.StageRedirect:     "#ffa04d",
	functions.StageBulkQueue:    "#f2d43c",
	functions.StageTransmit:     "#ff8f80",
	functions.StageCompletion:   "#3fc1c0",
	functions.StageReturn:       "#c79be8",
	functions.StagePagePool:     "#f3a6dc",
	functions.StageDMA:          "#ee6fa8",
	functions.StageSoftirq:      "#8f9df5",
	functions.StageLocks:        "#c49a6c",
	functions.StageSink:         "#9aa56a",
	functions.StageStack:        "#cfe39a",
	functions.StageObserver:     "#b9a3a3",
	functions.StageOther:        "#d6d1c6",
	functions.StageIdle:         "#f3efe6",
	functions.StageUnattributed: "#f3efe6",
}

// flameColor is the color of a stage; one that is not known has that of none.
func flameColor(stage functions.Stage) string {
	if c, ok := flameColors[stage]; ok {
		return c
	}
	return flameColors[""]
}
