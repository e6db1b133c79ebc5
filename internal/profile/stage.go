package profile

import (
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// Stage is a part of what a packet takes. All but [functions.StagePagePool] are told
// apart: giving pages back is a part of [StageReturn].
type Stage = functions.Stage

const (
	StageGenerator    = functions.StageGenerator
	StageReceive      = functions.StageReceive
	StageProgram      = functions.StageProgram
	StageRedirect     = functions.StageRedirect
	StageBulkQueue    = functions.StageBulkQueue
	StageTransmit     = functions.StageTransmit
	StageCompletion   = functions.StageCompletion
	StageReturn       = functions.StageReturn
	StageDMA          = functions.StageDMA
	StageSoftirq      = functions.StageSoftirq
	StageLocks        = functions.StageLocks
	StageSink         = functions.StageSink
	StageStack        = functions.StageStack
	StageObserver     = functions.StageObserver
	StageOther        = functions.StageOther
	StageIdle         = functions.StageIdle
	StageUnattributed = functions.StageUnattributed
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
func byName(name string) Stage {
	if s := functions.StageOf(name); s != functions.StagePagePool {
		return s
	}
	return StageReturn
}

// classify is the stage of a call chain, the innermost frame first. sink tells that
// a poll under way is that of the sink.
//
// The innermost function that has a stage decides. A driver's own functions have
// none by name: those called by bq_xmit_all are its ndo_xdp_xmit, those called by
// __napi_poll its poll.
func classify(frames []Frame, sink bool) Stage {
	if len(frames) == 0 {
		return StageOther
	}
	if frames[0].Function == "" {
		return StageUnattributed
	}
	var stage Stage // of the innermost function that has one
	for i, f := range frames {
		own, base := byName(f.Function), baseOf(f.Function)
		if own == StageBulkQueue && base == notBase { // which only the poll that redirects has
			sink = false
		}
		if own == StageObserver { // whatever it calls
			return StageObserver
		}
		switch {
		case stage != "":
		case i == 0 && base == fromPoll: // what is around the driver's poll
			stage = StageSoftirq
		case own != "" && (base == notBase || i == 0):
			stage = own
		case base == fromPoll:
			stage = StageReceive
		case i+1 < len(frames) && functions.Has(frames[i+1].Function, functions.Transmits):
			stage = StageTransmit
		}
		switch base {
		case fromPoll:
			if sink && (stage == StageReceive || stage == StageProgram) {
				return StageSink
			}
			return stage
		case fromSoftirq:
			return StageSoftirq
		case fromGenerator:
			return StageGenerator
		case fromInterrupt:
			return StageOther
		case fromIdle:
			return StageIdle
		}
	}
	if functions.Has(frames[len(frames)-1].Function, functions.Outermost) {
		return StageOther
	}
	return unwound(stage, frames[0].Function, sink)
}

// unwound is the stage of a chain that the kernel could not follow to its end, which
// happens at the first and the last instructions of BPF programs.
func unwound(stage Stage, function string, sink bool) Stage {
	switch {
	case stage == "":
		return StageOther
	case isProgram(function) && strings.HasSuffix(function, "_generate"):
		return StageGenerator
	case sink && stage == StageProgram:
		return StageSink
	}
	return stage
}
