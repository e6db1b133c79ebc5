package record

import (
	"time"

	"github.com/unthunk/unthunk/internal/stat"
)

// FleetHead is what the answers of `fleet` have in common. They are of no one host.
type FleetHead struct {
	// Since and Until are the time that the records are of; each machine's newest counts, and where that has no number the newest that
	// has one, if the machine is the same since.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Where are the conditions that machines had to meet, as they were typed; empty for all.
	Where string `json:"where,omitempty"`
	// Machines in that time, Measured of them with a number in their newest record; of compare: on each side on which they were.
	Machines int `json:"machines"`
	Measured int `json:"measured"`
	// WrongClock are records that are left out, because their time cannot be: it lies more than a day ahead of when
	// they came in, or before there was unthunk. They are of machines that meet the conditions, and of any time.
	WrongClock int `json:"wrong-clock"`
	// Unmeasured are the first [MaxFleetNames] of the machines without a number, by name.
	Unmeasured []FleetUnmeasured `json:"unmeasured"`
	FleetShared
}

// MaxFleetNames is how many machines, or files, answers name of those that have no number, or are refused for one reason.
const MaxFleetNames = 100

// FleetUnmeasured is a machine whose newest record has no number.
type FleetUnmeasured struct {
	// Name is the machine's host name, or else its identity; Machine the identity.
	Name    string `json:"name"`
	Machine string `json:"machine"`
	// Reason is the agent's, [FleetNotMeasured] where it gave none.
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// FleetNotMeasured stands for the reason of a machine without a number whose agent gave none.
const FleetNotMeasured = "not-measured"

// FleetShared are identities of machines that more than one machine has.
type FleetShared struct {
	// SharedIDs are identities, of the machines that were asked about or read, that more than one machine had in that time: their
	// records cannot be told apart.
	SharedIDs []string `json:"shared-ids"`
	// SharedNames are host names that machines of the first of SharedIDs have, some of each; SharedCounts how many each has.
	SharedNames  map[string][]string `json:"shared-names,omitempty"`
	SharedCounts map[string]int      `json:"shared-counts,omitempty"`
}

// FleetIngest is what `fleet ingest` did. Its rows are the reasons for which documents were refused.
type FleetIngest struct {
	Document[FleetRefusal]
	// Documents that were read. New ones are in the store now, Known ones were before.
	Documents int `json:"documents"`
	New       int `json:"new"`
	Known     int `json:"known"`
	// Ahead and Behind are new records that are kept, and left out of answers: their clock is wrong.
	Ahead  int `json:"ahead"`
	Behind int `json:"behind"`
	FleetShared
	// Stopped says why it ended before the end; empty when it did not.
	Stopped string `json:"stopped,omitempty"`
}

// FleetRefusal counts the documents that were refused for one reason.
type FleetRefusal struct {
	// Name is the reason, one of the Refused constants.
	Name  string `json:"name"`
	Count int    `json:"count"`
	// Example is one of them: its file, and what is wrong with it.
	Example string `json:"example"`
	// Files are the first [MaxFleetNames] files that had some.
	Files []string `json:"files"`
}

// Why `fleet ingest` refuses a document.
const (
	RefusedTruncated  = "truncated"  // it ends in the middle
	RefusedForeign    = "foreign"    // no record of unthunk
	RefusedSchema     = "schema"     // of another version of the schema
	RefusedKind       = "kind"       // a record, but not of agent
	RefusedImpossible = "impossible" // it says what no machine can be
	RefusedLarge      = "large"      // beyond the limit of a record
	RefusedUnreadable = "unreadable" // the file could not be read
	RefusedStore      = "store"      // the database does not take it
	RefusedRun        = "run"        // its run has the identity of one of another machine, which the store has
)

// FleetWho is the answer of `fleet who`: who pays what.
type FleetWho struct {
	Document[FleetWhoRow]
	FleetHead
	// By are the fields by which machines are grouped.
	By []string `json:"by"`
}

// FleetWhoRow is a group of machines.
type FleetWhoRow struct {
	// Name is "kernel=6.12.9, cpu=…".
	Name string `json:"name"`
	// Labels are the group's fields. What could not be seen is empty.
	Labels map[string]string `json:"labels"`
	// Machines of the group, Measured of them with a number.
	Machines int `json:"machines"`
	Measured int `json:"measured"`
	// Refused are machines whose newest record has no number, by the reason of the agent.
	Refused map[string]int `json:"refused"`
	// Numbers are medians over machines, in ns.
	Numbers []FleetNumber `json:"numbers"`
}

// AnswerBulk is the bulk that answers are about: the devmap's bulk queue holds 16 frames (DEV_MAP_BULK_SIZE in kernel/bpf/devmap.c), and
// prices and stages are taken there. AnswerFrames is its number.
const (
	AnswerBulk   = "16"
	AnswerFrames = 16
)

// Rows of [FleetNumber].
const (
	FleetControl    = "control"
	FleetDirectCall = "direct-call"
	// FleetRedirect comes before a bulk, FleetRedirectAnswer is in the bulk that answers are about.
	FleetRedirect       = "redirect/bulk="
	FleetRedirectAnswer = FleetRedirect + AnswerBulk
	// FleetIndirect is what the indirect branches take of that: their number times the price of one, FleetBranch.
	FleetIndirect = "indirect/bulk=" + AnswerBulk
	FleetBranch   = "callback/loop"
)

// Number is the one of that name of a group; nil when no machine has it.
func (r *FleetWhoRow) Number(name string) *stat.Quantity {
	for _, n := range r.Numbers {
		if n.Row == name {
			return n.Ns
		}
	}
	return nil
}

// FleetNumber is a price, or a redirect alone, over machines.
type FleetNumber struct {
	// Row is "control", "direct-call", a pair that is the price of an indirect call, "redirect/bulk=16", or "indirect/bulk=16": what the
	// indirect branches take that a packet runs through at most, their number times the price of one.
	Row string `json:"row"`
	// Ns is the median over machines with its interval; N is the number of machines.
	Ns *stat.Quantity `json:"ns"`
}

// FleetOdd is the answer of `fleet odd`: machines that are unlike their twins.
type FleetOdd struct {
	Document[FleetOddRow]
	FleetHead
	// Twins are the fields in which twins are alike. Compared are machines that have enough twins, Alone those that have not.
	Twins    []string `json:"twins"`
	Compared int      `json:"compared"`
	Alone    int      `json:"alone"`
	// Unjudged are those of Compared that have numbers, but of which fewer than eight, with the machine itself, have a redirect.
	Unjudged int `json:"unjudged"`
	// LeftOut are odd machines beyond the rows.
	LeftOut int `json:"left-out"`
}

// FleetOddRow is a machine that is unlike its twins.
type FleetOddRow struct {
	// Name is the machine's host name, or else its identity; Machine the identity, Run its newest record.
	Name    string    `json:"name"`
	Machine string    `json:"machine"`
	Run     string    `json:"run"`
	At      time.Time `json:"at"`
	// Labels are the fields in which it is like its twins, Twins how many these are.
	Labels map[string]string `json:"labels"`
	Twins  int               `json:"twins"`
	// Fields are those in which it is not.
	Fields []FleetField `json:"fields"`
	// Prices are numbers that lie outside the limits of its twins.
	Prices []FleetLimit `json:"prices"`
	// Lost is how much longer its redirect takes than the median of its twins, in ns a packet in bulks of 16; negative
	// is faster. Nil when there is no such number.
	Lost *float64 `json:"lost"`
}

// FleetField is a field that a machine has otherwise than its twins.
type FleetField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// Usual is the value of Share of its twins, from 0 to 1.
	Usual string  `json:"usual"`
	Share float64 `json:"share"`
}

// FleetLimit is a number outside the limits of the machine's twins, all in ns.
type FleetLimit struct {
	Row    string  `json:"row"`
	Ns     float64 `json:"ns"`
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// FleetCompare is the answer of `fleet compare`: what a rollout costs. Its sample is machines.
type FleetCompare struct {
	Document[FleetCompareRow]
	FleetHead
	// Base and Canary are the conditions of the two sides.
	Base   string `json:"base"`
	Canary string `json:"canary"`
	// BaseMachines and CanaryMachines have a number on that side, Paired are on both.
	BaseMachines   int `json:"base-machines"`
	CanaryMachines int `json:"canary-machines"`
	Paired         int `json:"paired"`
	// Design is "paired" when machines are compared with themselves, else "unpaired".
	Design string `json:"design"`
	// Unmatched are canaries that are compared with nothing: where machines are compared with themselves those that were not on the side
	// of the base, else those that fewer than six machines of the base are like in CPU and hypervisor.
	Unmatched int `json:"unmatched"`
	// Threshold in percent.
	Threshold float64 `json:"threshold"`
}

// FleetCompareRow is one number on the two sides.
type FleetCompareRow struct {
	// Name is as [FleetNumber.Row].
	Name string `json:"name"`
	// Base and Canary are medians over machines, in ns.
	Base   *stat.Quantity `json:"base"`
	Canary *stat.Quantity `json:"canary"`
	// Difference is in percent of the base, + is slower; it holds for all rows together. Nil when there are too few machines.
	Difference *stat.Difference `json:"difference"`
	// Verdict is in the words of [stat.Verdict]; empty without a difference.
	Verdict string `json:"verdict,omitempty"`
	// Reference is set for the direct call where both sides return alike: no kernel makes it dearer then, and it does not count.
	Reference bool `json:"reference"`
	// Regression is set when the canaries are slower by more than the threshold, with confidence.
	Regression bool `json:"regression"`
	// Needed is how many canaries would show 1 % nine times in ten; nil when no number of them would, or it is not known.
	Needed *int `json:"needed"`
	// Missing says why there is no difference.
	Missing string `json:"missing,omitempty"`
}

// Regressed tells whether a number of the canaries is slower by more than the threshold.
func (c *FleetCompare) Regressed() bool {
	for i := range c.Rows {
		if c.Rows[i].Regression {
			return true
		}
	}
	return false
}

// Who is an answer of fleet who.
func (s *Saved) Who() *FleetWho { return as[*FleetWho](s) }

// Odd is an answer of fleet odd.
func (s *Saved) Odd() *FleetOdd { return as[*FleetOdd](s) }

// Canaries is an answer of fleet compare.
func (s *Saved) Canaries() *FleetCompare { return as[*FleetCompare](s) }
