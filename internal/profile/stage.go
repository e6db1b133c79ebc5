package profile

import (
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// base is where a chain of frames comes from: the frames outside of it say nothing
// of the packet.
type base int

const (
	notBase base = iota
	fromPoll
	fromSoftirq
	fromGenerator
	fromInterrupt
	fromIdle
)

func baseOf(name string) base {
	switch {
	case functions.Has(name, functions.Poll):
		return fromPoll
	case functions.Has(name, functions.SoftirqLoop):
		return fromSoftirq
	case functions.Has(name, functions.Generator):
		return fromGenerator
	case functions.Has(name, functions.Interrupt):
		return fromInterrupt
	case functions.Has(name, functions.Idle):
		return fromIdle
	}
	return notBase
}

// byName is the stage of a function that its name tells, "" when it does not.
func byName(name string) functions.Stage {
	if s := functions.StageOf(name); s != functions.StagePagePool {
		return s
	}
	return functions.StageReturn
}

// classify is the stage of a call chain, the innermost frame first. sink tells that
// a poll under way is that of the sink.
//
// The innermost function that has a stage decides. A driver's own functions have
// none by name: those called by bq_xmit_all are its ndo_xdp_xmit, those called by
// __napi_poll its poll.
func classify(frames []Frame, sink bool) functions.Stage {
	if len(frames) == 0 {
		return functions.StageOther
	}
	if frames[0].Function == "" {
		return functions.StageUnattributed
	}
	var stage functions.Stage // of the innermost function that has one
	for i, f := range frames {
		own, base := byName(f.Function), baseOf(f.Function)
		if own == functions.StageBulkQueue && base == notBase { // which only the poll that redirects has
			sink = false
		}
		if own == functions.StageObserver { // whatever it calls
			return functions.StageObserver
		}
		switch {
		case stage != "":
		case i == 0 && base == fromPoll: // what is around the driver's poll
			stage = functions.StageSoftirq
		case own != "" && (base == notBase || i == 0):
			stage = own
		case base == fromPoll:
			stage = functions.StageReceive
		case i+1 < len(frames) && functions.Has(frames[i+1].Function, functions.Transmits):
			stage = functions.StageTransmit
		}
		switch base {
		case fromPoll:
			if sink && (stage == functions.StageReceive || stage == functions.StageProgram) {
				return functions.StageSink
			}
			return stage
		case fromSoftirq:
			return functions.StageSoftirq
		case fromGenerator:
			return functions.StageGenerator
		case fromInterrupt:
			return functions.StageOther
		case fromIdle:
			return functions.StageIdle
		}
	}
	if functions.Has(frames[len(frames)-1].Function, functions.Outermost) {
		return functions.StageOther
	}
	return unwound(stage, frames[0].Function, sink)
}

// unwound is the stage of a chain that the kernel could not follow to its end, which
// happens at the first and the last instructions of BPF programs.
func unwound(stage functions.Stage, function string, sink bool) functions.Stage {
	switch {
	case stage == "":
		return functions.StageOther
	case isProgram(function) && strings.HasSuffix(function, "_generate"):
		return functions.StageGenerator
	case sink && stage == functions.StageProgram:
		return functions.StageSink
	}
	return stage
}
