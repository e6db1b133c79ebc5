package progcode

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
)

// maxText bounds a line of the source in a record, in characters.
const maxText = 300

// Record is the document of what was read, on a machine.
func (c *Code) Record(machine host.Fingerprint) *record.ProgXray {
	doc := &record.ProgXray{
		Document: *record.New[record.ProgSiteRow]("prog-xray", machine),
		Program:  c.about(), Dispatcher: c.dispatcher,
		Maps: []record.ProgXrayMap{}, Functions: []record.ProgXrayFunction{},
		Returns: c.Returns, Changes: []record.ProgXrayChange{},
	}
	for _, f := range c.Functions[:min(len(c.Functions), record.MaxRows)] {
		doc.Functions = append(doc.Functions, record.ProgXrayFunction{Name: plain(f.Name), Bytes: len(f.Code)})
	}
	for _, m := range c.Maps {
		doc.Maps = append(doc.Maps, record.ProgXrayMap{
			ID: uint32(m.ID), Name: c.mapName(m), Type: m.typeName(), MaxEntries: m.MaxEntries, Filled: m.Filled,
		})
	}
	doc.Rows = c.rows(doc)
	if c.Hidden != "" {
		doc.Warn("", "not seen: "+c.Hidden)
	}
	if c.Unseen != "" {
		doc.Warn("", "which maps are looked into is not known: "+plain(c.Unseen))
	}
	if c.Unpaired > 0 {
		doc.Warn("", fmt.Sprintf("in %d places the machine code does not follow the program that the kernel shows (constants may be "+
			"blinded, net.core.bpf_jit_harden): which maps are looked into there is not known", c.Unpaired))
	}
	return doc
}

func (c *Code) about() record.ProgXrayProgram {
	return record.ProgXrayProgram{
		Name: plain(c.Name), ID: uint32(c.ID), Tag: c.Tag, Type: typeName(c.Type), BPFInstructions: c.Xlated, Bytes: c.Native,
	}
}

// mapName is the name of a map, or its id when it has none.
func (c *Code) mapName(m Map) string {
	return cmp.Or(plain(m.Name), fmt.Sprintf("map %d", m.ID))
}

// rows are those of the sites. What is called directly is left out where there are more than a
// record has room for.
func (c *Code) rows(doc *record.ProgXray) []record.ProgSiteRow {
	sites := c.Sites
	if left := len(sites) - record.MaxRows; left > 0 {
		sites = slices.Clone(sites)
		sites = slices.DeleteFunc(sites, func(s Site) bool {
			drop := left > 0 && !s.Indirect && !s.Generic && s.Kind != KindCallback
			left -= b2i(drop)
			return drop
		})
		sites = sites[:min(len(sites), record.MaxRows)]
		doc.Warn("", fmt.Sprintf("%d places are left out, of calls that are direct first: a record has %d",
			len(c.Sites)-len(sites), record.MaxRows))
	}
	out := []record.ProgSiteRow{}
	seen := make(map[string]int)
	for i := range sites {
		row := c.row(&sites[i])
		seen[row.Name]++
		if n := seen[row.Name]; n > 1 {
			row.Name += fmt.Sprintf("#%d", n)
		}
		out = append(out, row)
	}
	return out
}

func (c *Code) row(s *Site) record.ProgSiteRow {
	row := record.ProgSiteRow{
		Function: plain(c.Functions[s.Function].Name), Kind: string(s.Kind), Made: s.Made, Indirect: s.Indirect,
		Calls: plain(s.Calls), Thunk: plain(s.Thunk), Within: s.Within, Generic: s.Generic, Index: s.Index,
		Source: s.Line.record(),
	}
	if s.Offset >= 0 {
		offset := uint64(s.Offset)
		row.Offset = &offset
	}
	for _, n := range s.Maps {
		row.Maps = append(row.Maps, c.mapName(c.Maps[n]))
		row.Programs = append(row.Programs, c.programs(s, &c.Maps[n])...)
	}
	for _, n := range s.Inner {
		row.Inner = append(row.Inner, c.mapName(c.Maps[n]))
	}
	what := strings.Join(row.Maps, ",")
	if what == "" && len(row.Inner) > 0 {
		what = "in " + strings.Join(row.Inner, ",")
	}
	row.Name = strings.TrimSpace(fmt.Sprintf("%s/%s %s", row.Function, row.Kind, cmp.Or(what, row.Calls)))
	if len(row.Name) > 200 {
		row.Name = strings.ToValidUTF8(row.Name[:200], "")
	}
	return row
}

// programs are those that a tail call may jump to now, of one table.
func (c *Code) programs(s *Site, table *Map) (out []string) {
	switch {
	case s.Kind != KindTailCall:
		return nil
	case s.Index != nil:
		if name := table.entries[*s.Index]; name != "" {
			return []string{plain(name)}
		}
		return nil
	}
	for _, p := range table.Programs {
		out = append(out, plain(p))
	}
	return out
}

// record is a line as records have it, nil for none.
func (l *Line) record() *record.SourceLine {
	if l == nil {
		return nil
	}
	return &record.SourceLine{File: plain(l.File), Line: l.Number, Column: l.Column, Text: plain(l.Text)}
}

// plain is a text that others wrote, as a record may have it.
func plain(s string) string { return record.Text(s, maxText, ' ') }

// typeName is the type of a program as records have it.
func typeName(t ebpf.ProgramType) string {
	switch t {
	case ebpf.XDP:
		return "xdp"
	case ebpf.Extension:
		return "extension"
	}
	return strings.ToLower(t.String())
}

// readDispatcher reads whether the BPF dispatcher calls the program directly.
func (c *Code) readDispatcher() error {
	programs, fallback, err := c.kernel.Dispatcher()
	if errors.Is(err, kernel.ErrNoDispatcher) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read BPF dispatcher: %w", err)
	}
	main := c.Functions[0]
	c.dispatcher = &record.ProgXrayDispatcher{
		In: slices.ContainsFunc(programs, func(addr uint64) bool {
			return addr-main.Addr < uint64(len(main.Code))
		}),
		Programs: len(programs), Slots: kernel.DispatcherSlots, Fallback: fallback,
	}
	return nil
}

// Listing is the document of its functions, on a machine. Their instructions are [Code.Lines]: those of a program of a
// million take hundreds of MB at once.
func (c *Code) Listing(machine host.Fingerprint) *record.ProgCode {
	doc := &record.ProgCode{Head: record.New[record.ProgSiteRow]("prog-code", machine).Head, Program: c.about()}
	for _, f := range c.Functions {
		doc.Listings = append(doc.Listings, record.ProgListing{Name: plain(f.Name), Address: f.Addr, Lines: []record.ProgListingLine{}})
	}
	return doc
}

// Lines are the instructions of a function, by its number.
func (c *Code) Lines(function int) iter.Seq[record.ProgListingLine] {
	return func(yield func(record.ProgListingLine) bool) {
		f, sites := &c.Functions[function], c.sitesOf(function)
		lines, last := f.Lines, ""
		for a := range c.kernel.Annotated(f.Code, f.Addr) {
			line := record.ProgListingLine{ListingLine: record.ListingLine{
				Offset: a.Addr - f.Addr, Text: a.Text, Note: a.Note, Indirect: a.Indirect,
			}}
			if s := sites[line.Offset]; s != nil {
				line.Indirect, line.Note = s.Indirect, cmp.Or(c.note(s), line.Note)
			}
			for len(lines) > 0 && lines[0].Offset <= line.Offset {
				if at := fmt.Sprint(lines[0].File, lines[0].Number); at != last {
					line.Source, last = lines[0].record(), at
				}
				lines = lines[1:]
			}
			if !yield(line) {
				return
			}
		}
	}
}

// sitesOf are the sites of a function by their offset.
func (c *Code) sitesOf(function int) map[uint64]*Site {
	out := make(map[uint64]*Site)
	for i := range c.Sites {
		if s := &c.Sites[i]; s.Function == function && s.Offset >= 0 {
			out[uint64(s.Offset)] = s
		}
	}
	return out
}

// note is what a site does, where more is known than its instruction shows.
func (c *Code) note(s *Site) string {
	row := c.row(s)
	what := strings.Join(row.Maps, " or ")
	switch {
	case what == "" && !s.Indirect:
		return ""
	case s.Kind == KindTailCall && len(row.Programs) > 0:
		what += ": " + strings.Join(row.Programs, ", ")
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", s.Kind, what))
}
