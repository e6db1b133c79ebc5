package list

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/ksym"
)

// program is a loaded program of XDP, or a part of one.
type program struct {
	record.ProgramRow
	// main is its first function in memory; zero when interpreted or hidden.
	main ksym.Symbol
	// types is the number of its BTF, 0 for none.
	types btf.ID
	// unseen says why its code cannot be read.
	unseen error
}

// errTooMany says that there are more programs than a record has rows.
var errTooMany = fmt.Errorf("more than %d programs", record.MaxRows)

// programs lists the programs of type XDP that are loaded, whoever uses them, and the
// extensions of other programs. Requires CAP_SYS_ADMIN.
func programs(ctx context.Context) (map[uint32]*program, error) {
	started := bootTime()
	found := make(map[uint32]*program)
	for id := ebpf.ProgramID(0); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list programs: %w", err)
		}
		id = next
		p, err := openProgram(id, started)
		switch {
		case errors.Is(err, fs.ErrNotExist): // unloaded since
		case err != nil:
			return nil, fmt.Errorf("read program %d: %w", id, err)
		case p != nil && len(found) == record.MaxRows:
			return nil, fmt.Errorf("list programs: %w", errTooMany)
		case p != nil:
			found[uint32(id)] = p
		}
	}
}

// openProgram reads a program by its number; nil for one of another type.
func openProgram(id ebpf.ProgramID, started time.Time) (*program, error) {
	handle, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	kind := ""
	switch handle.Type() {
	case ebpf.XDP:
		kind = "xdp"
	case ebpf.Extension:
		kind = "extension"
	default:
		return nil, nil
	}
	about, err := kernel.AboutProgram(handle)
	if err != nil {
		return nil, err
	}
	p := &program{ProgramRow: row(uint32(id)), types: about.Types, unseen: about.Unseen}
	p.Program, p.Type, p.Tag, p.JitedBytes = clean(about.Name), kind, about.Tag, about.JitedBytes
	if about.Loaded > 0 && !started.IsZero() {
		at := started.Add(about.Loaded).UTC().Truncate(time.Second)
		p.Loaded = &at
	}
	for _, m := range about.Maps {
		p.MapIDs = append(p.MapIDs, uint32(m))
	}
	slices.Sort(p.MapIDs)
	if len(about.Functions) > 0 {
		p.main = about.Functions[0]
	}
	return p, nil
}

// row is one of which only the number is known.
func row(id uint32) record.ProgramRow {
	return record.ProgramRow{
		Name: fmt.Sprintf("id:%d", id), ID: id, Attached: []record.Attachment{}, Entries: []record.MapEntry{}, MapIDs: []uint32{},
	}
}

// bootTime is when the machine started, by the clock that stamps loaded programs
// (CLOCK_BOOTTIME); zero where it cannot be read.
func bootTime() time.Time {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(since.Nano()))
}

// functionName is the name of a function by its type in a program's BTF; empty where it
// cannot be read.
func functionName(types btf.ID, id btf.TypeID) string {
	spec, err := kernel.ProgramTypes(types)
	if err != nil {
		return ""
	}
	t, err := spec.TypeByID(id)
	if err != nil {
		return ""
	}
	return clean(t.TypeName())
}
