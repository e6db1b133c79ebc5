package list

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
)

// Options of [Read].
type Options struct {
	// Processes says to look into what processes have open, and into their network
	// namespaces. Without it only the own namespace and those with a name are looked into.
	Processes bool
}

// Found is what Read found. Costs of the parts are left to the caller.
type Found struct {
	Rows []record.ProgramRow
	record.ProgramListParts
}

// Read finds the XDP programs of this machine. What it cannot see for want of rights is
// named in Unseen: without any it lists the programs of the devices of its own network
// namespace, by their numbers. It attaches nothing and changes nothing; to see the BPF
// dispatcher it loads a program of its own that reads kernel memory ([kernel.OpenNamed]). It
// takes about 0.1 s, and 0.2 s with 500 programs.
func Read(ctx context.Context, opts Options) (*Found, error) {
	r := &reading{found: &Found{}, attached: make(map[uint32][]record.Attachment), processes: &held{}, programs: make(map[uint32]*program)}
	err := r.namespaces(ctx, opts)
	if err == nil {
		err = r.loaded(ctx)
	}
	if err != nil {
		return nil, err
	}
	r.attach()
	if err := r.entries(ctx); err != nil {
		return nil, err
	}
	r.dispatcher()
	r.statistics()
	return r.finish(), nil
}

// reading is what Read has found so far.
type reading struct {
	found *Found
	// attached are the programs on devices, by number.
	attached  map[uint32][]record.Attachment
	processes *held
	// mounts is the table of mounts, pins what is pinned.
	mounts string
	pins   pins
	// links is nil where they cannot be read.
	links    *links
	programs map[uint32]*program
}

// unseen notes what could not be looked at.
func (r *reading) unseen(format string, args ...any) {
	r.found.Unseen = append(r.found.Unseen, clean(fmt.Sprintf(format, args...)))
}

// refused notes what the kernel refuses: for want of rights, or as it has no such call. It
// returns all other errors.
func (r *reading) refused(what string, err error, needs ...feature.Capability) error {
	if errors.Is(err, unix.ENOSYS) {
		r.unseen("%s: %v", what, err)
		return nil
	}
	if !errors.Is(err, fs.ErrPermission) { // EPERM, EACCES
		return err
	}
	r.unseen("%s: %v", what, feature.Refused(err, needs...))
	return nil
}

// namespaces finds the network namespaces and lists their devices.
func (r *reading) namespaces(ctx context.Context, opts Options) error {
	all := make(namespaces)
	if err := all.addOwn(); err != nil {
		return err
	}
	all.addNamed(namedFolder)
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		all.addMounted(string(mounts))
		r.mounts = string(mounts)
	}
	if opts.Processes {
		processes, err := processes(ctx, all)
		if err != nil {
			return err
		}
		r.processes = processes
		if n := processes.refused; n > 0 {
			r.unseen("what processes have open, and their namespaces, of %d: %v", n,
				feature.Refused(unix.EACCES, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH))
		}
	}
	var failed error
	err := visit(ctx, all.sorted(), func(n *namespace, refused error) {
		var count int
		if refused == nil {
			var found map[uint32][]record.Attachment
			if count, found, refused = attachments(n); n.rank == rankOwn && refused != nil {
				failed = refused
			}
			for id, list := range found {
				r.attached[id] = append(r.attached[id], list...)
			}
		}
		r.found.Namespaces = append(r.found.Namespaces, n.row(count, refused))
	})
	if err != nil {
		return err // visit may not have ended: failed is its own
	}
	return failed
}

// loaded lists programs and links.
func (r *reading) loaded(ctx context.Context) error {
	programs, err := programs(ctx)
	if err != nil {
		return r.refused("names and code of programs, their maps, links and observers, and programs that no device here runs", err,
			unix.CAP_SYS_ADMIN)
	}
	r.programs = programs
	var large []*program
	for _, p := range programs {
		if p.unseen != nil {
			large = append(large, p)
		}
	}
	slices.SortFunc(large, func(a, b *program) int { return cmp.Compare(a.ID, b.ID) })
	for _, p := range large {
		r.unseen("the code of %s: %v", strings.TrimSpace(p.Name+" "+p.Program), p.unseen)
	}
	links, err := readLinks(ctx)
	if err != nil {
		return r.refused("links and observers", err, unix.CAP_SYS_ADMIN)
	}
	r.links = links
	links.parts(programs)
	r.pins, err = readPins(ctx, r.mounts)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		r.unseen("pins: %v", err)
	}
	return nil
}

// attach notes on which devices the programs are.
func (r *reading) attach() {
	type place struct{ program, device uint32 }
	devices := make(map[place][]*record.Attachment)
	for id, list := range r.attached {
		r.program(id).Attached = list
	}
	for _, p := range r.programs {
		for i := range p.Attached {
			a := &p.Attached[i]
			devices[place{p.ID, a.Index}] = append(devices[place{p.ID, a.Index}], a)
		}
	}
	for at, list := range devices {
		by := r.links.by(at.program, at.device)
		for i, a := range list {
			switch {
			case r.links == nil, len(by) > 0 && len(by) != len(list):
				a.By = "unknown"
			case len(by) > 0:
				a.By, a.Link = "link", by[i].id
			}
		}
	}
	for _, l := range r.links.onDevices() { // on devices of namespaces that were not looked into
		if p := r.programs[l.program]; p != nil && devices[place{l.program, l.device}] == nil {
			p.Attached = append(p.Attached, record.Attachment{Index: l.device, By: "link", Link: l.id})
		}
	}
}

// program is the one of a number, which without rights is all that is known of it.
func (r *reading) program(id uint32) *program {
	p := r.programs[id]
	if p == nil {
		p = &program{ProgramRow: row(id)}
		r.programs[id] = p
	}
	return p
}

// entries lists the maps, and notes which programs their entries hold.
func (r *reading) entries(ctx context.Context) error {
	of := make(map[uint32]bool)
	for _, p := range r.programs {
		for _, id := range p.MapIDs {
			of[id] = true
		}
	}
	list, err := maps(ctx, of)
	if err != nil {
		r.found.Maps = []record.ProgramMap{}
		return r.refused("maps", err, unix.CAP_SYS_ADMIN)
	}
	for _, m := range list {
		for _, held := range m.Programs {
			if p := r.programs[held.Program]; p != nil {
				p.Entries = append(p.Entries, record.MapEntry{Map: m.ID, Key: held.Key})
			}
		}
	}
	r.found.Maps = r.ofXDP(list)
	return nil
}

// ofXDP are maps without those that only hold programs of other types.
func (r *reading) ofXDP(list []record.ProgramMap) []record.ProgramMap {
	used := make(map[uint32]bool)
	for _, p := range r.programs {
		for _, id := range p.MapIDs {
			used[id] = true
		}
	}
	return slices.DeleteFunc(list, func(m record.ProgramMap) bool {
		return !used[m.ID] && !slices.ContainsFunc(m.Programs, func(h record.HeldProgram) bool { return r.programs[h.Program] != nil })
	})
}

// dispatcher tells which of the programs that devices run are in the BPF dispatcher.
func (r *reading) dispatcher() {
	set := func(state func(*program) string) {
		for _, p := range r.programs {
			if len(p.Attached) > 0 && slices.ContainsFunc(p.Attached, onCPU) {
				p.Dispatcher = state(p)
			}
		}
	}
	set(func(*program) string { return record.DispatcherUnknown })
	k, err := kernel.OpenNamed(func(name, _ []byte) bool { return kernel.DispatcherSymbol(name) })
	if err != nil {
		r.unseen("the BPF dispatcher: %v", err)
		return
	}
	defer k.Close()
	addrs, fallback, err := k.Dispatcher()
	switch {
	case errors.Is(err, kernel.ErrNoDispatcher):
		r.found.Dispatcher = &record.DispatcherState{}
		set(func(*program) string { return record.OutOfDispatcher })
		return
	case err != nil:
		r.unseen("the BPF dispatcher: %v", err)
		return
	}
	r.found.Dispatcher = &record.DispatcherState{Programs: len(addrs), Slots: kernel.DispatcherSlots, Fallback: clean(fallback)}
	set(func(p *program) string {
		switch {
		case p.main.Addr == 0 && p.JitedBytes > 0: // hidden by kernel.kptr_restrict
			return record.DispatcherUnknown
		case kernel.Dispatched(addrs, p.main):
			return record.InDispatcher
		}
		return record.OutOfDispatcher
	})
}

// onCPU tells whether a CPU runs the program there: one that is offloaded runs on the NIC.
func onCPU(a record.Attachment) bool { return a.Mode != record.OffloadedMode }

// statistics says whether the kernel times each run.
func (r *reading) statistics() {
	r.found.Statistics.Holders = slices.Concat([]record.Process{}, r.processes.statistics)
	b, err := os.ReadFile("/proc/sys/kernel/bpf_stats_enabled")
	if err != nil {
		return // CONFIG_SYSCTL or the file is not there
	}
	on := strings.TrimSpace(string(b)) != "0"
	r.found.Statistics.Sysctl = &on
}

// finish puts the rows in order: what runs first.
func (r *reading) finish() *Found {
	f := r.found
	for _, p := range r.programs {
		p.Holders = r.holders(p)
		p.Pins = r.pinned(p)
		slices.SortFunc(p.Attached, func(a, b record.Attachment) int {
			return cmp.Or(cmp.Compare(r.order(a.Namespace), r.order(b.Namespace)), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Mode, b.Mode))
		})
		f.Rows = append(f.Rows, p.ProgramRow)
	}
	if f.Rows = r.ofRows(f.Rows); f.Rows == nil {
		f.Rows = []record.ProgramRow{}
	}
	slices.SortFunc(f.Rows, func(a, b record.ProgramRow) int {
		return cmp.Or(cmp.Compare(r.rank(&a), r.rank(&b)), cmp.Compare(a.ID, b.ID))
	})
	if r.links != nil {
		f.Observers = []record.Observer{}
	}
	for _, o := range r.links.observing() {
		f.Observers = append(f.Observers, record.Observer{
			Tracepoint:  clean(o.Tracepoint),
			ProgramName: record.ProgramName{ID: uint32(o.ID), Name: clean(o.Program)}, Holders: r.processes.links[uint32(o.Link)],
		})
	}
	slices.SortFunc(f.Observers, func(a, b record.Observer) int {
		return cmp.Or(cmp.Compare(a.Tracepoint, b.Tracepoint), cmp.Compare(a.ID, b.ID))
	})
	f.Costs = []record.ProgramCost{}
	if f.Unseen == nil {
		f.Unseen = []string{}
	}
	return f
}

// ofRows leaves out extensions of programs that are not of XDP.
func (r *reading) ofRows(rows []record.ProgramRow) []record.ProgramRow {
	return slices.DeleteFunc(rows, func(p record.ProgramRow) bool { return p.Type == "extension" && p.PartOf == 0 })
}

// holders are the processes that have a program or its links open.
func (r *reading) holders(p *program) []record.Process {
	list := slices.Clone(r.processes.programs[p.ID])
	for _, a := range p.Attached {
		for _, who := range r.processes.links[a.Link] {
			if a.Link != 0 && !slices.Contains(list, who) {
				list = append(list, who)
			}
		}
	}
	return list[:min(len(list), maxHolders)]
}

// pinned are the paths at which a program or its links are pinned.
func (r *reading) pinned(p *program) []string {
	list := slices.Clone(r.pins.programs[p.ID])
	for _, a := range p.Attached {
		if a.Link != 0 {
			list = append(list, r.pins.links[a.Link]...)
		}
	}
	return list
}

// rank orders rows: on devices of the own namespace, on others, held by maps, loaded only.
func (r *reading) rank(p *record.ProgramRow) int {
	switch {
	case len(p.Attached) > 0:
		return r.order(p.Attached[0].Namespace)
	case p.InUse():
		return len(r.found.Namespaces) + 1
	}
	return len(r.found.Namespaces) + 2
}

// order is the place of a namespace.
func (r *reading) order(inode uint64) int {
	if i := slices.IndexFunc(r.found.Namespaces, func(n record.Namespace) bool { return n.Inode == inode }); i >= 0 {
		return i
	}
	return len(r.found.Namespaces)
}
