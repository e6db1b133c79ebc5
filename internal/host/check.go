package host

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/unthunk/unthunk/internal/kernel"
)

// Level says how much a finding should worry someone who measures
// XDP_REDIRECT.
type Level string

const (
	// LevelOK costs nothing, or cannot be had cheaper.
	LevelOK Level = "ok"
	// LevelNote is worth knowing when two machines or runs are compared.
	LevelNote Level = "note"
	// LevelWarn costs packets, or makes numbers unsteady.
	LevelWarn Level = "warn"
	// LevelUnknown could not be seen; Found says why.
	LevelUnknown Level = "unknown"
)

// Finding is one row of `check`.
type Finding struct {
	// Name is stable and kebab-case.
	Name string `json:"name"`
	// Found is what is there, in the kernel's own words where it has some.
	Found string `json:"found"`
	// Means is what that means for XDP_REDIRECT, in one clause. It may be
	// empty.
	Means string `json:"means"`
	// Do is what to do about it. It is empty when there is nothing to do.
	Do    string `json:"do"`
	Level Level  `json:"level"`
}

// Options of [Check] and [Identify]. The zero value looks at the running machine.
type Options struct {
	// Root is where proc and sys are read. When it is set, only what is
	// in it and Kernel are looked at: the running kernel is not asked for
	// anything else.
	Root fs.FS
	// Kernel is the one to read branches from. When it and Root are nil it
	// is the running one.
	Kernel *kernel.Kernel
	// StealWindow is how long steal time is watched for; 0 means 200 ms.
	StealWindow time.Duration
}

// machine is a host being looked at.
type machine struct {
	tree
	opts Options
	live bool
}

func newMachine(opts Options) *machine {
	m := &machine{tree: tree{opts.Root}, opts: opts, live: opts.Root == nil}
	if m.live {
		m.fsys = os.DirFS("/")
	}
	return m
}

// Check looks at everything that bears on XDP_REDIRECT. What it cannot see,
// for want of root or of a kernel feature, becomes a finding of
// [LevelUnknown] and not an error. It takes about half a second, most of it
// waiting for steal time, and changes nothing.
func Check(ctx context.Context, opts Options) (Fingerprint, []Finding, error) {
	m := newMachine(opts)
	var f Fingerprint
	var rows []Finding
	mem := m.readBranches()
	rows = append(rows, m.cpu(&f), m.virtual(&f))
	rows = append(rows, m.kernel(&f)...)
	rows = append(rows, branchRows(&f, m.flags(), mem)...)
	if mem.arch == "arm64" || m.live && runtime.GOARCH == "arm64" {
		rows = append(rows, m.entryRow(mem))
	}
	vulnerabilities := m.vulnerabilities(&f)
	rows = append(rows, agreement(f, mem)...)
	rows = append(rows, vulnerabilities...)
	rows = append(rows, m.bpf(&f)...)
	if m.live {
		rows = append(rows, observersRow(observers(ctx)), dispatcherRow(mem.dispatched, cmp.Or(mem.err, mem.dispatcherErr)))
	}
	rows = append(rows, m.smt(&f), m.governor(&f))
	if m.live {
		rows = append(rows, coreClock())
	}
	steal, err := m.steal(ctx)
	if err != nil {
		return f, nil, err
	}
	rows = append(rows, steal)
	rows = append(rows, m.nics(&f)...)
	rows = append(rows, m.iommu()...)
	warnOnce(rows)
	return f, rows, nil
}

// warnOnce leaves one warning of what several rows say: what memory has, over what /sys says
// of it.
func warnOnce(rows []Finding) {
	said := map[string][]string{
		"indirect-call": {"call-sites", "vulnerability-spectre-v2"},
		"return-thunk":  {"vulnerability-spec-rstack-overflow"},
	}
	for _, row := range rows {
		if row.Level != LevelWarn {
			continue
		}
		for i := range rows {
			if slices.Contains(said[row.Name], rows[i].Name) && rows[i].Level == LevelWarn {
				rows[i].Level = LevelNote
			}
		}
	}
}

// Identify returns the fingerprint of the machine. It is what
// [Check] returns, less Drivers, which are the caller's to fill with the
// NICs that took part. It takes under 0.2 s and waits for nothing.
func Identify(opts Options) Fingerprint {
	m := newMachine(opts)
	var f Fingerprint
	m.cpu(&f)
	m.virtual(&f)
	m.kernel(&f)
	branchRows(&f, m.flags(), m.readBranches())
	m.vulnerabilities(&f)
	m.bpf(&f)
	m.smt(&f)
	m.governor(&f)
	return f
}

// unseen is a finding that could not be made.
func unseen(name string, err error) Finding {
	return Finding{Name: name, Found: "not seen: " + err.Error(), Level: LevelUnknown}
}

func unseenf(name, format string, args ...any) Finding {
	return unseen(name, fmt.Errorf(format, args...))
}

func x86() bool { return runtime.GOARCH == "amd64" }
