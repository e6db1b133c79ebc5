package record

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/unthunk/unthunk/internal/stat"
)

// ProgramList is a record of `prog list`: a row is a program that XDP runs, or may run.
type ProgramList struct {
	Document[ProgramRow]
	ProgramListParts
}

// ProgramListParts are what a record of prog list has beside its rows.
type ProgramListParts struct {
	// Namespaces are the network namespaces that were looked into, and those that could
	// not be.
	Namespaces []Namespace `json:"namespaces"`
	// Maps are those of the rows, and all that hold programs.
	Maps []ProgramMap `json:"maps"`
	// Observers are programs at the tracepoints of XDP; nil where links cannot be read.
	Observers []Observer `json:"observers"`
	// Dispatcher is the BPF dispatcher for XDP; nil where it could not be read.
	Dispatcher *DispatcherState `json:"dispatcher"`
	// Statistics say whether the kernel times each run of each BPF program.
	Statistics Statistics `json:"statistics"`
	// Costs are what the above makes packets pay beside the programs' own instructions.
	Costs []ProgramCost `json:"costs"`
	// Unseen are what could not be looked at, and why: one clause each.
	Unseen []string `json:"unseen"`
}

// ProgramRow is one row of `prog list`.
type ProgramRow struct {
	// Name is what other verbs take as a target: "id:241".
	Name string `json:"name"`
	ID   uint32 `json:"id"`
	// Program is its name, as far as its BTF or the kernel has it; empty for none, and
	// where the kernel does not show it.
	Program string `json:"program"`
	// Type is "xdp"; or "extension": a part of a libxdp dispatcher (freplace). Empty where
	// the kernel does not show it.
	Type string `json:"type"`
	// Tag is the hash of its instructions as they were loaded.
	Tag string `json:"tag"`
	// JitedBytes is the size of its machine code, 0 when it is interpreted.
	JitedBytes uint32 `json:"jited-bytes"`
	// Loaded is when; nil where the kernel does not show it.
	Loaded *time.Time `json:"loaded,omitempty"`
	// Dispatcher is "in" or "out" of the BPF dispatcher, "unknown" where that could not be
	// read; empty for a program that no device calls.
	Dispatcher string `json:"dispatcher,omitempty"`
	// Attached are the devices that run it.
	Attached []Attachment `json:"attached"`
	// Entries are the entries of maps that hold it.
	Entries []MapEntry `json:"entries"`
	// PartOf is the libxdp dispatcher that an extension is a part of, Slot its function
	// there ("prog0"); Parts are the parts of a dispatcher, in the order they run.
	PartOf uint32   `json:"part-of,omitempty"`
	Slot   string   `json:"slot,omitempty"`
	Parts  []uint32 `json:"parts,omitempty"`
	// Tracers are programs that run at its entry or exit (fentry, fexit).
	Tracers []ProgramName `json:"tracers,omitempty"`
	// Holders are processes that have it or its link open.
	Holders []Process `json:"holders,omitempty"`
	// Pins are the paths at which it, or its link, is pinned.
	Pins []string `json:"pins,omitempty"`
	// MapIDs are its maps.
	MapIDs []uint32 `json:"map-ids"`
}

// Attachment is a device that runs a program.
type Attachment struct {
	// Device is its name, empty where the device is in a namespace that was not looked
	// into; Index its number there.
	Device string `json:"device"`
	Index  uint32 `json:"index"`
	// Driver is its driver's name; empty where it does not tell.
	Driver string `json:"driver,omitempty"`
	// Namespace is the inode of its network namespace, 0 when unknown; Where is what people
	// call it, empty for the one that unthunk runs in.
	Namespace uint64 `json:"namespace"`
	Where     string `json:"namespace-name,omitempty"`
	// Mode is "native", "generic" or "offloaded"; empty when unknown.
	Mode string `json:"mode"`
	// By is "link" or "netlink"; "unknown" where links and devices do not tell. Link is
	// the link's number.
	By   string `json:"by"`
	Link uint32 `json:"link,omitempty"`
}

// MapEntry is an entry of a map that holds a program.
type MapEntry struct {
	Map uint32 `json:"map"`
	Key uint32 `json:"key"`
}

// ProgramMap is a map.
type ProgramMap struct {
	ID   uint32 `json:"id"`
	Name string `json:"map-name"`
	// Type is the kernel's name: "lru_hash".
	Type       string `json:"map-type"`
	KeyBytes   uint32 `json:"key-bytes"`
	ValueBytes uint32 `json:"value-bytes"`
	MaxEntries uint32 `json:"max-entries"`
	// Programs are what its entries hold, of a prog_array, devmap or cpumap.
	Programs []HeldProgram `json:"programs,omitempty"`
	// Partial says why not all of its entries were read; empty when they were.
	Partial string `json:"why-partial,omitempty"`
}

// HeldProgram is a program in an entry of a map.
type HeldProgram struct {
	Key     uint32 `json:"key"`
	Program uint32 `json:"program-id"`
}

// Observer is a program at a tracepoint of XDP.
type Observer struct {
	Tracepoint string `json:"tracepoint"`
	ProgramName
	// Holders are processes that have its link open.
	Holders []Process `json:"holders,omitempty"`
}

// ProgramName is a BPF program by number and name.
type ProgramName struct {
	ID   uint32 `json:"program-id"`
	Name string `json:"program"`
}

// Process is a process.
type Process struct {
	PID  int    `json:"pid"`
	Name string `json:"process"`
}

// Namespace is a network namespace.
type Namespace struct {
	Inode uint64 `json:"inode"`
	// Name is that in /run/netns, the path of another mount, or a process in it; empty for
	// the one that unthunk runs in.
	Name string `json:"namespace-name"`
	// Devices is how many it has.
	Devices int `json:"devices"`
	// Unseen says why it could not be looked into; empty when it was.
	Unseen string `json:"why-unseen,omitempty"`
}

// DispatcherState is the BPF dispatcher for XDP.
type DispatcherState struct {
	// Programs is how many it holds, Slots how many it can. A kernel without a dispatcher
	// has 0 slots.
	Programs int `json:"in-dispatcher"`
	Slots    int `json:"slots"`
	// Fallback is how a program that is not in it is called.
	Fallback string `json:"fallback,omitempty"`
}

// Statistics say whether the kernel times each run of each BPF program.
type Statistics struct {
	// Sysctl is kernel.bpf_stats_enabled; nil where it cannot be read.
	Sysctl *bool `json:"sysctl"`
	// Holders are processes that switched it on for as long as they run
	// (BPF_ENABLE_STATS).
	Holders []Process `json:"switched-on-by"`
}

// On tells whether runs are timed, as far as can be seen.
func (s Statistics) On() bool { return s.Sysctl != nil && *s.Sysctl || len(s.Holders) > 0 }

// ProgramCost is what packets pay beside the instructions of the programs themselves.
type ProgramCost struct {
	// What is there, one clause.
	What string `json:"what"`
	// Each is who pays: "packet of eth0", "redirect".
	Each string `json:"each"`
	// Row of a record of tax that the price is of; empty where it has none.
	Row string `json:"price-of,omitempty"`
	// Ns is the price, nil where none is known; Source where it is from.
	Ns     *stat.Quantity `json:"ns"`
	Source string         `json:"source,omitempty"`
	// Note says what else the price holds, or why there is none.
	Note string `json:"note,omitempty"`
	// More verbs say more: "unthunk prog xray id:241".
	More string `json:"more,omitempty"`
}

// Dispatcher answers of [ProgramRow.Dispatcher].
const (
	InDispatcher      = "in"
	OutOfDispatcher   = "out"
	DispatcherUnknown = "unknown"
)

// Modes of [Attachment.Mode].
const (
	NativeMode    = "native"
	GenericMode   = "generic"
	OffloadedMode = "offloaded"
)

// Map returns a map of the record by its number; nil when it has none of that number.
func (p *ProgramListParts) Map(id uint32) *ProgramMap {
	if i := slices.IndexFunc(p.Maps, func(m ProgramMap) bool { return m.ID == id }); i >= 0 {
		return &p.Maps[i]
	}
	return nil
}

// On is where the device is: "eth0", "veth1 in blue".
func (a *Attachment) On() string {
	on := a.Device
	if on == "" {
		on = fmt.Sprintf("device %d of a namespace that was not seen", a.Index)
	}
	if a.Where != "" {
		on += " in " + a.Where
	}
	return on
}

// InUse tells whether something may run the program: a device, a map, a dispatcher.
func (r *ProgramRow) InUse() bool { return len(r.Attached)+len(r.Entries) > 0 || r.PartOf != 0 }

// Reached are the programs that a program on a device may run, by number: those in its maps and in the maps of what it
// reaches, and the parts of a dispatcher. Programs on devices are among them.
func (d *ProgramList) Reached() map[uint32]bool {
	rows := make(map[uint32]*ProgramRow, len(d.Rows))
	held := make(map[uint32][]HeldProgram, len(d.Maps))
	var next []uint32
	for i := range d.Rows {
		rows[d.Rows[i].ID] = &d.Rows[i]
		if len(d.Rows[i].Attached) > 0 {
			next = append(next, d.Rows[i].ID)
		}
	}
	for i := range d.Maps {
		held[d.Maps[i].ID] = d.Maps[i].Programs
	}
	reached := make(map[uint32]bool)
	for len(next) > 0 {
		id := next[len(next)-1]
		next = next[:len(next)-1]
		row := rows[id]
		if reached[id] || row == nil {
			continue
		}
		reached[id] = true
		next = append(next, row.Parts...)
		for _, m := range row.MapIDs {
			for _, p := range held[m] {
				next = append(next, p.Program)
			}
			delete(held, m) // each map once
		}
	}
	return reached
}

// Title is its name and target: "xdp_lb id:241".
func (r *ProgramRow) Title() string {
	if r.Program == "" {
		return r.Name
	}
	return r.Program + " " + r.Name
}

func (r *ProgramRow) rowName() string { return r.Name }

// maxOfProgram bounds each list of a row, maxPrograms those of a record.
const (
	maxOfProgram = 10_000
	maxPrograms  = 100_000
)

func (r *ProgramRow) check() error {
	texts := append([]string{r.Program, r.Type, r.Tag, r.Slot}, r.Pins...)
	for _, a := range r.Attached {
		texts = append(texts, a.Device, a.Driver, a.Where, a.Mode, a.By)
	}
	for _, p := range r.Holders {
		texts = append(texts, p.Name)
	}
	for _, t := range r.Tracers {
		texts = append(texts, t.Name)
	}
	if n := max(len(r.Attached), len(r.Entries), len(r.Parts), len(r.Tracers), len(r.Holders), len(r.Pins), len(r.MapIDs)); n > maxOfProgram {
		return fmt.Errorf("%d entries of one list: at most %d are possible", n, maxOfProgram)
	}
	if !slices.Contains([]string{"", InDispatcher, OutOfDispatcher, DispatcherUnknown}, r.Dispatcher) {
		return fmt.Errorf("impossible dispatcher %.60q", r.Dispatcher)
	}
	return checkTexts(texts)
}

// check checks a record of prog list.
func (d *ProgramList) check() error {
	if err := d.RunParts.checkNone(d.Kind); err != nil {
		return err
	}
	if n := max(len(d.Namespaces), len(d.Maps), len(d.Observers), len(d.Costs), len(d.Unseen)); n > maxPrograms {
		return fmt.Errorf("%d entries of one list: at most %d are possible", n, maxPrograms)
	}
	texts := slices.Clone(d.Unseen)
	for _, n := range d.Namespaces {
		texts = append(texts, n.Name, n.Unseen)
	}
	for i := range d.Maps {
		texts = append(texts, d.Maps[i].Name, d.Maps[i].Type, d.Maps[i].Partial)
	}
	for _, o := range d.Observers {
		texts = append(texts, o.Tracepoint, o.Name)
		for _, p := range o.Holders {
			texts = append(texts, p.Name)
		}
	}
	for _, p := range d.Statistics.Holders {
		texts = append(texts, p.Name)
	}
	if s := d.Dispatcher; s != nil {
		texts = append(texts, s.Fallback)
		if s.Programs < 0 || s.Slots < 0 {
			return errors.New("an impossible dispatcher")
		}
	}
	if err := checkTexts(texts); err != nil {
		return err
	}
	if err := checkEach("cost", d.Costs); err != nil {
		return err
	}
	return checkRows(d.Rows, nil)
}

func (c *ProgramCost) check() error {
	if err := checkTexts([]string{c.What, c.Each, c.Row, c.Source, c.Note, c.More}); err != nil {
		return err
	}
	return checkQuantities([]quantity{{"ns", "ns", c.Ns, true}})
}
