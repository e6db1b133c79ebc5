package record

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/unthunk/unthunk/internal/host"
)

// Agent is a record of `agent`: what one machine at work is, and what indirect calls cost it. Its rows are
// prices, of those pairs of `tax` that charge nobody else: the control, an indirect call by a callback and by a map lookup,
// and the direct call.
type Agent struct {
	Document[TaxRow]
	AgentParts
}

// AgentParts are what a record of agent has beside its rows.
type AgentParts struct {
	// Machine is which one.
	Machine Machine `json:"machine"`
	// Reason is why the agent ran: one of the Agent constants. Changed is what is not as in the run before, whatever the reason:
	// "kernel", "microcode", "boot-params", "programs".
	Reason  string   `json:"reason"`
	Changed []string `json:"changed,omitempty"`
	// Findings are those of check.
	Findings []host.Finding `json:"findings"`
	// Paths are the redirect paths of the machine's devices, as read from code; one of veth where no device has XDP.
	Paths []AgentPath `json:"paths"`
	// Programs are those of prog list, Code what prog xray reads of each that a device runs.
	Programs []ProgramRow  `json:"programs"`
	Code     []ProgramCode `json:"code"`
	// Redirect are rows of bench of which Hop, the redirect alone, is the number: bulk 1, 16 and 64.
	Redirect []BenchRow `json:"redirect"`
	// Measured is when rows and Redirect were measured; nil in a record that has neither, because the agent only
	// read, or because Refused says why not.
	Measured *time.Time `json:"measured"`
	// Refused are the parts that were not done, and why.
	Refused []AgentRefusal `json:"refused"`
	// Cost is what the run took from the machine.
	Cost AgentCost `json:"cost"`
}

// Why an agent ran.
const (
	AgentAsked   = "asked"   // by hand, or by a timer of the system
	AgentBoot    = "boot"    // the first run since the machine started
	AgentChanged = "changed" // Changed says what
	AgentDue     = "due"     // its period is over
)

// Machine identifies a machine among others.
type Machine struct {
	// ID is 32 hexadecimal digits, the same in each run, from which /etc/machine-id cannot be computed: its HMAC as
	// of systemd's sd_id128_get_machine_app_specific.
	ID string `json:"id"`
	// Name is its host name; empty when it is left out.
	Name string `json:"name,omitempty"`
	// Boot is the same in each run until the machine starts again: a HMAC of the boot's identity, 32 hexadecimal digits.
	Boot string `json:"boot"`
	// Labels are those that the operator gave it: rack=r12, group=canary.
	Labels map[string]string `json:"labels,omitempty"`
	// IOMMU is its mode, as check has it; empty where that could not be seen.
	IOMMU string `json:"iommu,omitempty"`
	// Drivers are those of its network devices that carry traffic, sorted, each once.
	Drivers []string `json:"drivers"`
}

// AgentPath counts the indirect branches of one redirect path.
type AgentPath struct {
	// Device is the name of the driver, not of a device: "veth", "ixgbe".
	Device string `json:"device"`
	// PerPacket, PerBulk and PerPoll are branches that run once for each of these.
	PerPacket int `json:"per-packet"`
	PerBulk   int `json:"per-bulk"`
	PerPoll   int `json:"per-poll"`
	// PacketMaybe, BulkMaybe and PollMaybe are those of them that not each packet, bulk or poll runs through: xray's "packet?". Nil in
	// records of an agent that did not tell them apart.
	PacketMaybe *int `json:"per-packet-maybe"`
	BulkMaybe   *int `json:"per-bulk-maybe"`
	PollMaybe   *int `json:"per-poll-maybe"`
	// Kinds are how many of all of them are made how: "thunk", "register".
	Kinds map[string]int `json:"kinds"`
}

// ProgramCode counts what is in the machine code of an XDP program.
type ProgramCode struct {
	// Name is that of its row of Programs: "id:241".
	Name string `json:"name"`
	// Indirect branches, and how many of these are tail calls.
	Indirect  int `json:"indirect"`
	TailCalls int `json:"tail-calls"`
	// Changes are how many changes prog xray proposes.
	Changes int `json:"changes"`
}

// AgentRefusal is a part of a run that was not done.
type AgentRefusal struct {
	// Part is one of the Part constants below.
	Part string `json:"part"`
	// Reason is one word of few, for a metric's label: one of the Refused constants below.
	Reason string `json:"reason"`
	// Text is one sentence without a full stop.
	Text string `json:"text"`
}

// Parts of a run of agent that may not be done.
const (
	PartMeasure  = "measure"
	PartCheck    = "check"
	PartXray     = "xray"
	PartProgList = "prog-list"
	PartProgXray = "prog-xray"
)

// Why a part of a run was not done.
const (
	RefusedLoad       = "load"       // the machine, its CPU or the other thread of the core is busy, or was meanwhile
	RefusedSteal      = "steal"      // the hypervisor takes too much of the CPU
	RefusedDispatcher = "dispatcher" // the BPF dispatcher has too few free entries
	RefusedRights     = "rights"     // a capability is missing
	RefusedKernel     = "kernel"     // the kernel lacks something
	RefusedMemory     = "memory"     // there was none
	RefusedTime       = "time"       // it took too long, or too much CPU time
	RefusedCPU        = "cpu"        // there is no CPU to measure on
	RefusedFailed     = "failed"     // anything else: Text says what
	RefusedWaiting    = "waiting"    // of metrics only: there was no run yet
)

// AgentCost is what a run took from the machine.
type AgentCost struct {
	// Seconds it took, CPUSeconds of all its threads, and MeasureSeconds that the process lived which measures: that loads
	// programs, sends packets of its own, and reads; or refuses to, after a look at the dispatcher.
	Seconds        float64 `json:"seconds"`
	CPUSeconds     float64 `json:"cpu-seconds"`
	MeasureSeconds float64 `json:"measure-seconds"`
	// PeakBytes is the most memory that was resident.
	PeakBytes uint64 `json:"peak-bytes"`
	// CPU is the one on which that process ran, nil when none was started.
	CPU *int `json:"cpu"`
	// Slots is the most of the BPF dispatcher's 48 that it took at one time.
	Slots int `json:"slots"`
}

// Agent is a record of agent.
func (s *Saved) Agent() *Agent { return as[*Agent](s) }

// Price is the price in the row of that name, nil when there is none.
func (a *Agent) Price(name string) *TaxRow {
	if i := slices.IndexFunc(a.Rows, func(r TaxRow) bool { return r.Name == name }); i >= 0 {
		return &a.Rows[i]
	}
	return nil
}

// hexDigits tells whether s is an identity of a machine or a boot.
func hexDigits(s string) bool {
	if len(s) != 32 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func (a *Agent) check() error {
	if err := a.RunParts.checkNone(a.Kind); err != nil {
		return err
	}
	if err := checkReferences(a.References); err != nil {
		return err
	}
	if err := a.Machine.check(); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	if !slices.Contains([]string{AgentAsked, AgentBoot, AgentChanged, AgentDue}, a.Reason) {
		return fmt.Errorf("impossible reason %.60q", a.Reason)
	}
	if n := len(a.Findings) + len(a.Paths) + len(a.Code) + len(a.Refused) + len(a.Changed); n > MaxRows {
		return errTooMany(n)
	}
	if err := checkTexts(a.Changed); err != nil {
		return err
	}
	for i := range a.Findings {
		if err := checkFinding(&a.Findings[i]); err != nil {
			return fmt.Errorf("finding %d: %w", i, err)
		}
	}
	if err := checkEach("path", a.Paths); err != nil {
		return err
	}
	if err := checkEach("program", a.Code); err != nil {
		return err
	}
	if err := checkEach("refusal", a.Refused); err != nil {
		return err
	}
	if err := a.Cost.check(); err != nil {
		return fmt.Errorf("cost: %w", err)
	}
	if err := checkRows(a.Programs, nil); err != nil {
		return err
	}
	if (a.Measured == nil) != (len(a.Rows)+len(a.Redirect) == 0) {
		return errors.New("rows without a time of measurement, or the other way round")
	}
	names := make(map[string]bool)
	if err := checkRows(a.Rows, names); err != nil {
		return err
	}
	return checkRows(a.Redirect, names)
}

func (m *Machine) check() error {
	if !hexDigits(m.ID) || !hexDigits(m.Boot) {
		return fmt.Errorf("impossible identity %.60q, boot %.60q", m.ID, m.Boot)
	}
	if n := len(m.Drivers); n > MaxRows {
		return errTooMany(n)
	}
	if err := CheckMachineLabels(m.Labels); err != nil {
		return err
	}
	return checkTexts(append([]string{m.Name, m.IOMMU}, m.Drivers...))
}

// maxLabels is how many labels an operator may give a machine.
const maxLabels = 64

// MaxLabelsText is the longest JSON text of a machine's labels, in bytes: a character of a byte may be written in six. PostgreSQL has
// spaces in it.
const MaxLabelsText = 2 + maxLabels*(2*6*MaxName+8)

// CheckMachineLabels returns an error when an operator cannot give a machine these labels.
func CheckMachineLabels(labels map[string]string) error {
	if n := len(labels); n > maxLabels {
		return fmt.Errorf("%d labels: at most %d are possible", n, maxLabels)
	}
	return checkLabels(labels)
}

func (p *AgentPath) check() error {
	for _, n := range p.counts() {
		if n.all < 0 || n.maybe != nil && (*n.maybe < 0 || *n.maybe > n.all) {
			return fmt.Errorf("impossible counts of %.60q", p.Device)
		}
	}
	if len(p.Kinds) > maxLabels {
		return fmt.Errorf("impossible counts of %.60q", p.Device)
	}
	texts := []string{p.Device}
	for kind, n := range p.Kinds {
		if n < 0 {
			return fmt.Errorf("impossible count of %.60q", kind)
		}
		texts = append(texts, kind)
	}
	return checkTexts(texts)
}

// pathCount is how many branches run once for so many packets; maybe is nil where it is not known.
type pathCount struct {
	all     int
	maybe   *int
	packets float64
}

// counts are those of packets, of bulks and of polls, which find one bulk.
func (p *AgentPath) counts() []pathCount {
	return []pathCount{{p.PerPacket, p.PacketMaybe, 1}, {p.PerBulk, p.BulkMaybe, AnswerFrames}, {p.PerPoll, p.PollMaybe, AnswerFrames}}
}

// Branches are how many a packet runs through, at least and at most, where polls find [AnswerFrames] packets, which are one bulk.
// Of branches that were not told apart it runs through none at least.
func (p *AgentPath) Branches() (least, most float64) {
	for _, n := range p.counts() {
		most += float64(n.all) / n.packets
		if n.maybe != nil {
			least += float64(n.all-*n.maybe) / n.packets
		}
	}
	return least, most
}

func (p *ProgramCode) check() error {
	if p.Indirect < 0 || p.TailCalls < 0 || p.Changes < 0 {
		return fmt.Errorf("impossible counts of %.60q", p.Name)
	}
	return checkTexts([]string{p.Name})
}

func (r *AgentRefusal) check() error {
	if r.Part == "" || r.Reason == "" || r.Text == "" {
		return errors.New("it has no part, reason or text")
	}
	return checkTexts([]string{r.Part, r.Reason, r.Text})
}

func (c *AgentCost) check() error {
	for _, x := range []float64{c.Seconds, c.CPUSeconds, c.MeasureSeconds} {
		if !(x >= 0 && x < 1e7) {
			return fmt.Errorf("impossible time of %v s", x)
		}
	}
	if c.CPU != nil && *c.CPU < 0 || c.Slots < 0 || c.Slots > 48 {
		return fmt.Errorf("impossible CPU or %d slots of the dispatcher", c.Slots)
	}
	return nil
}
