package cells

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// MaxNamed is how many devices, entries and programs are named of a program; the record has
// all.
const MaxNamed = 8

// Attachment says on which device a program is.
func Attachment(a record.Attachment) string {
	on := "on " + a.On()
	if a.Driver != "" {
		on += " (" + a.Driver + ")"
	}
	how := map[string]string{"link": fmt.Sprintf("by link %d", a.Link), "netlink": "by netlink"}[a.By]
	return Join(", ", on, a.Mode, how)
}

// RunBy says what may run a program: devices, a libxdp dispatcher, entries of maps; empty
// for nothing.
func RunBy(row *record.ProgramRow, doc *record.ProgramList) string {
	var said []string
	for i, a := range row.Attached {
		if i == MaxNamed {
			said = append(said, fmt.Sprintf("and %d more devices", len(row.Attached)-MaxNamed))
			break
		}
		said = append(said, Attachment(a))
	}
	if row.PartOf != 0 {
		said = append(said, "part of "+ProgramName(row.PartOf, doc))
	}
	if len(row.Entries) > 0 {
		said = append(said, "in "+MapEntries(row.Entries, doc))
	}
	return strings.Join(said, "; ")
}

// InDispatcher says whether a program is in the BPF dispatcher; empty for one that no device
// calls.
func InDispatcher(row *record.ProgramRow) string {
	return map[string]string{
		record.InDispatcher: "in the BPF dispatcher", record.OutOfDispatcher: "not in the BPF dispatcher",
		record.DispatcherUnknown: "in the BPF dispatcher or not: not seen",
	}[row.Dispatcher]
}

// Maps names maps with their types.
func Maps(ids []uint32, doc *record.ProgramList) string {
	var names []string
	for _, id := range ids {
		m := doc.Map(id)
		switch {
		case m == nil:
			names = append(names, fmt.Sprintf("id:%d", id))
		case m.Name == "":
			names = append(names, fmt.Sprintf("id:%d (%s)", id, m.Type))
		default:
			names = append(names, fmt.Sprintf("%s (%s)", m.Name, m.Type))
		}
	}
	return strings.Join(names, ", ")
}

// MapEntries says which entries of maps hold a program.
func MapEntries(entries []record.MapEntry, doc *record.ProgramList) string {
	var said []string
	for i, e := range entries {
		if i == MaxNamed {
			said = append(said, fmt.Sprintf("%d more", len(entries)-MaxNamed))
			break
		}
		name := fmt.Sprintf("map id:%d", e.Map)
		if m := doc.Map(e.Map); m != nil {
			name = strings.TrimSpace(m.Type + " " + m.Name)
			if m.Name == "" {
				name += fmt.Sprintf(" id:%d", e.Map)
			}
		}
		said = append(said, fmt.Sprintf("%s[%d]", name, e.Key))
	}
	return strings.Join(said, ", ")
}

// Programs names programs, each once.
func Programs(ids []uint32, doc *record.ProgramList) string {
	var names []string
	seen := make(map[uint32]bool)
	for _, id := range ids {
		if !seen[id] {
			names = append(names, ProgramName(id, doc))
		}
		seen[id] = true
	}
	if n := len(names); n > MaxNamed {
		names = append(names[:MaxNamed], fmt.Sprintf("%d more", n-MaxNamed))
	}
	return strings.Join(names, ", ")
}

// ProgramName is a program's name and target.
func ProgramName(id uint32, doc *record.ProgramList) string {
	for i := range doc.Rows {
		if doc.Rows[i].ID == id {
			return doc.Rows[i].Title()
		}
	}
	return "id:" + strconv.FormatUint(uint64(id), 10)
}
