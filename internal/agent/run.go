package agent

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/virtual"
)

// Options of a run. Command is required.
type Options struct {
	// Command is what does a [Part], without its arguments: the part and the number of the CPU.
	Command []string
	// CPU is the one to work on; its zero value is the last housekeeping one.
	CPU rounds.CPU
	// Limits above which nothing is measured.
	Limits Limits
	// Labels are the operator's.
	Labels map[string]string
	// Identity stands for the machine's where it has none of its own; it may be empty.
	Identity string
	// Emulated measures also where the CPU is emulated, by its time, which is none of hardware.
	Emulated bool
	// Anonymous leaves out what names the machine, its devices, or who runs programs there.
	Anonymous bool
	// Version is that of unthunk.
	Version string

	// root is where proc, sys and etc are read, nil for the running machine; watch is how long the CPU is watched.
	root  fs.FS
	watch time.Duration
}

func (o Options) withDefaults() Options {
	if o.root == nil {
		o.root = here()
	}
	if o.watch == 0 {
		o.watch = watched
	}
	return o
}

// Why is why a run is made: [record.AgentParts.Reason] and [record.AgentParts.Changed].
type Why struct {
	Reason  string
	Changed []string
}

// Run makes one run: it reads, and measures unless the machine is too busy for that. What cannot be done is in the record's
// Refused. An error is that of ctx, or says that there is nothing to record.
func Run(ctx context.Context, o Options, why Why) (*record.Agent, error) {
	o = o.withDefaults()
	began, own := time.Now(), cpuTime()
	doc := &record.Agent{
		Document: *record.New[record.TaxRow]("agent", host.Fingerprint{}),
		AgentParts: record.AgentParts{
			Reason: why.Reason, Changed: why.Changed, Findings: []host.Finding{}, Paths: []record.AgentPath{},
			Programs: []record.ProgramRow{}, Code: []record.ProgramCode{}, Redirect: []record.BenchRow{}, Refused: []record.AgentRefusal{},
		},
	}
	if o.Version != "" {
		doc.Settings = map[string]string{"version": o.Version}
	}
	var err error
	if doc.Machine, err = machine(o.root, o.Identity, o.Labels, o.Anonymous); err != nil {
		return nil, err
	}
	cpu, refused := pick(o.root, o.CPU)
	used, err := o.read(ctx, doc, cpu)
	if err != nil {
		return nil, err
	}
	if refused == nil {
		if refused, err = tooBusy(ctx, o.root, cpu, o.Limits, o.watch); err != nil {
			return nil, err
		}
	}
	if refused == nil {
		more, err := o.measure(ctx, doc, cpu)
		used.add(more)
		if err != nil {
			return nil, err
		}
	} else {
		doc.Refused = append(doc.Refused, *refused)
	}
	doc.Cost.Seconds = time.Since(began).Seconds()
	doc.Cost.CPUSeconds = used.cpuSeconds + (cpuTime() - own).Seconds()
	doc.Cost.PeakBytes = max(used.peakBytes, peak())
	if o.Anonymous {
		name, _ := os.Hostname()
		anonymize(doc, devices(o.root), name)
	}
	return doc, nil
}

// read does the part of that name.
func (o Options) read(ctx context.Context, doc *record.Agent, cpu int) (usage, error) {
	var r Reading
	used, err := child(ctx, o.Command, ReadPart, cpu, readTime, &r)
	if ctx.Err() != nil {
		return used, ctx.Err()
	}
	if err != nil { // the record says so, and what was read without it
		for _, part := range []string{record.PartCheck, record.PartXray, record.PartProgList, record.PartProgXray} {
			doc.Refused = append(doc.Refused, record.AgentRefusal{Part: part, Reason: reasonOfChild(err), Text: oneLine(err)})
		}
		doc.Host = host.Identify(host.Options{})
		return used, nil
	}
	doc.Host = r.Host
	doc.Findings, doc.Paths, doc.Programs, doc.Code = r.Findings, r.Paths, r.Programs, r.Code
	doc.Refused, doc.Warnings = append(doc.Refused, r.Refused...), append(doc.Warnings, r.Warnings...)
	doc.Cost.Slots = r.Slots
	return used, nil
}

// measure does the part of that name.
func (o Options) measure(ctx context.Context, doc *record.Agent, cpu int) (usage, error) {
	var m Measured
	at := time.Now().UTC().Truncate(time.Second)
	part := MeasurePart
	if o.Emulated {
		part = EmulatedPart
	}
	used, err := child(ctx, o.Command, part, cpu, measureTime, &m)
	if ctx.Err() != nil {
		return used, ctx.Err()
	}
	doc.Cost.CPU, doc.Cost.MeasureSeconds = &cpu, used.seconds
	doc.Cost.Slots = max(doc.Cost.Slots, m.Slots)
	refused := m.Refused
	switch {
	case errors.Is(err, errKilled) && used.cpuSeconds < used.seconds/2:
		refused = refusal(record.RefusedLoad, "others had CPU %d: measuring got %.1f of %.1f s", cpu, used.cpuSeconds, used.seconds)
	case err != nil:
		refused = refusal(reasonOfChild(err), "%s", oneLine(err))
	case refused == nil || refused.Reason == record.RefusedTime: // why it took so long
		refused = cmp.Or(disturbed(&m, o.Limits), refused)
	}
	doc.References = m.References
	if refused != nil { // never a number that was disturbed
		doc.Refused = append(doc.Refused, *refused)
		return used, nil
	}
	doc.Rows, doc.Redirect, doc.Measured = m.Rows, m.Redirect, &at
	doc.Warnings = append(doc.Warnings, m.Warnings...)
	return used, nil
}

// reasonOfChild is the word for the error of a child, which may be what the runtime of Go said last.
func reasonOfChild(err error) string {
	switch text := err.Error(); {
	case errors.Is(err, errKilled), errors.Is(err, errCPUTime):
		return record.RefusedTime
	case strings.Contains(text, "out of memory"), strings.Contains(text, unix.ENOMEM.Error()):
		return record.RefusedMemory
	}
	return record.RefusedFailed
}

// devices are the names of the network devices here.
func devices(root fs.FS) []string {
	entries, _ := fs.ReadDir(root, "sys/class/net")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "lo" })
}

// Check returns a [feature.Missing] where this machine cannot be measured: by its architecture, or as its CPU is emulated and emulated is
// not set.
func Check(emulated bool) error {
	if err := reads(runtime.GOARCH); err != nil || emulated {
		return err
	}
	return virtual.NeedHardware()
}

// reads says whether the code of an architecture can be read.
func reads(arch string) error { return (&kernel.Kernel{Arch: arch}).CheckArch("reading code") }
