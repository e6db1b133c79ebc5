package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/trace"
)

// CellResult is what came of one guest.
type CellResult struct {
	Cell
	Release string
	*Measurement
	// Err is why there is no measurement, in one line.
	Err error
	// NoTime is why there is no time beside what was counted, where [Plan.Time] asks for it.
	NoTime error
	// Console is the last that the guest printed, for when it failed.
	Console string

	job     *progcount.Job // the program to count, nil for a redirect
	earlier *earlier       // what a record had of it, nil where the guest was booted
}

// Run boots each cell of a plan, as many at a time as this machine has CPUs, and counts in
// it; then, when time is asked for, each once more. self is this program's own file. A
// cell that fails does not stop the others. progress may be nil; it gets the number of
// cells done, of all, and what begins.
//
// It returns a [feature.Missing] without QEMU.
func Run(ctx context.Context, plan Plan, self string, progress func(done, all int, what string)) ([]CellResult, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	plan = plan.withDefaults()
	plan.images = newImages()
	if plan.Program != nil {
		var err error
		if plan.files, err = plan.Program.Files(); err != nil {
			return nil, err
		}
	}
	results := make([]CellResult, len(plan.Cells()))
	for i, cell := range plan.Cells() {
		results[i].Cell, results[i].earlier = cell, plan.earlierRows(cell) // until it was looked at
	}
	var mu sync.Mutex
	err := each(ctx, plan, runtime.NumCPU(), self, progress, func(guestCtx context.Context, i int, m *guest.Machine, cell Cell) {
		r := CellResult{Cell: cell, Release: m.Kernel.Release, job: plan.Program}
		m.Exact, m.MaxResults = true, maxResults
		if r.earlier = plan.earlier(guestCtx, m, cell); r.earlier == nil {
			if r.Measurement, r.Console, r.Err = measure(guestCtx, plan, m, cell); r.Err == nil {
				completeBuild(guestCtx, m, r.Measurement)
				r.Measurement.fromTraces()
				r.Err = confirm(cell, r.Measurement)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if results[i].earlier != nil && r.Err != nil && ctx.Err() != nil {
			return // stopped: what the record has of it stays
		}
		if results[i] = r; plan.Done != nil {
			plan.Done(results)
		}
	}, guest.PartCount)
	if err != nil || !plan.Time {
		return results, err
	}
	return results, each(ctx, plan, 1, self, progress, func(guestCtx context.Context, i int, m *guest.Machine, cell Cell) {
		r := &results[i]
		if r.Measurement == nil || r.Err != nil || m.Kernel.Arch != runtime.GOARCH { // which this machine's CPU does not execute
			return
		}
		m.KVM = true
		timed, _, err := measure(guestCtx, plan, m, cell, "--time")
		if err != nil && ctx.Err() != nil {
			return // stopped
		}
		if r.addTime(timed, err); err == nil {
			plan.images.measured.Give(timed.memory)
		}
		if plan.Done != nil {
			plan.Done(results)
		}
	})
}

// noTime begins what is said of a guest without a time.
const noTime = "no time"

// addTime adds to what was counted in a guest the times of its second boot, or why there are none: what was counted stays.
func (c *CellResult) addTime(timed *Measurement, err error) {
	if err != nil {
		c.NoTime = fmt.Errorf("%s: %w", noTime, err)
		return
	}
	for i := range c.Bulks {
		if c.Bulks[i].Refused == "" {
			c.Bulks[i].Ns = timed.Bulks[i].Ns
		}
	}
}

// measure runs the measurement of a cell in its guest.
func measure(ctx context.Context, plan Plan, m *guest.Machine, cell Cell, flags ...string) (*Measurement, string, error) {
	if plan.Program != nil {
		return countProgram(ctx, plan, m)
	}
	rows := plan.Rows()
	args := append([]string{guest.Self, "lab-guest", "--nic", cell.NIC}, flags...)
	for _, r := range rows {
		args = append(args, "--row", r.String())
	}
	if !plan.Trace || !m.Exact {
		return countIn(ctx, plan, m, cell, args)
	}
	var traces *tracer
	err := noTrace(m.Kernel.Arch)
	if m.Kernel.Arch == guest.AMD64 {
		traces, err = newTracer(ctx, m.Kernel, plan.images, plan.Annotate)
	}
	if err == nil {
		defer traces.release()
		m.Debug, traces.wires = traces.debug, cell.NIC != Veth
		got, console, failed := countIn(ctx, plan, m, cell, append(slices.Clone(args), "--trace"))
		m.Debug = nil
		if failed == nil {
			traces.finish(ctx, got)
		}
		if traces.err == nil || ctx.Err() != nil {
			return got, console, failed
		}
		if got != nil {
			plan.images.measured.Give(got.memory)
		}
		err = traces.err
	}
	// What keeps a guest from being traced does not keep it from being counted.
	got, console, failed := countIn(ctx, plan, m, cell, args)
	if failed == nil {
		for i := range got.Bulks {
			got.Bulks[i].doubt(err)
		}
	}
	return got, console, failed
}

// noTrace says that guests of an architecture have no trace.
func noTrace(arch string) error {
	return &feature.Missing{Feature: "a trace of a guest of " + arch, Help: "guests of amd64 have one"}
}

// countIn runs the command of a guest that counts, and reads what it counted.
func countIn(ctx context.Context, plan Plan, m *guest.Machine, cell Cell, args []string) (*Measurement, string, error) {
	report, err := m.Run(ctx, guest.Command{Args: args, Timeout: plan.Limit})
	if err := failed(report, err); err != nil {
		return nil, lastOf(report.Console), err
	}
	if most := min(maxMeasurement, maxMeasurements/len(plan.Cells())); len(report.Results[0].Stdout) > most {
		return nil, lastOf(report.Console), fmt.Errorf("in the guest: a measurement of more than %d KiB", most>>10)
	}
	got, err := readMeasurement(report.Results[0].Stdout, cell.NIC, plan.Rows(), plan.images.measured)
	if err != nil {
		return nil, lastOf(report.Console), fmt.Errorf("in the guest: %w", err)
	}
	return got, lastOf(report.Console), nil
}

// lastOf is the end of what a guest printed: up to 256 guests' are kept.
func lastOf(console string) string { return strings.Clone(console[max(0, len(console)-maxLast):]) }

// Limits on what a guest says that it measured.
const (
	// maxMeasurement is its size in bytes: one bulk of a scenario takes some 30 KB.
	maxMeasurement = 4 << 20
	// maxMeasurements is the same of all guests together.
	maxMeasurements = 64 << 20
	// maxDecoded is what a measurement takes in memory, in bytes, as it is estimated, and maxMeasured what all of a run do.
	// One of a whole maxMeasurement takes 40 MiB.
	maxDecoded, maxMeasured = 64 << 20, 256 << 20
	// maxListed are the elements of a list that a guest writes: a kernel has some 10 000 functions in modules.
	maxListed = 100_000
	// maxResults is what a guest may write, in bytes: its measurement, in base 64, and what its kernel lacks.
	maxResults = 8 << 20
	// maxLast is how much is kept of what a guest printed, in bytes.
	maxLast = 64 << 10
	// maxOutputs is what all guests that run at the same time may write, in bytes, and
	// leastOutput what one may.
	maxOutputs, leastOutput = 128 << 20, 2 << 20
	// maxPerPacket is how many instructions a packet takes: some hundred to some ten
	// thousand.
	maxPerPacket = 1e6
)

// decode reads what a guest measured, of so many bulks, when budget has the memory that it takes.
func decode(b []byte, bulks int, budget *trace.Budget) (*Measurement, error) {
	memory, err := record.Vet(b, record.Limits{
		Memory: maxDecoded, Keys: progcount.MaxPackets, Elements: maxListed, Lists: map[string]int{"bulks": bulks},
		Plain: []string{"instructions", "varies", "verdicts", "lengths", "hashes", "stands"},
	})
	if err != nil {
		return nil, err
	}
	if budget.Take(int(memory)) != nil {
		return nil, fmt.Errorf("more than %d MiB of measurements", maxMeasured>>20)
	}
	m := &Measurement{memory: int(memory)}
	if err := json.Unmarshal(b, m); err != nil {
		budget.Give(m.memory)
		return nil, err
	}
	return m, nil
}

// readMeasurement reads what a guest measured for rows. The kernel of a guest is another's: what no measurement can give is an
// error. What it takes is of budget.
func readMeasurement(b []byte, nic string, rows []Row, budget *trace.Budget) (*Measurement, error) {
	if len(b) > maxMeasurement {
		return nil, fmt.Errorf("a measurement of more than %d MiB", maxMeasurement>>20)
	}
	m, err := decode(b, len(rows), budget)
	if err != nil {
		return nil, fmt.Errorf("read measurement: %w", err)
	}
	if err := m.checkRows(nic, rows); err != nil {
		budget.Give(m.memory)
		return nil, err
	}
	return m, nil
}

// checkRows returns an error when no measurement of rows can be this one.
func (m *Measurement) checkRows(nic string, rows []Row) error {
	if len(m.Bulks) != len(rows) {
		return fmt.Errorf("%d of %d rows were measured", len(m.Bulks), len(rows))
	}
	cell := CellResult{Cell: Cell{NIC: nic}, Measurement: m}
	for i, want := range counts(rows) {
		if err := cell.checkCount(&m.Bulks[i], &want); err != nil {
			return fmt.Errorf("%s at bulk %d: %w", rows[i].Scenario, rows[i].Bulk, err)
		}
	}
	if err := checkCodes(m.Codes); err != nil {
		return err
	}
	for _, name := range m.Uncounted {
		if printable(name, maxWords) != name {
			return fmt.Errorf("impossible name %.60q", name)
		}
	}
	return nil
}

// checkCount returns an error when no measurement of what was wanted can give a count.
func (c *CellResult) checkCount(b, want *BulkCount) error {
	if b.Scenario != want.Scenario || b.Bulk != want.Bulk {
		return fmt.Errorf("%.60q at bulk %d was measured in its place", cmp.Or(b.Scenario, DefaultScenario), b.Bulk)
	}
	if printable(b.Refused, maxWhy) != b.Refused {
		return fmt.Errorf("impossible text %.60q", b.Refused)
	}
	for _, text := range []string{b.Unprobed, b.Unsettled} {
		if printable(text, maxWhy) != text {
			return fmt.Errorf("impossible text %.60q", text)
		}
	}
	if b.Refused != "" {
		row := record.LabRow{Refused: b.Refused, Thunk: c.Host.IndirectThunk, SpectreV2: c.Host.Mitigations["spectre-v2"], Build: c.Build}
		return row.Check()
	}
	var row record.LabRow
	c.fill(&row, b)
	if err := row.Check(); err != nil {
		return err
	}
	sites, observer := byBranches(&row)
	for _, n := range []*float64{row.Instructions, row.CallsPerPacket, &sites, &observer} {
		if n != nil && (*n < 0 || *n > maxPerPacket) {
			return fmt.Errorf("impossible count %v", *n)
		}
	}
	return nil
}

// How many characters are kept of what a guest says in words, and of why it says nothing.
const (
	maxWords = 300
	maxWhy   = 1000 // as of all sentences of a record
)

// printable is the beginning of what a guest wrote, as one line that a terminal prints as
// it is.
func printable(s string, most int) string { return progcount.Printable(s, most) }

// CommandResult is what unthunk wrote in the guest of a cell. Err is set when the guest
// did not come to its end.
type CommandResult struct {
	Cell
	guest.Report
	Err error
}

// Commands boots each cell and runs unthunk with args in it. It calls got with each result, in
// the order of the cells and for one at a time, as soon as those before it have come: nobody
// keeps what all of them wrote.
func Commands(
	ctx context.Context, plan Plan, self string, args []string, progress func(done, all int, cell string), got func(CommandResult),
) error {
	if err := plan.Validate(); err != nil {
		return err
	}
	plan = plan.withDefaults()
	atOnce := runtime.NumCPU()
	turns := newTurns(len(plan.Cells()))
	return each(ctx, plan, atOnce, self, progress, func(ctx context.Context, i int, m *guest.Machine, cell Cell) {
		m.MaxResults = max(leastOutput, min(maxOutputs/int64(atOnce), guest.MaxResults))
		report, err := m.Run(ctx, guest.Command{Args: append([]string{guest.Self}, args...), Timeout: plan.Limit})
		turns.take(i, func() { got(CommandResult{cell, report, err}) })
	})
}

// turns lets goroutines, which begin in their order, do something in that order.
type turns []chan struct{}

func newTurns(n int) turns {
	t := make(turns, n+1)
	for i := range t {
		t[i] = make(chan struct{})
	}
	close(t[0])
	return t
}

// take calls f when all before the i-th have been called.
func (t turns) take(i int, f func()) {
	<-t[i]
	defer close(t[i+1])
	f()
}

// each calls f for each cell, as many at once, with a machine that is ready to run.
func each(
	ctx context.Context, plan Plan, atOnce int, self string, progress func(done, all int, cell string),
	f func(ctx context.Context, i int, m *guest.Machine, cell Cell), needs ...string,
) error {
	cache, err := guest.CacheDir()
	if err != nil {
		return err
	}
	cells := plan.Cells()
	kernels := make(map[string]guest.Kernel)
	for _, c := range cells {
		if _, ok := kernels[c.Kernel]; ok {
			continue
		}
		k, err := guest.Resolve(ctx, cache, c.Kernel)
		if err != nil {
			return err
		}
		if plan.Arch != "" && k.Arch != plan.Arch {
			return fmt.Errorf("kernel %s is of %s, and %s was asked for", c.Kernel, k.Arch, plan.Arch)
		}
		kernels[c.Kernel] = k
	}
	programs, err := plan.programs(self, kernels)
	if err != nil {
		return err
	}
	emulators := make(map[string]guest.QEMU)
	for _, c := range cells {
		if _, ok := emulators[c.NIC]; ok || c.NIC == Veth {
			continue
		}
		if emulators[c.NIC], err = guest.FindQEMU(ctx, cache, c.NIC); err != nil {
			return err
		}
	}
	if progress == nil {
		progress = func(int, int, string) {}
	}
	var (
		mu    sync.Mutex
		done  int
		group sync.WaitGroup
		slots = make(chan struct{}, atOnce)
	)
	for i, c := range cells {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		mu.Lock()
		progress(done, len(cells), c.Name())
		mu.Unlock()
		group.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeoutCause(ctx, plan.Limit,
				fmt.Errorf("it did not boot and finish within %v: --limit allows more", plan.Limit))
			defer cancel()
			m := &guest.Machine{
				QEMU: emulators[c.NIC].For(kernels[c.Kernel].Arch), Kernel: kernels[c.Kernel], CPU: c.CPU, Append: c.Append,
				Modules: []string{"veth"}, Extra: plan.extra(), Needs: needs,
			}
			p := programs[m.Kernel.Arch]
			m.Init, m.Files = p.path, p.libraries
			if c.NIC != Veth {
				m.NICs, m.IOMMU = wires(c.NIC), strings.HasPrefix(string(c.DMA), "iommu")
				m.Append = strings.TrimSpace(dmaLines[c.DMA] + " " + c.Append)
			}
			f(ctx, i, m, c)
			mu.Lock()
			defer mu.Unlock()
			done++
			progress(done, len(cells), c.Name())
		})
	}
	group.Wait()
	return ctx.Err()
}

// failed is why there is no report of one command, with the last words of the guest.
func failed(r guest.Report, err error) error {
	switch {
	case feature.AsMissing(err) != nil:
		return err
	case err != nil:
		if errors.Is(err, guest.ErrKVM) { // QEMU's last words are registers
			return err
		}
		return fmt.Errorf("%w%s", err, lastWords(r.Console))
	case r.Results[0].Err != "":
		return r.Lacks(fmt.Errorf("in the guest: %s%s", printable(r.Results[0].Err, maxWords), lastWords(r.Console)))
	case r.Results[0].Exit != 0:
		return r.Lacks(fmt.Errorf("in the guest: %s", printable(string(r.Results[0].Stderr), maxWords)))
	}
	return nil
}

// lastWords are the line a kernel panics in, with the one before, what /init said, or the last line
// that has text.
func lastWords(console string) string {
	lines := strings.Split(strings.TrimSpace(console), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	for i, line := range lines {
		if strings.HasPrefix(line, "init: ") { // said by /init before it ended
			last = strings.TrimSpace(line)
		}
		if strings.Contains(line, "Kernel panic") {
			last = strings.TrimSpace(lines[max(i-1, 0)]) + " " + strings.TrimSpace(line)
			break
		}
	}
	if last == "" {
		return ""
	}
	return fmt.Sprintf("; its last words: %q", printable(last, maxWords))
}

// initProgram is unthunk for guests of an architecture.
type initProgram struct {
	path      string
	libraries map[string]string // see [guest.Libraries]
}

// programs are those for the architectures of kernels. self is this program's own file. It returns a
// [feature.Missing] where there is no emulator or no program for one, and an error where no guest is of the architecture
// that a program was named for.
func (p Plan) programs(self string, kernels map[string]guest.Kernel) (map[string]initProgram, error) {
	programs := make(map[string]initProgram)
	foreign := false
	for _, k := range kernels {
		foreign = foreign || k.Arch != runtime.GOARCH
	}
	if p.GuestProgram != "" && !foreign {
		return nil, fmt.Errorf("--guest-program %s is for guests of another architecture, and all are of %s: leave it out",
			p.GuestProgram, runtime.GOARCH)
	}
	for _, k := range kernels {
		if _, ok := programs[k.Arch]; ok {
			continue
		}
		if err := guest.Available(k.Arch); err != nil {
			return nil, err
		}
		if k.Arch != runtime.GOARCH {
			path := cmp.Or(p.GuestProgram, besides(self, k.Arch))
			if path != p.GuestProgram {
				if _, err := os.Stat(path); err != nil {
					return nil, &feature.Missing{
						Feature: "unthunk for guests of " + k.Arch,
						Help:    fmt.Sprintf("name its file by --guest-program, or have it at %s (GOARCH=%s go build)", path, k.Arch),
					}
				}
			}
			if err := guest.CheckProgram(path, k.Arch); err != nil { // it is static then, and its sections are not read
				return nil, err
			}
			programs[k.Arch] = initProgram{path: path}
			continue
		}
		libraries, err := guest.Libraries(self)
		if err != nil {
			return nil, err
		}
		programs[k.Arch] = initProgram{self, libraries}
	}
	return programs, nil
}

// besides is where unthunk for guests of another architecture is looked for: beside self, unthunk-arm64.
func besides(self, arch string) string { return filepath.Join(filepath.Dir(self), "unthunk-"+arch) }

// Executable is this program's own file.
func Executable() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return self, nil
}
