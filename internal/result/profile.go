package result

import "github.com/unthunk/unthunk/internal/stat"

// ProfileRow is one row of `profile`: a stage of a redirected packet's way.
type ProfileRow struct {
	// Name of the stage: generator, receive, program, redirect, bulk-queue,
	// transmit, completion, return, dma, softirq, locks, sink, observer, other,
	// unattributed.
	Name string `json:"name"`
	// Ns is in ns per packet. Its median is the mean over all rounds, as means
	// add up and medians do not; the interval is that of the mean over rounds.
	Ns *stat.Quantity `json:"ns"`
	// Samples are ns per packet, one a round; Rounds are the numbers of those
	// rounds. Unattributed may be negative in a round.
	Samples []float64 `json:"samples"`
	Rounds  []int     `json:"rounds"`
}

// Profile is the record of `profile`: where the ns of a packet go. Its rows are
// stages, which together are Packet.
type Profile struct {
	Document[ProfileRow]
	ProfileParts
}

// ProfileParts are what a profile has besides stages.
type ProfileParts struct {
	// Packet is ns per packet, measured by the programs' own time stamps while
	// samples were taken, interruptions and all; as in [ProfileRow] the median
	// is a mean.
	Packet *stat.Quantity `json:"packet"`
	// Sampling is how samples were taken.
	Sampling Sampling `json:"sampling"`
	// Functions are those that samples fell into, the most ns first.
	Functions []ProfileFunction `json:"functions"`
	// Tax is what samples say of indirect branches; null when the code could not
	// be read.
	Tax *ProfileTax `json:"tax"`
	// Counters are per packet; empty without a PMU.
	Counters []ProfileCounter `json:"counters"`
	// Stacks are the distinct call chains, the most ns first.
	Stacks []ProfileStack `json:"stacks"`
}

// Sampling is how samples were taken and how many.
type Sampling struct {
	// Event is "cycles", with as many p as it is precise, or "cpu-clock".
	Event string `json:"event"`
	// Rate is samples a second and CPU, asked for.
	Rate int `json:"rate"`
	// CPUs that were sampled.
	CPUs []int `json:"cpus"`
	// Samples were taken in the measured time, Lost are those the kernel had
	// no room for. Throttled is how often the kernel slowed sampling down.
	Samples   int `json:"samples"`
	Lost      int `json:"lost"`
	Throttled int `json:"throttled"`
	// Packets went through in that time.
	Packets uint64 `json:"packets"`
	// Throughput is the rate with sampling in percent of that without, measured
	// in turn. Nil when it was not.
	Throughput *stat.Quantity `json:"throughput"`
}

// ProfileFunction is a function, or one BPF program, that samples fell into.
type ProfileFunction struct {
	Name  string `json:"name"`
	Stage string `json:"stage"` // where it took most
	// Samples that fell into it.
	Samples int `json:"samples"`
	// Ns is in ns per packet, of the function itself without what it calls.
	Ns *stat.Quantity `json:"ns"`
}

// ProfileTax is what samples say of indirect branches, in ns per packet.
type ProfileTax struct {
	// Thunks is the time in indirect thunks, Landings the excess on the first
	// instructions of functions that are entered through one, Total both.
	Thunks   *stat.Quantity `json:"thunks"`
	Landings *stat.Quantity `json:"landings"`
	Total    *stat.Quantity `json:"total"`
	// Returns is the time in return thunks, ReturnLandings that on the first two
	// instructions behind calls, which is the most that returns through thunks
	// can have cost there; nil where functions return by themselves. They are no
	// part of Total.
	Returns        *stat.Quantity `json:"returns"`
	ReturnLandings *stat.Quantity `json:"return-landings"`
	// Direct is what the first instructions of a function take that is entered
	// directly, in ns per call: what landings are held against. Nil when none
	// was seen.
	Direct *stat.Quantity `json:"direct"`
	// Estimate is what tax makes of it: price of a call times calls of the hop.
	// Nil when no price was measured, or no calls are known.
	Estimate *stat.Quantity `json:"estimate"`
	// Hop is the part of Total that Estimate is held against: that of sites on
	// the way from the receiving poll on, whose calls per packet are known.
	Hop *stat.Quantity `json:"hop"`
	// Agree says whether Hop and Estimate agree: "agree", "disagree" or
	// "cannot tell". Empty without Estimate.
	Agree string        `json:"agree,omitempty"`
	Sites []ProfileSite `json:"sites"`
}

// ProfileSite is an indirect branch that samples speak of.
type ProfileSite struct {
	// Function it stands in, Offset in bytes from its start.
	Function string `json:"function"`
	Offset   uint64 `json:"offset"`
	Stage    string `json:"stage"`
	// Calls is the chain of struct members the target is read from, null when
	// unknown.
	Calls *string `json:"calls"`
	// Targets are the functions it was seen to enter.
	Targets []string `json:"targets,omitempty"`
	// PerPacket is how often it runs for a packet, unit "calls"; nil when
	// unknown.
	PerPacket *stat.Quantity `json:"per-packet"`
	// Thunk is the time in its thunk, Landing the excess on the first
	// instructions of its targets, in ns per packet.
	Thunk   *stat.Quantity `json:"thunk"`
	Landing *stat.Quantity `json:"landing"`
}

// ProfileCounter is what a PMU counted, per packet.
type ProfileCounter struct {
	// Name of the event: cycles, instructions, branch-misses, l1d-misses,
	// llc-misses, indirect-branches, indirect-mispredicts.
	Name string `json:"name"`
	// PerPacket, unit "events".
	PerPacket *stat.Quantity `json:"per-packet"`
}

// ProfileStack is a call chain that samples fell into.
type ProfileStack struct {
	// Frames are functions, the outermost first.
	Frames []string `json:"frames"`
	Stage  string   `json:"stage"`
	// Samples that fell into it, Ns in ns per packet.
	Samples int     `json:"samples"`
	Ns      float64 `json:"ns"`
}
