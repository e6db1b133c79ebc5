package record

import (
	"errors"
	"fmt"
	"math"

	"github.com/unthunk/unthunk/internal/stat"
)

// ProgCost is a record of `prog cost`: a row is what packets of one class cost a program.
type ProgCost struct {
	Document[CostRow]
	CostParts
}

// CostParts are what a record of prog cost has beside its rows.
type CostParts struct {
	// Program is what was measured, Packets on what.
	Program ProgramIdentity `json:"program"`
	Packets PacketSource    `json:"packets"`
	// Lines are the source lines of the program that ran, in their order; none without --lines.
	Lines []CostLine `json:"lines,omitempty"`
}

// CostLine is a source line of a program: counted in a copy of it, and sampled while it was replayed.
type CostLine struct {
	// Program is the one that was named, or one of its tail-call tables.
	Program  string `json:"program"`
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Text     string `json:"text"`
	// Runs is how often the line ran a packet.
	Runs float64 `json:"runs"`
	// Sampled is how many samples were in it or in what it called, Ns their share of what a packet costs, in ns;
	// nil when there is none.
	Sampled int      `json:"sampled"`
	Ns      *float64 `json:"ns"`
}

// MaxCostLines is how many lines a record has.
const MaxCostLines = 10_000

func checkLines(lines []CostLine) error {
	if n := len(lines); n > MaxCostLines {
		return errTooMany(n)
	}
	for _, l := range lines {
		if err := checkTexts([]string{l.Program, l.Function, l.File, l.Text}); err != nil {
			return err
		}
		if l.Line < 0 || l.Sampled < 0 || !(l.Runs >= 0 && l.Runs <= math.MaxUint32) || l.Ns != nil && !(*l.Ns >= 0 && *l.Ns <= maxNs) {
			return fmt.Errorf("impossible line %d: %v runs, %d samples", l.Line, l.Runs, l.Sampled)
		}
	}
	return nil
}

// ProgramIdentity is a program that was replayed.
type ProgramIdentity struct {
	// Target is what the user named, Name the program's own name.
	Target string `json:"target"`
	Name   string `json:"name"`
	// Tag is the hash of its instructions as they were loaded.
	Tag string `json:"tag"`
	// JitedBytes is the size of its machine code.
	JitedBytes uint32 `json:"jited-bytes"`
	// Instructions is how many instructions that is, 0 where they were not decoded.
	Instructions int `json:"instructions"`
	// Programs is how many it is together with those that it reaches by tail calls, or as parts of a libxdp dispatcher; 0 where that
	// is not known. AllBytes and AllInstructions are of all of them.
	Programs        int `json:"programs,omitempty"`
	AllBytes        int `json:"all-bytes,omitempty"`
	AllInstructions int `json:"all-instructions,omitempty"`
	// Places is in how many places of memory it was timed: one a round, or 1 for a program that was live.
	Places int `json:"places"`
}

// PacketSource says where packets come from.
type PacketSource struct {
	// Source is the file, or the list of made packets.
	Source string `json:"source"`
	// Seen is how many could be replayed, Kept how many of them were.
	Seen int `json:"seen"`
	Kept int `json:"kept"`
	// LeftOut says which could not be replayed; empty when all could.
	LeftOut string `json:"left-out,omitempty"`
	// Fragmented is how many of those kept are in fragments, FirstBuffer how many bytes of these the first buffer has.
	Fragmented  int `json:"fragmented,omitempty"`
	FirstBuffer int `json:"first-buffer,omitempty"`
	// Hash is of the bytes of those kept; empty in a record of an older version.
	Hash string `json:"hash,omitempty"`
}

// CostRow is one row of `prog cost`: packets that have something in common.
type CostRow struct {
	// Name is "all", or what the packets have in common: "verdict/tx".
	Name string `json:"name"`
	// Labels are the row's coordinates: verdict, flow, length or packet.
	Labels map[string]string `json:"labels"`
	// Packets is how many of those kept the row has, Share that in percent, Timed how many of them were timed.
	Packets int     `json:"packets"`
	Share   float64 `json:"share"`
	Timed   int     `json:"timed"`
	// Verdicts is how many packets came out with each verdict: "pass", "tx".
	Verdicts map[string]int `json:"verdicts"`
	// Ns is what the program costs a packet, in ns: a run of it less a run of a program that only passes. Null is
	// the latter, with all that the harness does around a run. Both are nil when Refused is set.
	Ns   *stat.Quantity `json:"ns"`
	Null *stat.Quantity `json:"null"`
	// Refused says why there is no number. Empty when there is one.
	Refused string `json:"refused,omitempty"`
	// Samples are costs in ns, one a round, and may be negative; Rounds are the numbers of those rounds.
	Samples []float64 `json:"samples"`
	Rounds  []int     `json:"rounds"`
}

func (r *CostRow) rowName() string { return r.Name }

// maxVerdicts is more than XDP has.
const maxVerdicts = 64

func (r *CostRow) check() error {
	if err := checkSamples(r.Samples, r.Rounds, func(ns float64) bool { return math.Abs(ns) <= maxNs }); err != nil {
		return err
	}
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	if err := checkTexts([]string{r.Refused}); err != nil {
		return err
	}
	if r.Packets < 0 || r.Timed < 0 || !(r.Share >= 0 && r.Share <= 100) || len(r.Verdicts) > maxVerdicts {
		return fmt.Errorf("impossible number of packets: %d, %d timed, %v %%", r.Packets, r.Timed, r.Share)
	}
	for verdict, n := range r.Verdicts {
		if !plain(verdict) || n < 0 {
			return fmt.Errorf("impossible verdict %.60q", verdict)
		}
	}
	switch {
	case r.Refused == "" && r.Ns == nil:
		return errNeither
	case r.Refused != "" && r.Ns != nil:
		return errBoth
	case r.Ns != nil && len(r.Samples) == 0:
		return errNoSamples
	case r.Ns != nil && math.IsNaN(r.Ns.Median):
		return errNeither
	}
	return checkQuantities([]quantity{{"ns", "ns", r.Ns, true}, {"null", "ns", r.Null, false}})
}

func (c *ProgCost) check() error {
	if err := c.RunParts.checkNone(c.Kind); err != nil {
		return err
	}
	if err := checkReferences(c.References); err != nil {
		return err
	}
	if err := errors.Join(c.Program.check(), c.Packets.check()); err != nil {
		return err
	}
	if err := checkLines(c.Lines); err != nil {
		return err
	}
	return checkRows(c.Rows, nil)
}

// ProgCost is a record of prog cost.
func (s *Saved) ProgCost() *ProgCost { return as[*ProgCost](s) }

func (id ProgramIdentity) check() error {
	if id.Places < 0 || id.Instructions < 0 {
		return fmt.Errorf("impossible numbers of places and instructions: %d, %d", id.Places, id.Instructions)
	}
	if id.Programs < 0 || id.AllBytes < 0 || id.AllInstructions < 0 {
		return fmt.Errorf("impossible code: %d instructions, %d bytes in %d programs", id.AllInstructions, id.AllBytes, id.Programs)
	}
	return checkTexts([]string{id.Target, id.Name, id.Tag})
}

func (p PacketSource) check() error {
	if p.Seen < 0 || p.Kept < 0 || p.Fragmented < 0 || p.FirstBuffer < 0 {
		return fmt.Errorf("impossible numbers of packets: %d, %d, %d in fragments behind %d bytes", p.Seen, p.Kept, p.Fragmented, p.FirstBuffer)
	}
	return checkTexts([]string{p.Source, p.LeftOut, p.Hash})
}
