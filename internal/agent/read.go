package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/progcode"
	"github.com/unthunk/unthunk/internal/program/list"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/xray"
)

// Most of what one run reads.
const (
	maxPaths    = 4  // redirect paths, one of each driver
	maxPrograms = 64 // programs whose code is read, by tag
)

// xraySlots is how many entries of the BPF dispatcher reading a path takes: the program of a veth of its own.
const xraySlots = 1

// Reading is what a run reads: the parts of a record that are no numbers.
type Reading struct {
	Host     host.Fingerprint      `json:"host"`
	Findings []host.Finding        `json:"findings"`
	Paths    []record.AgentPath    `json:"paths"`
	Programs []record.ProgramRow   `json:"programs"`
	Code     []record.ProgramCode  `json:"code"`
	Refused  []record.AgentRefusal `json:"refused"`
	Warnings []record.Warning      `json:"warnings"`
	// Slots is how many entries of the BPF dispatcher it took.
	Slots int `json:"slots"`
}

// Read reads what check, prog list, xray and prog xray read. What cannot be read is in Refused; an error is that of ctx. It
// runs no program, attaches one to a veth of a namespace of its own, and takes half a second to a second.
func Read(ctx context.Context) (*Reading, error) {
	r := &Reading{
		Findings: []host.Finding{}, Paths: []record.AgentPath{}, Programs: []record.ProgramRow{}, Code: []record.ProgramCode{},
		Refused: []record.AgentRefusal{}, Warnings: []record.Warning{},
	}
	found, err := list.Read(ctx, list.Options{})
	r.refuse(record.PartProgList, err)
	if err == nil {
		r.Programs = found.Rows
		for _, text := range found.Unseen {
			r.Warnings = append(r.Warnings, record.Warning{Text: "not seen: " + text})
		}
	}
	k, err := kernel.OpenLive() // after the list: what is attached later is read the next time
	if err != nil {
		r.refuse(record.PartXray, err)
		r.refuse(record.PartProgXray, err)
		r.check(ctx, nil)
		return r, ctx.Err()
	}
	defer k.Close()
	r.check(ctx, k)
	if found != nil {
		r.code(ctx, k, found)
	}
	r.paths(ctx, k, func() ([]uint64, error) { return dispatched(k) })
	return r, ctx.Err()
}

// refuse notes that a part could not be done.
func (r *Reading) refuse(part string, err error) {
	if err == nil {
		return
	}
	r.Refused = append(r.Refused, record.AgentRefusal{Part: part, Reason: reasonOf(err), Text: oneLine(err)})
}

// reasonOf is the word for an error.
func reasonOf(err error) string {
	missing := feature.AsMissing(err)
	switch {
	case errors.Is(err, errDispatcher):
		return record.RefusedDispatcher
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return record.RefusedTime
	case errors.Is(err, fs.ErrPermission), missing != nil && rights(missing.Feature):
		return record.RefusedRights
	case missing != nil:
		return record.RefusedKernel
	}
	return record.RefusedFailed
}

// rights tells whether what is missing is a right: root, a capability, a permission.
func rights(missing string) bool {
	return missing == "root" || missing == "permission" || strings.Contains(missing, "CAP_")
}

// maxLine is the length of a refusal, in characters.
const maxLine = 300

// oneLine is an error as a refusal has it.
func oneLine(err error) string {
	return strings.TrimSuffix(record.Text(strings.Join(strings.Fields(err.Error()), " "), maxLine, '?'), ".")
}

// check adds the fingerprint and the findings. Of network devices only hardware is among them: a machine may have thousands
// of others, one a container.
func (r *Reading) check(ctx context.Context, k *kernel.Kernel) {
	fp, findings, err := host.Check(ctx, host.Options{Kernel: k})
	r.refuse(record.PartCheck, err)
	r.Host = fp
	virtual := func(f host.Finding) bool {
		device, ok := strings.CutPrefix(f.Name, "nic-")
		if !ok {
			return false
		}
		for _, suffix := range []string{"-xdp", "-rings", "-coalescing"} {
			device = strings.TrimSuffix(device, suffix)
		}
		_, err := os.Stat(path.Join("/sys/class/net", device, "device"))
		return err != nil
	}
	r.Findings = append(r.Findings, record.Findings(slices.DeleteFunc(findings, virtual))...)
	r.Host.Drivers = nil // [record.Machine] has those that matter
}

// paths adds the redirect path of each driver whose device has an XDP program, or that of a veth, which takes an entry of the
// BPF dispatcher. Taken are the programs that have one.
func (r *Reading) paths(ctx context.Context, k *kernel.Kernel, taken func() ([]uint64, error)) {
	devices := []string{""}
	seen := make(map[string]bool)
	for _, p := range r.Programs {
		for _, a := range p.Attached {
			if a.Where != "" || a.Mode != record.NativeMode || seen[a.Driver] || len(seen) == maxPaths {
				continue
			}
			if len(seen) == 0 {
				devices = nil
			}
			seen[a.Driver] = true
			devices = append(devices, a.Device)
		}
	}
	for _, device := range devices {
		if device == "" {
			programs, err := taken()
			if free := kernel.DispatcherSlots - len(programs); err == nil && free < leastFree {
				err = fmt.Errorf("%w: %d of %d, and %d have to be for a veth with a program", errDispatcher, free, kernel.DispatcherSlots,
					leastFree)
			}
			if err != nil {
				r.refuse(record.PartXray, err)
				return
			}
			if hasDispatcher(k) {
				r.Slots = xraySlots
			}
		}
		p, err := xray.Read(ctx, k, device, "")
		if err != nil {
			r.refuse(record.PartXray, err)
			continue
		}
		doc := record.New[record.SiteRow]("xray", host.Fingerprint{})
		p.Record(doc)
		r.Paths = append(r.Paths, pathOf(p.Driver, doc.Rows))
	}
}

// pathOf counts the branches of a path.
func pathOf(driver string, rows []record.SiteRow) record.AgentPath {
	out := record.AgentPath{
		Device:      cmp.Or(record.Name(driver), xray.DefaultDriver),
		PacketMaybe: new(0), BulkMaybe: new(0), PollMaybe: new(0), Kinds: make(map[string]int),
	}
	for i := range rows {
		row := &rows[i]
		of, ok := map[string][2]*int{
			"packet": {&out.PerPacket, out.PacketMaybe}, "bulk": {&out.PerBulk, out.BulkMaybe}, "poll": {&out.PerPoll, out.PollMaybe},
		}[row.Per]
		if !ok || row.CannotRun != "" {
			continue
		}
		*of[0]++
		if !row.Always {
			*of[1]++
		}
		out.Kinds[row.Kind]++
	}
	return out
}

// code adds what is in the machine code of each program that a device runs. Programs of one tag have the same.
func (r *Reading) code(ctx context.Context, k *kernel.Kernel, found *list.Found) {
	var observers []string
	for _, o := range found.Observers {
		if slices.Contains([]string{"xdp_redirect", "xdp_redirect_map", "xdp_devmap_xmit"}, o.Tracepoint) {
			observers = append(observers, fmt.Sprintf("%s at %s", o.Name, o.Tracepoint))
		}
	}
	read := make(map[string]record.ProgramCode)
	left, failed := 0, error(nil)
	for _, row := range found.Rows {
		if len(row.Attached) == 0 {
			continue
		}
		if c, ok := read[row.Tag]; ok && row.Tag != "" {
			c.Name = row.Name
			r.Code = append(r.Code, c)
			continue
		}
		if len(read) == maxPrograms || ctx.Err() != nil {
			left++
			continue
		}
		c, err := r.codeOf(k, row.ID, observers)
		if errors.Is(err, fs.ErrNotExist) { // it has just been detached
			continue
		}
		if err != nil {
			left++
			failed = cmp.Or(failed, err)
			continue
		}
		read[row.Tag] = c
		r.Code = append(r.Code, c)
	}
	r.refuse(record.PartProgXray, cmp.Or(failed, ctx.Err()))
	if left > 0 {
		r.Warnings = append(r.Warnings, record.Warning{Text: fmt.Sprintf("the code of %d programs was not read", left)})
	}
}

// codeOf reads the machine code of a program.
func (r *Reading) codeOf(k *kernel.Kernel, id uint32, observers []string) (record.ProgramCode, error) {
	c := record.ProgramCode{Name: fmt.Sprintf("id:%d", id)}
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return c, err
	}
	defer p.Close()
	code, err := progcode.Read(k, p)
	if err != nil {
		return c, err
	}
	doc := code.Record(r.Host)
	progcode.Advise(doc, nil, observers)
	for _, site := range doc.Rows {
		if !site.Indirect {
			continue
		}
		c.Indirect++
		if site.Kind == string(progcode.KindTailCall) {
			c.TailCalls++
		}
	}
	c.Changes = len(doc.Changes)
	return c, nil
}
