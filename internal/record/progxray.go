package record

import (
	"errors"
	"fmt"
	"slices"

	"github.com/unthunk/unthunk/internal/stat"
)

// ProgSiteRow is one row of `prog xray`: a place in the machine code of a program where
// something is called, jumped to or looked up.
type ProgSiteRow struct {
	// Name does not move from build to build: the function, what happens and of what,
	// numbered where that repeats: "balancer/lookup vips".
	Name string `json:"name"`
	// Function it is in, Offset in bytes from its start. Offset is nil where no branch
	// stands: an inlined lookup, a tail call whose entry is empty.
	Function string  `json:"function"`
	Offset   *uint64 `json:"offset"`
	// Kind is what happens: "tail-call", "jump-table", "lookup", "update", "redirect",
	// "callback", "helper", "kfunc", "subprogram", "attached",
	// "replaced", "indirect".
	Kind string `json:"kind"`
	// Made is how: "inline"; "empty" for a tail call to an entry that has no program; else
	// the class of the branch as xray --func has it. Indirect is set for an indirect branch,
	// through a thunk or not.
	Made     string `json:"made"`
	Indirect bool   `json:"indirect,omitempty"`
	// Calls is the function, Thunk what an indirect branch goes through.
	Calls string `json:"calls,omitempty"`
	Thunk string `json:"thunk,omitempty"`
	// Within is how many indirect branches the called function has in its own code.
	Within int `json:"within,omitempty"`
	// Generic is set for a helper that calls the map's own function, of whatever map.
	Generic bool `json:"generic,omitempty"`
	// Maps are the names of those that it may look into, Inner of those whose elements are
	// the maps. None where that is not known.
	Maps  []string `json:"maps,omitempty"`
	Inner []string `json:"inner,omitempty"`
	// Index is the constant index of a tail call, Programs what the table has.
	Index    *int64   `json:"index,omitempty"`
	Programs []string `json:"programs,omitempty"`
	// Source is where it comes from, nil where that is not known.
	Source *SourceLine `json:"source"`
	// Price is what it takes in ns, nil where that was not measured; PriceOf is the row of
	// tax that it is from.
	Price   *stat.Quantity `json:"price,omitempty"`
	PriceOf string         `json:"price-of,omitempty"`
}

// SourceLine is a place in the source of a program, by its BTF.
type SourceLine struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Text   string `json:"text"`
}

// ProgXrayProgram is the program that was read.
type ProgXrayProgram struct {
	Name string `json:"name"`
	// ID is the kernel's, Tag the hash of its instructions.
	ID  uint32 `json:"id"`
	Tag string `json:"tag"`
	// Loaded is set when it was loaded to be read, and is gone.
	Loaded bool `json:"loaded,omitempty"`
	// Type is "xdp", or "extension": a part of a libxdp dispatcher (freplace).
	Type string `json:"type"`
	// Attached are the devices that run it, as far as seen; Entries the entries of maps that
	// hold it, and the dispatcher that a part is in.
	Attached []string `json:"attached,omitempty"`
	Entries  []string `json:"entries,omitempty"`
	// Parts are the programs of a libxdp dispatcher.
	Parts []string `json:"parts,omitempty"`
	// BPFInstructions are those that the verifier left, in units of 8 bytes; Bytes those of
	// the machine code.
	BPFInstructions int `json:"bpf-instructions"`
	Bytes           int `json:"bytes"`
}

// ProgXrayFunction is one function of a program.
type ProgXrayFunction struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

// ProgXrayMap is a map of a program.
type ProgXrayMap struct {
	ID         uint32 `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	MaxEntries uint32 `json:"max-entries"`
	// Filled is how many entries of a table for tail calls have a program.
	Filled int `json:"filled,omitempty"`
}

// ProgXrayDispatcher is how the program is called.
type ProgXrayDispatcher struct {
	// In is set when the BPF dispatcher calls it directly. Programs is how many it does, of
	// Slots; Fallback how all others are called.
	In       bool   `json:"in"`
	Programs int    `json:"programs"`
	Slots    int    `json:"slots"`
	Fallback string `json:"fallback,omitempty"`
}

// ProgXrayChange is a change that makes the program cheaper.
type ProgXrayChange struct {
	// What is "constant-index", "known-map", "inline-loop", "dispatcher", "observers" or "trampoline".
	What string `json:"what"`
	// Rows are the names of the rows that it is of; none for what is outside the program.
	Rows []string `json:"rows,omitempty"`
	// Text is one sentence without a full stop.
	Text string `json:"text"`
	// Saves is in ns each time, nil where that was not measured.
	Saves *stat.Quantity `json:"saves,omitempty"`
}

// ProgXray is the record of `prog xray`.
type ProgXray struct {
	Document[ProgSiteRow]
	Program   ProgXrayProgram    `json:"program"`
	Functions []ProgXrayFunction `json:"functions"`
	Maps      []ProgXrayMap      `json:"maps"`
	// Dispatcher is nil where there is none, or where it could not be read.
	Dispatcher *ProgXrayDispatcher `json:"dispatcher"`
	// Returns counts the returns by the thunk that they jump to, "ret" for bare ones.
	Returns map[string]int   `json:"returns"`
	Changes []ProgXrayChange `json:"changes"`
	// PricesFrom says where prices are from; empty for none.
	PricesFrom string `json:"prices-from,omitempty"`
}

func (r *ProgSiteRow) rowName() string { return r.Name }

func (r *ProgSiteRow) check() error {
	texts := append([]string{r.Function, r.Kind, r.Made, r.Calls, r.Thunk, r.PriceOf}, r.Maps...)
	if s := r.Source; s != nil {
		texts = append(texts, s.File, s.Text)
		if s.Line < 0 || s.Column < 0 {
			return fmt.Errorf("impossible line %d", s.Line)
		}
	}
	if err := checkTexts(append(append(texts, r.Inner...), r.Programs...)); err != nil {
		return err
	}
	switch {
	case r.Function == "" || r.Kind == "" || r.Made == "":
		return errors.New("it has no function, kind or way in which it is made")
	case r.Within < 0:
		return fmt.Errorf("impossible count %d", r.Within)
	case r.Price != nil && r.PriceOf == "":
		return errors.New("a price of nothing")
	}
	return checkQuantities([]quantity{{"price", "ns", r.Price, true}})
}

func (p *ProgXray) check() error {
	if err := checkTexts(append([]string{p.Program.Name, p.Program.Tag, p.Program.Type, p.PricesFrom}, slices.Concat(p.Program.Attached,
		p.Program.Entries, p.Program.Parts)...)); err != nil {
		return err
	}
	if n := len(p.Functions) + len(p.Maps) + len(p.Changes); n > 3*MaxRows {
		return fmt.Errorf("%d functions, maps and changes: at most %d are possible", n, 3*MaxRows)
	}
	counts := []int{p.Program.BPFInstructions, p.Program.Bytes}
	for _, f := range p.Functions {
		if err := checkTexts([]string{f.Name}); err != nil {
			return err
		}
		counts = append(counts, f.Bytes)
	}
	for _, m := range p.Maps {
		if err := checkTexts([]string{m.Name, m.Type}); err != nil {
			return err
		}
		counts = append(counts, m.Filled)
	}
	if d := p.Dispatcher; d != nil {
		if err := checkTexts([]string{d.Fallback}); err != nil {
			return err
		}
		counts = append(counts, d.Programs, d.Slots)
	}
	for thunk, n := range p.Returns {
		if err := checkTexts([]string{thunk}); err != nil {
			return err
		}
		counts = append(counts, n)
	}
	for _, n := range counts {
		if n < 0 {
			return fmt.Errorf("impossible count %d", n)
		}
	}
	if err := checkEach("change", p.Changes); err != nil {
		return err
	}
	return checkRows(p.Rows, nil)
}

func (c *ProgXrayChange) check() error {
	if err := checkTexts(append([]string{c.What, c.Text}, c.Rows...)); err != nil {
		return err
	}
	return checkQuantities([]quantity{{"saving", "ns", c.Saves, true}})
}

// ProgCode is what `prog xray --asm` says with --json. It is written only: no verb reads it.
type ProgCode struct {
	Head
	Program ProgXrayProgram `json:"program"`
	// Listings are the instructions of each function.
	Listings []ProgListing `json:"listings"`
}

// ProgListing is the code of one function.
type ProgListing struct {
	Name    string            `json:"name"`
	Address uint64            `json:"address"`
	Lines   []ProgListingLine `json:"lines"`
}

// ProgListingLine is one instruction.
type ProgListingLine struct {
	ListingLine
	// Source is the line that the code comes from, where it begins here.
	Source *SourceLine `json:"source,omitempty"`
}
