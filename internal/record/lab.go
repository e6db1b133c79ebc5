package record

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/stat"
)

// LabRow is one row of `lab`: what a packet of a scenario goes through in one guest at
// one bulk. Counts are exact and per packet: on veth from the generator's call, or the
// system call of a socket, to the packet's end; on wires what runs in the NAPI polls of the interface that redirects
// and of the one it redirects to, and in its transmission.
type LabRow struct {
	// Name is stable: the guest as it was asked for, the scenario unless it is
	// redirect-map, and the bulk: "debian:6.12-cloud/spectre_v2=off/tx/bulk=16".
	Name string `json:"name"`
	// Labels are the row's coordinates: kernel, cpu, append, nic, dma, scenario, bulk.
	// Records of versions before 2026-11-29 have no scenario: it is redirect-map.
	Labels map[string]string `json:"labels"`
	// Release is the kernel's own name; Thunk what an indirect call is in its
	// memory, SpectreV2 what its /sys says.
	Release   string `json:"release"`
	Thunk     string `json:"thunk"`
	SpectreV2 string `json:"spectre-v2"`
	// Instructions executed, those of the observer's time stamp included: one
	// stamp in Window packets. On wires it lacks what completes transmission, and is
	// nil for bursts that are too short. Nil when Refused is set.
	Instructions *float64 `json:"instructions"`
	// Spread is how far instructions of the same row may be from these in another boot, in
	// instructions a packet. It is nil where they are equal to the digit, as on veth.
	Spread *float64 `json:"spread,omitempty"`
	Window int      `json:"window,omitempty"`
	// Stamp is how many instructions the indirect branch of a time stamp takes, 0 for
	// none.
	Stamp int `json:"stamp,omitempty"`
	// Ns is the time of a packet in ns, measured with KVM; nil where that is not used.
	Ns *stat.Quantity `json:"ns,omitempty"`
	// CallsPerPacket are indirect calls and jumps, counted at their sites.
	// They are nil where only instructions were counted.
	CallsPerPacket *float64  `json:"calls"`
	Sites          []LabSite `json:"sites"`
	// NotExecuted are sites that were watched in the same way and that no packet went
	// through. Records of versions before 2026-11-29 have none.
	NotExecuted []LabPlace `json:"not-executed,omitempty"`
	Counts      Counts     `json:"counts"`
	// Functions are entries of functions.
	Functions []LabFunction `json:"functions"`
	// DMA is what is done of the DMA API, one entry a part; empty for veth.
	DMA []LabDMA `json:"dma,omitempty"`
	// Build is what the guest's kernel was built by and booted with; nil in records of versions before 2026-11-29.
	Build *LabBuild `json:"build,omitempty"`
	// Trace says where the instructions are executed; nil when nobody asked, and on wires.
	Trace *LabTrace `json:"trace,omitempty"`
	// Program is what the row is of when that is a program of the user's, on packets: nil for a redirect. Its instructions
	// are those that the program takes a packet more than one that only passes.
	Program *LabProgram `json:"program,omitempty"`
	// Refused says why there are no numbers. Empty when there are.
	Refused string `json:"refused,omitempty"`
}

// LabProgram is a program of the user's on a class of packets.
type LabProgram struct {
	Identity ProgramIdentity `json:"identity"`
	// Source is where the packets come from, Packets how many of them the row has, Share that in percent.
	Source  PacketSource `json:"source"`
	Packets int          `json:"packets"`
	Share   float64      `json:"share"`
	// Verdicts is how many packets came out with each verdict: "pass", "tx".
	Verdicts map[string]int `json:"verdicts"`
	// Outcome is a hash of what comes out of each packet: verdict, length, and bytes where they are always the same.
	Outcome string `json:"outcome,omitempty"`
	// Redirects is a hash of where each packet is redirected to; empty where none is, where that is not known, and in records of older
	// versions.
	Redirects string `json:"redirects,omitempty"`
	// Least and Most are the instructions of single packets.
	Least float64 `json:"least"`
	Most  float64 `json:"most"`
}

func (p *LabProgram) check() error {
	if p == nil {
		return nil
	}
	if err := errors.Join(p.Identity.check(), p.Source.check(), checkTexts([]string{p.Outcome, p.Redirects})); err != nil {
		return err
	}
	if p.Packets < 0 || !(p.Share >= 0 && p.Share <= 100) || len(p.Verdicts) > maxVerdicts {
		return fmt.Errorf("impossible number of packets: %d, %v %%", p.Packets, p.Share)
	}
	for verdict, n := range p.Verdicts {
		if !plain(verdict) || n < 0 {
			return fmt.Errorf("impossible verdict %.60q", verdict)
		}
	}
	for _, n := range []float64{p.Least, p.Most} {
		if !(math.Abs(n) <= maxNs) {
			return fmt.Errorf("impossible count %v", n)
		}
	}
	return nil
}

// The DMA setups of guests, which [LabRow] has as its label dma.
const (
	DMADirect      = "direct"
	DMASwiotlb     = "swiotlb"      // every page is copied through a bounce buffer
	DMAIOMMULazy   = "iommu-lazy"   // unmapped at once, flushed by and by
	DMAIOMMUStrict = "iommu-strict" // unmapped and flushed at once
	DMAIOMMUPass   = "iommu-pt"     // an IOMMU that maps everything to itself
)

// DMASetups are all DMA setups, the cheapest for a packet first but for the last, which costs what none does.
func DMASetups() []string {
	return []string{DMADirect, DMASwiotlb, DMAIOMMULazy, DMAIOMMUStrict, DMAIOMMUPass}
}

// Scenario is the way of a packet that is counted.
func (r *LabRow) Scenario() string { return cmp.Or(r.Labels["scenario"], DefaultLabScenario) }

// IsDefault tells whether that is the scenario which names leave out.
func (r *LabRow) IsDefault() bool { return r.Scenario() == DefaultLabScenario }

// Guest is the name of the row's guest: what the row's own has before the scenario and the bulk.
func (r *LabRow) Guest() string {
	name := strings.TrimSuffix(r.Name, "/bulk="+r.Labels["bulk"])
	if !r.IsDefault() {
		name = strings.TrimSuffix(name, "/"+r.Scenario())
	}
	return name
}

// LabFunction is how often a function is entered for a packet.
type LabFunction struct {
	Function string `json:"function"`
	// Part of the chain that does it: "in-poll" are NAPI polls of the interface that
	// redirects, "out-xmit" is transmission by the one it redirects to, "out-poll" are
	// that one's NAPI polls, which complete transmission, "worker" are the system calls
	// of a forwarder in user space. Empty for veth.
	Part      string  `json:"part,omitempty"`
	PerPacket float64 `json:"per-packet"`
}

// LabDMA is what a part of the chain does of the DMA API for a packet.
type LabDMA struct {
	Part  string  `json:"part"` // as of LabFunction
	Map   float64 `json:"map"`
	Unmap float64 `json:"unmap"`
	Sync  float64 `json:"sync"` // for the CPU, and for the device
	// Bounce are copies through a bounce buffer, Flush are waits for the IOMMU to
	// forget mappings.
	Bounce float64 `json:"bounce"`
	Flush  float64 `json:"flush"`
	// Copy is how often the kernel copies it elsewhere; nil in records that did not
	// count it.
	Copy *float64 `json:"copy,omitempty"`
}

// Entries are how often a function is entered for a packet, by all parts.
func (r *LabRow) Entries(function string) (n float64) {
	for _, f := range r.Functions {
		if f.Function == function {
			n += f.PerPacket
		}
	}
	return n
}

// SumDMA is what all parts together do of the DMA API.
func (r *LabRow) SumDMA() (sum LabDMA) {
	for _, d := range r.DMA {
		sum.Map, sum.Unmap, sum.Sync = sum.Map+d.Map, sum.Unmap+d.Unmap, sum.Sync+d.Sync
		sum.Bounce, sum.Flush = sum.Bounce+d.Bounce, sum.Flush+d.Flush
		if d.Copy != nil {
			copies := *d.Copy
			if sum.Copy != nil {
				copies += *sum.Copy
			}
			sum.Copy = &copies
		}
	}
	return sum
}

// Retpolined is how many of a row's indirect branches a packet takes through retpolines, and nothing else: where the kernel has them, a
// paranoid check of FineIBT still calls through a register, and what CFI tests executes more.
func (r *LabRow) Retpolined() (n float64) {
	if r.CallsPerPacket == nil || !strings.HasPrefix(r.Thunk, retpoline) {
		return 0
	}
	n = *r.CallsPerPacket
	for i := range r.Sites {
		if s := &r.Sites[i]; s.Kind == "register" || s.Kind == "memory" || s.tested() {
			n -= s.PerPacket
		}
	}
	return n
}

// retpoline begins what [host.Fingerprint.IndirectThunk] says of one.
const retpoline = "retpoline"

// Tested is how CFI tests the targets of a row's indirect branches, as of [LabSite.Check]; empty where it tests none.
func (r *LabRow) Tested() string {
	for i := range r.Sites {
		if s := &r.Sites[i]; s.tested() {
			return s.Check
		}
	}
	return ""
}

// tested tells whether CFI tests the target: a jump over the test is none.
func (s *LabSite) tested() bool { return s.Check != "" && s.Check != "kcfi-off" }

// NoRetpoline says why the price of an indirect call on a machine is none of a retpoline: a price of another thunk, or of an emulated CPU,
// is not carried over. It is empty where it is one, and where the machine's thunk is not known.
func NoRetpoline(of host.Fingerprint) string {
	switch thunk := of.IndirectThunk; {
	case of.Emulated():
		return "the price is of an emulated CPU"
	case thunk != "" && !strings.HasPrefix(thunk, retpoline):
		return "the price is of an indirect call by " + thunk + ", and those of guests are retpolines"
	}
	return ""
}

// Unpriced says why the price of an indirect call on a machine is none of a row's. `tax` measures a jump through the thunk of its kernel,
// whose target CFI does not test. It is empty where it is one.
func (r *LabRow) Unpriced(of host.Fingerprint) string {
	if !strings.HasPrefix(r.Thunk, retpoline) {
		return "the price of a retpoline is none of another thunk"
	}
	if tested := r.Tested(); tested != "" {
		return "the price is of a retpoline whose target CFI does not test, and here it does (" + tested + ")"
	}
	return NoRetpoline(of)
}

// BranchNs is an estimate of the ns that a row's indirect branches take of a packet:
// the count of retpolines at the price of one. It is nil where no price was measured, or the row
// has none of the calls that were priced, see [LabRow.Unpriced].
func (l *Lab) BranchNs(row *LabRow) *float64 {
	if l.Price == nil || row.CallsPerPacket == nil || row.Unpriced(l.Host) != "" {
		return nil
	}
	ns := row.Retpolined() * l.Price.Median
	return &ns
}

// LabSite is an indirect branch and what it entered.
type LabSite struct {
	// Function it is in, Offset in bytes from its start. Jump is set for a tail call.
	Function string `json:"function"`
	Offset   uint64 `json:"offset"`
	Jump     bool   `json:"jump,omitempty"`
	Kind     string `json:"kind"`
	// Check is how CFI tests the target first, as of [SiteRow]; empty where it does not, and in records of versions before 2026-11-30.
	Check string `json:"check,omitempty"`
	Stage string `json:"stage"`
	// Pointer is the chain of struct members the target is read from.
	Pointer string `json:"calls,omitempty"`
	Target  string `json:"target,omitempty"` // the function that was entered
	Part    string `json:"part,omitempty"`   // as of LabFunction
	// Executed are the instructions it takes to its target: its check of CFI, itself, its thunk, the nop
	// that fills its room, what FineIBT has in front of the target; 0 when not known.
	Executed int `json:"executed"`
	// PerPacket is how often it is executed for a packet: on veth a whole multiple of
	// a 64th.
	PerPacket float64 `json:"per-packet"`
}

// LabPlace is where an indirect branch stands, and what it calls.
type LabPlace struct {
	Function string `json:"function"`
	Offset   uint64 `json:"offset"`
	Pointer  string `json:"calls,omitempty"` // as of LabSite
}

// LabDifference is what two rows differ in, and which indirect branches account for
// it.
type LabDifference struct {
	// With and Without are the names of rows of the same kernel and bulk.
	With    string `json:"with"`
	Without string `json:"without"`
	// Instructions are With less Without, per packet; BySites those of the branches
	// and their thunks. ByObserver is the call of the clock for a time stamp, once in
	// Window packets.
	// Remainder is what is left.
	Instructions float64 `json:"instructions"`
	BySites      float64 `json:"by-sites"`
	ByObserver   float64 `json:"by-observer"`
	Remainder    float64 `json:"remainder"`
	// CallsPerPacket are indirect calls and jumps, counted at the sites.
	CallsPerPacket float64 `json:"calls"`
	// Ns is an estimate: calls by the price of one on this machine, in ns per
	// packet. Nil without a price.
	Ns *stat.Quantity `json:"ns"`
	// Lost is what that is of [LabMpps], in Mpps.
	Lost *stat.Quantity `json:"lost,omitempty"`
}

// LabMpps is the rate of a core without indirect branches that estimates are held
// against, in Mpps: that of XDP_REDIRECT before retpolines in the mail of 2018.
const LabMpps = 13

// Lab is the record of `lab`.
type Lab struct {
	Document[LabRow]
	Differences []LabDifference `json:"differences"`
	// TraceChanges are what traces of two rows differ in; absent where none was traced.
	TraceChanges []LabTraceChange `json:"trace-changes,omitempty"`
	// Price is that of one indirect call on this machine, in ns; nil when none was
	// measured.
	Price *stat.Quantity `json:"price"`
}

func (r *LabRow) check() error {
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	if err := checkTexts([]string{r.Release, r.Thunk, r.SpectreV2, r.Refused}); err != nil {
		return err
	}
	switch {
	case r.Refused == "" && r.CallsPerPacket == nil && (r.Program == nil || r.Instructions == nil):
		return errNeither
	case r.Refused != "" && (r.Instructions != nil || r.CallsPerPacket != nil):
		return errBoth
	case len(r.Sites) > MaxRows || len(r.Functions) > MaxRows || len(r.DMA) > MaxRows || len(r.NotExecuted) > MaxRows:
		return errors.New("too many sites or functions")
	}
	if err := checkQuantities([]quantity{{"time", "ns", r.Ns, false}}); err != nil {
		return err
	}
	if r.Spread != nil && r.Instructions == nil {
		return errors.New("a spread of no instructions")
	}
	for _, n := range []*float64{r.Instructions, r.Spread, r.CallsPerPacket} {
		// A program of the user's may take less than one that only passes.
		if n != nil && !possibleCount(*n) && !(r.Program != nil && math.Abs(*n) <= maxNs) {
			return fmt.Errorf("impossible count %v", *n)
		}
	}
	for _, f := range r.Functions {
		if f.Function == "" || !possibleCount(f.PerPacket) {
			return fmt.Errorf("impossible count of function %.60q", f.Function)
		}
		if err := checkTexts([]string{f.Function, f.Part}); err != nil {
			return err
		}
	}
	for _, d := range r.DMA {
		if err := checkTexts([]string{d.Part}); err != nil {
			return err
		}
		if !possibleCount(d.Map) || !possibleCount(d.Unmap) || !possibleCount(d.Sync) || !possibleCount(d.Bounce) || !possibleCount(d.Flush) ||
			d.Copy != nil && !possibleCount(*d.Copy) {
			return fmt.Errorf("impossible count of DMA by %s", d.Part)
		}
	}
	if err := checkLabSites(r.Sites); err != nil {
		return err
	}
	if err := errors.Join(r.Build.check(), r.Program.check()); err != nil {
		return err
	}
	if r.Trace != nil {
		if err := r.Trace.check(); err != nil {
			return err
		}
		if n := r.Instructions; n == nil || math.Round(*n*float64(r.Trace.Packets)) != float64(r.Trace.Executed) {
			return fmt.Errorf("a trace of %d instructions, and another count of them", r.Trace.Executed)
		}
	}
	return r.checkPlaces()
}

// possibleCount tells whether something may be counted that often for a packet.
func possibleCount(x float64) bool { return x >= 0 && x <= maxNs }

func checkLabSites(sites []LabSite) error {
	for _, s := range sites {
		if err := checkNames(s.Function, s.Stage); err != nil {
			return err
		}
		if err := checkTexts([]string{s.Pointer, s.Target, s.Kind, s.Part}); err != nil {
			return err
		}
		if !possibleCount(s.PerPacket) {
			return fmt.Errorf("impossible count at %s", s.Function)
		}
	}
	return nil
}

func (r *LabRow) checkPlaces() error {
	for _, p := range r.NotExecuted {
		if p.Function == "" {
			return errors.New("a place without a function")
		}
		if err := checkTexts([]string{p.Function, p.Pointer}); err != nil {
			return err
		}
	}
	return nil
}

// Check returns an error when no measurement can give what the row says.
func (r *LabRow) Check() error { return r.check() }

func (r *LabRow) rowName() string { return r.Name }

func (l *Lab) check() error {
	if err := checkRows(l.Rows, nil); err != nil {
		return err
	}
	if n := len(l.TraceChanges); n > MaxRows {
		return fmt.Errorf("%d differences of traces: at most %d are possible", n, MaxRows)
	}
	if err := checkEach("difference of traces", l.TraceChanges); err != nil {
		return err
	}
	if n := len(l.Differences); n > MaxRows {
		return fmt.Errorf("%d differences: at most %d are possible", n, MaxRows)
	}
	if err := checkEach("difference", l.Differences); err != nil {
		return err
	}
	return checkQuantities([]quantity{{"price", "ns", l.Price, true}})
}

func (d *LabDifference) check() error {
	if err := checkTexts([]string{d.With, d.Without}); err != nil {
		return err
	}
	for _, x := range []float64{d.Instructions, d.BySites, d.ByObserver, d.Remainder, d.CallsPerPacket} {
		if !(math.Abs(x) <= maxNs) {
			return fmt.Errorf("impossible count %v", x)
		}
	}
	return checkQuantities([]quantity{{"ns", "ns", d.Ns, true}})
}
