package functions

import "slices"

// Stage is a part of what a packet takes. Its text is in records.
type Stage string

// The stages, in the order they are shown.
const (
	StageGenerator    Stage = "generator"
	StageReceive      Stage = "receive"
	StageProgram      Stage = "program"
	StageRedirect     Stage = "redirect"
	StageBulkQueue    Stage = "bulk-queue"
	StageTransmit     Stage = "transmit"
	StageCompletion   Stage = "completion"
	StageReturn       Stage = "return"
	StagePagePool     Stage = "page-pool"
	StageDMA          Stage = "dma"
	StageSoftirq      Stage = "softirq"
	StageLocks        Stage = "locks"
	StageSink         Stage = "sink"
	StageStack        Stage = "stack"
	StageObserver     Stage = "observer"
	StageOther        Stage = "other"
	StageIdle         Stage = "idle"
	StageUnattributed Stage = "unattributed"
)

// Group is what the time of a stage goes to.
type Group string

// The groups of stages.
const (
	// GroupPath is what a redirected packet goes through on any machine: the poll,
	// the program, the redirect, ndo_xdp_xmit, the return of frames.
	GroupPath Group = "redirect path"
	// GroupEnds makes and counts the packets. With NICs other machines do that.
	GroupEnds Group = "generator and sink"
	// GroupShared is shared by all of them.
	GroupShared Group = "softirq and locks"
	// GroupRest belongs to no packet.
	GroupRest Group = "the rest"
)

// Groups are all of them in the order they are shown.
func Groups() []Group { return []Group{GroupPath, GroupEnds, GroupShared, GroupRest} }

// stages are all stages, in the order they are shown.
var stages = []struct {
	stage   Stage
	group   Group
	meaning string
}{
	{StageGenerator, GroupEnds, "makes live frames and sends them: a NIC does that, or another machine"},
	{StageReceive, GroupPath, "the driver’s NAPI poll"},
	{StageProgram, GroupPath, "the XDP program, its helpers, the dispatcher"},
	{StageRedirect, GroupPath, "xdp_do_redirect, dev_map_enqueue"},
	{StageBulkQueue, GroupPath, "bq_enqueue, bq_xmit_all, xdp_do_flush"},
	{StageTransmit, GroupPath, "ndo_xdp_xmit and what the driver does in it"},
	{StageCompletion, GroupPath, "of transmission, on NICs"},
	{StageReturn, GroupPath, "of frames and pages, page_pool"},
	{StagePagePool, GroupPath, "pages taken and returned"},
	{StageDMA, GroupPath, "the DMA API, IOMMU, swiotlb"},
	{StageSoftirq, GroupShared, "softirqs and NAPI around the poll"},
	{StageLocks, GroupShared, "spin locks, whoever takes them"},
	{StageSink, GroupEnds, "the veth at the end of the chain: another machine, for a NIC"},
	{StageStack, GroupShared, "the network stack, for frames that it is given"},
	{StageObserver, GroupRest, "tracing programs, and sampling itself"},
	{StageOther, GroupRest, "interrupts, other tasks, user space"},
	{StageIdle, GroupRest, ""},
	{StageUnattributed, GroupRest, "time for which there is no sample"},
}

// Stages are all stages in the order they are shown.
func Stages() []Stage {
	var out []Stage
	for _, s := range stages {
		out = append(out, s.stage)
	}
	return out
}

// Order is the place of a stage among all of them; one that is not known comes last.
func (s Stage) Order() int {
	for i := range stages {
		if stages[i].stage == s {
			return i
		}
	}
	return len(stages)
}

// Group is the group of a stage, [GroupRest] for one that is not known.
func (s Stage) Group() Group {
	if i := s.Order(); i < len(stages) {
		return stages[i].group
	}
	return GroupRest
}

// OnPath tells whether a stage is one of the redirect path.
func (s Stage) OnPath() bool { return s.Group() == GroupPath }

// Meaning says in a few words what a stage is, for the page and its readers.
func (s Stage) Meaning() string {
	if i := s.Order(); i < len(stages) {
		return stages[i].meaning
	}
	return ""
}

// Per is how often something runs. Its text is in records.
type Per string

const (
	// PerPacket is at least once for each frame.
	PerPacket Per = "packet"
	// PerBulk is once for each bulk of frames that goes to one device.
	PerBulk Per = "bulk"
	// PerPoll is once for each NAPI poll.
	PerPoll Per = "poll"
	// PerRare is on an error, in a slow path, or behind a static key that is off.
	PerRare Per = "rare"
	// PerUnknown could not be told.
	PerUnknown Per = "unknown"
)

// Rank orders how often: the more often, the higher. It is 0 for what is empty.
func (p Per) Rank() int {
	return 1 + slices.Index([]Per{PerRare, PerUnknown, PerPoll, PerBulk, PerPacket}, p)
}
