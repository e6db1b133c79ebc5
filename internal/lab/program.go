package lab

import (
	"context"
	"errors"
	"fmt"

	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/trace"
)

// ProgramVerb is the command that a guest runs to count a program of the user's: [ProgramInGuest].
const ProgramVerb = "prog-guest"

// ProgramInGuest is what runs in a guest that [Run] made for a plan with a program: it counts what the program takes a
// packet. It needs Linux 5.18.
//
// Traced marks runs for whoever traces the guest.
func ProgramInGuest(ctx context.Context, traced bool) (m *Measurement, err error) {
	m = &Measurement{Host: host.Identify(host.Options{})}
	var mark progcount.Mark
	if traced {
		marks := &marker{}
		mark = func(run func() error) (slot int, err error) {
			if marks.slots == 0 { // what is traced is loaded now
				if err := marks.describe(m, nil); err != nil {
					return 0, err
				}
			}
			return marks.run(run)
		}
	}
	m.Program, err = progcount.InGuest(ctx, mark)
	m.Build = ownBuild(m.Host.Compiler, replay.Sum())
	return m, err
}

// RefusedError is about a program that a guest's kernel does not take.
type RefusedError struct {
	// Why is one line.
	Why string
	// Log are the last lines of the verifier; nil when it said nothing.
	Log []string
}

func (e *RefusedError) Error() string { return e.Why }

// countProgram runs a plan's program in a guest.
func countProgram(ctx context.Context, plan Plan, m *guest.Machine) (*Measurement, string, error) {
	m.Modules, m.Needs, m.Data = nil, nil, plan.files // no veth, no kprobes
	if !plan.Trace {
		return countProgramIn(ctx, plan, m)
	}
	if m.Kernel.Arch != guest.AMD64 {
		return nil, "", noTrace(m.Kernel.Arch)
	}
	traces, err := newTracer(ctx, m.Kernel, plan.images, "")
	if err == nil {
		defer traces.release()
		traces.first, m.Debug = true, traces.debug
		got, console, failed := countProgramIn(ctx, plan, m, tracedFlag)
		m.Debug = nil
		if failed == nil {
			if got.traces, err = traces.programTrees(ctx, got); err != nil {
				got.notTraced(err)
			}
			return got, console, nil
		}
		if traces.err == nil || ctx.Err() != nil {
			return got, console, failed
		}
		err = traces.err
	}
	// What keeps a guest from being traced does not keep it from being counted.
	got, console, failed := countProgramIn(ctx, plan, m)
	if failed == nil {
		got.notTraced(err)
	}
	return got, console, failed
}

// notTraced warns that a program was counted, and not traced.
func (m *Measurement) notTraced(err error) {
	m.Program.Warnings = append(m.Program.Warnings, printable("not traced: "+err.Error(), maxWords))
}

// countProgramIn runs the command of a guest that counts a program, and reads what it counted.
func countProgramIn(ctx context.Context, plan Plan, m *guest.Machine, flags ...string) (*Measurement, string, error) {
	report, err := m.Run(ctx, guest.Command{Args: append([]string{guest.Self, ProgramVerb}, flags...), Timeout: plan.Limit})
	if err := failed(report, err); err != nil {
		return nil, lastOf(report.Console), err
	}
	got, err := readProgram(report.Results[0].Stdout, plan.Program, maxMeasurements/len(plan.Cells()), plan.images.measured)
	if _, refused := errors.AsType[*RefusedError](err); err != nil && !refused {
		err = fmt.Errorf("in the guest: %w", err)
	}
	return got, lastOf(report.Console), err
}

// tracedFlag has the guest mark runs for a trace.
const tracedFlag = "--trace"

// readProgram reads what a guest counted of a program, of at most most bytes. What it takes is of budget.
func readProgram(b []byte, j *progcount.Job, most int, budget *trace.Budget) (*Measurement, error) {
	if most = min(most, maxMeasurement); len(b) > most {
		return nil, fmt.Errorf("counts of more than %d KiB", most>>10)
	}
	m, err := decode(b, 0, budget)
	if err != nil {
		return nil, fmt.Errorf("read counts: %w", err)
	}
	if err := m.checkProgram(j); err != nil {
		budget.Give(m.memory)
		return nil, err
	}
	return m, nil
}

// checkProgram returns an error when no counts of a program can be these: a [RefusedError] when the guest's kernel does not
// take it.
func (m *Measurement) checkProgram(j *progcount.Job) error {
	if m.Program == nil || len(m.Bulks) > 0 || len(m.Uncounted) > 0 {
		return errors.New("what was counted is no program")
	}
	if err := errors.Join(m.Program.Check(j), checkCodes(m.Codes)); err != nil {
		return err
	}
	if m.Program.Refused != "" {
		return &RefusedError{m.Program.Refused, m.Program.Log}
	}
	cell := CellResult{Measurement: m, job: j}
	for _, row := range cell.programRows() {
		if err := row.Check(); err != nil {
			return fmt.Errorf("row %s: %w", row.Name, err)
		}
	}
	return nil
}

// programRows are the rows of a guest that counted a program: one for all packets, and one a class of them.
func (c *CellResult) programRows() (rows []record.LabRow) {
	made := []progcount.Row{{Name: "all"}}
	if c.Measurement != nil && c.Program != nil {
		made = c.Program.Rows(c.job)
	}
	prog := record.Name(c.job.Program.Name)
	for _, m := range made {
		row := record.LabRow{
			Name: fmt.Sprintf("%s/prog=%s/%s", c.Name(), prog, m.Name),
			Labels: map[string]string{"kernel": record.Name(c.Kernel), "cpu": c.CPU, "append": c.Append, "nic": "", "dma": "", "bulk": "",
				"prog": prog, "packets": c.job.Source.Source, "class": m.Name},
			Release: c.Release,
			Sites:   []record.LabSite{}, Functions: []record.LabFunction{},
		}
		switch {
		case c.Err != nil:
			row.Refused = printable(c.Err.Error(), maxWhy)
		case c.Measurement == nil || c.Program == nil:
			row.Refused = "not measured: the run ended before it"
		default:
			row.Build = c.Build
			row.Thunk, row.SpectreV2 = c.Host.IndirectThunk, c.Host.Mitigations["spectre-v2"]
			row.Program = &record.LabProgram{
				Identity: record.ProgramIdentity{Target: record.Sentence(c.job.Target), Name: prog, Tag: c.Program.Tag,
					JitedBytes: c.Program.JitedBytes, Instructions: c.Program.Code, Places: 1},
				Source: c.job.Source, Packets: m.Packets, Share: m.Share, Verdicts: m.Verdicts,
				Outcome: m.Outcome, Redirects: m.Redirects, Least: float64(m.Least), Most: float64(m.Most),
			}
			if row.Refused = m.Refused; row.Refused == "" {
				n := m.Instructions
				row.Instructions = &n
				c.addTrace(&row, m)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// programDoubts are warnings of a guest that counted a program.
func (c *CellResult) programDoubts() (warns []record.Warning) {
	for _, text := range c.Program.Doubts(c.job) {
		warns = append(warns, record.Warning{Row: c.Name(), Text: text})
	}
	return warns
}
