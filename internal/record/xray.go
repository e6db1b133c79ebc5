package record

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// SiteRow is one row of `xray`: an indirect branch on the redirect path.
type SiteRow struct {
	// Name is stable from build to build: the function and what is called,
	// numbered where that repeats: "bq_xmit_all/net_device_ops.ndo_xdp_xmit".
	Name string `json:"name"`
	// Function it is in, Offset in bytes from its start.
	Function string `json:"function"`
	Offset   uint64 `json:"offset"`
	// Kind is how it is made: "thunk", "its-thunk", "lfence", "register",
	// "memory". Jump is set for a tail call or a switch.
	Kind string `json:"kind"`
	Jump bool   `json:"jump,omitempty"`
	// Thunk is the symbol it goes through, empty without one.
	Thunk string `json:"thunk,omitempty"`
	// Check is how CFI tests the target first: "kcfi", "kcfi-udb", "kcfi-off", "fineibt" or
	// "fineibt-paranoid"; empty without CFI.
	Check string `json:"check,omitempty"`
	// Instructions is how many run to the first of the called function, those of the check and
	// of the thunk among them, 0 when they cannot be read; Loads how many of them read the text in
	// front of the function. Preamble is how many more run there, for FineIBT; 0 also when
	// nothing says what is called.
	Instructions int `json:"instructions,omitempty"`
	Loads        int `json:"loads,omitempty"`
	Preamble     int `json:"preamble,omitempty"`
	// Stage of the path: receive, program, redirect, bulk-queue, transmit,
	// completion, return, page-pool or dma.
	Stage string `json:"stage"`
	// Pointer is the chain of struct members the target is read from, null
	// when unknown; Confidence is "certain", "likely" or "unknown".
	Pointer    *string `json:"calls"`
	Confidence string  `json:"sure"`
	// Targets are the functions that the pointer holds now; live only.
	Targets []string `json:"targets,omitempty"`
	// Per is how often it runs: "packet", "bulk", "poll", "rare" or
	// "unknown". Always is set when each run of the function, rare
	// ones left out, reaches it.
	Per    string `json:"per"`
	Always bool   `json:"always"`
	// Via are the functions from a root of the path to this one.
	Via []string `json:"via"`
	// CannotRun says why the branch cannot run in this setup, though it is on the path in
	// code: no memory of the device is mapped for DMA, or the machine has no IOMMU. Empty
	// when it may run, or when that is not known.
	CannotRun string `json:"cannot-run,omitempty"`
	// PerPacket is how often a guest of lab executed it for a packet, all parts of the
	// chain together; nil without a count. [XrayParts.Counts] says which guest.
	PerPacket *float64 `json:"per-packet,omitempty"`
}

// Aside tells whether it is left out of tables that have no room for errors and slow paths:
// it is rare, and no guest executed it.
func (r *SiteRow) Aside() bool { return r.Per == "rare" && (r.PerPacket == nil || *r.PerPacket == 0) }

// SiteCounts says where the counts of an inventory are from.
type SiteCounts struct {
	// Row of a record of lab, and its kernel's own name.
	Row     string `json:"row"`
	Release string `json:"release"`
	// CallsPerPacket are all that the guest counted: at the rows of the inventory, and
	// at Others, which the inventory does not have.
	CallsPerPacket float64   `json:"calls"`
	Others         []LabSite `json:"others,omitempty"`
}

// PartialFunction is a function of the path that could not be followed to its
// end: what it calls indirectly may be missing.
type PartialFunction struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

func (r *SiteRow) check() error {
	texts := append([]string{r.Function, r.Kind, r.Thunk, r.Check, r.Stage, r.Confidence, r.Per, r.CannotRun, r.what()}, r.Targets...)
	for _, text := range append(texts, r.Via...) {
		if utf8.RuneCountInString(text) > MaxText || !printable(text) {
			return fmt.Errorf("impossible text %.60q", text)
		}
	}
	if r.Function == "" || r.Kind == "" || r.Per == "" {
		return errors.New("it has no function, kind or per")
	}
	if min(r.Instructions, r.Loads, r.Preamble) < 0 {
		return fmt.Errorf("impossible number of instructions at %s", r.Function)
	}
	if r.PerPacket != nil && !possibleCount(*r.PerPacket) {
		return fmt.Errorf("impossible count at %s", r.Function)
	}
	return nil
}

// what is called, "unknown" when that is not known.
func (r *SiteRow) what() string {
	if r.Pointer == nil {
		return "unknown"
	}
	return *r.Pointer
}

// XrayParts are what a record of xray has beside its rows; empty in all others.
type XrayParts struct {
	// Partial are functions that could not be followed to their end.
	Partial []PartialFunction `json:"partial,omitempty"`
	// Code is that of the thunks which indirect calls and returns go through, as it
	// is in memory; of the running kernel only.
	Code []Listing `json:"code,omitempty"`
	// Counts are those of a guest, where a record of lab was given.
	Counts *SiteCounts `json:"counts,omitempty"`
}

func (r *SiteRow) rowName() string { return r.Name }

func checkSites(d *Document[SiteRow]) error {
	if err := checkListings(d.Code); err != nil {
		return err
	}
	if err := d.Counts.check(); err != nil {
		return err
	}
	return checkRows(d.Rows, nil)
}

func (c *SiteCounts) check() error {
	if c == nil {
		return nil
	}
	if err := checkTexts([]string{c.Row, c.Release}); err != nil {
		return err
	}
	if !possibleCount(c.CallsPerPacket) {
		return fmt.Errorf("impossible count %v", c.CallsPerPacket)
	}
	if len(c.Others) > MaxRows {
		return errors.New("too many sites")
	}
	return checkLabSites(c.Others)
}
