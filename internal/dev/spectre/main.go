// Command spectre builds the benchmarks of packages twice, plain and with
// retpolines, runs both in turn on one core, and prints what of its throughput each
// keeps. With -base one build is of another commit, the other of this tree, and it
// prints how many times as long each takes. It reads the metric ns/packet.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/dev/gobin"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("spectre", flag.ContinueOnError)
	flags.SetOutput(stderr)
	r := runner{stderr: stderr}
	flags.IntVar(&r.rounds, "rounds", 11, "rounds, of both builds each")
	flags.IntVar(&r.count, "count", 8, "runs of a benchmark in a round; the fastest counts")
	flags.StringVar(&r.bench, "bench", ".", "benchmarks to run")
	flags.StringVar(&r.time, "benchtime", "15ms", "length of a run")
	flags.IntVar(&r.cpu, "cpu", -1, "core to run on; -1 is the last one")
	flags.StringVar(&r.base, "base", "", "commit to compare this tree with, in place of retpolines")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() == 0 {
		fmt.Fprintln(stderr, "spectre: name packages that have benchmarks")
		return 2
	}
	if r.base == "" && runtime.GOARCH != "amd64" {
		fmt.Fprintln(stderr, "spectre: missing: amd64 (Go has retpolines for it only)")
		return 4
	}
	if err := r.measure(ctx, flags.Args()); err != nil {
		fmt.Fprintln(stderr, "spectre:", err)
		return 1
	}
	if err := r.print(ctx, stdout); err != nil {
		fmt.Fprintln(stderr, "spectre:", err)
		return 1
	}
	return 0
}

type runner struct {
	rounds, count int
	bench, time   string
	cpu           int
	base          string
	stderr        io.Writer

	rows   []*row
	builds [2]build
}

// build is one of the two that are compared.
type build struct {
	name     string
	options  []string // of go test
	binaries []string // of each package
	thunks   int      // calls of thunks in the code
}

// row is one benchmark: ns per packet of each round, of both builds.
type row struct {
	name string
	ns   [2][]float64
}

func (r *runner) measure(ctx context.Context, packages []string) (err error) {
	if r.cpu, err = rounds.OnCPU(r.cpu).Pick(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "spectre")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := r.build(ctx, dir, packages); err != nil {
		return err
	}

	// The commands that this thread starts run where it may.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	set.Set(r.cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", r.cpu, err)
	}
	defer unix.SchedSetaffinity(0, &old)
	// So does its priority: other work on the core waits. Without root it stays as it is.
	fifo := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if unix.SchedSetAttr(0, &fifo, 0) == nil {
		defer unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
	}
	// The first round warms up.
	for round := range r.rounds + 1 {
		fmt.Fprintf(r.stderr, "\rround %d of %d", round, r.rounds)
		for n := range packages {
			for i := range 2 {
				i = (i + round) % 2
				best, err := r.once(ctx, r.builds[i].binaries[n])
				if err != nil {
					return err
				}
				if round > 0 {
					r.add(i, round, best)
				}
			}
		}
	}
	fmt.Fprintln(r.stderr)
	return nil
}

// build builds both, in a directory.
func (r *runner) build(ctx context.Context, dir string, packages []string) error {
	r.builds = [2]build{{name: "plain"}, {name: "with retpolines", options: gobin.Retpolines()}}
	if r.base != "" {
		here, err := checkOut(ctx, r.base, filepath.Join(dir, "base"))
		if err != nil {
			return err
		}
		r.builds = [2]build{{name: r.base, options: []string{"-C", here}}, {name: "this tree"}}
	}
	for i := range r.builds {
		b := &r.builds[i]
		for n, pkg := range packages {
			file := filepath.Join(dir, fmt.Sprintf("%d.%d.test", n, i))
			if err := gobin.BuildTest(file, pkg, b.options...); err != nil {
				return err
			}
			b.binaries = append(b.binaries, file)
			if r.base != "" {
				continue
			}
			text, err := gobin.Open(file)
			if err != nil {
				return err
			}
			calls := text.ThunkCalls()
			if (calls > 0) != (i > 0) {
				return fmt.Errorf("build %d of %s calls thunks %d times", i, pkg, calls)
			}
			b.thunks += calls
		}
	}
	return nil
}

// checkOut makes a tree of a commit of the repository that this process is in, and
// returns where in it the working directory is.
func checkOut(ctx context.Context, commit, tree string) (here string, err error) {
	where, err := output(ctx, "git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel", "--show-prefix", "--verify", commit+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("find commit %s: %w", commit, err)
	}
	lines := strings.Split(where, "\n") // root, the directory in it, commit
	if len(lines) < 3 {
		return "", fmt.Errorf("find commit %s: git says %q", commit, where)
	}
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	archive := tree + ".tar"
	_, err = output(ctx, "git", "-c", "safe.directory=*", "-C", lines[0], "archive", "-o", archive, lines[2])
	if err == nil {
		_, err = output(ctx, "tar", "-xf", archive, "-C", tree)
	}
	if err != nil {
		return "", fmt.Errorf("check out %s: %w", commit, err)
	}
	return filepath.Join(tree, lines[1]), nil
}

// output runs a command and returns what it printed.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// result is a benchmark's best run.
type result struct {
	name string
	ns   float64
}

// once runs the benchmarks of a binary.
func (r *runner) once(ctx context.Context, binary string) ([]result, error) {
	out, err := output(ctx, binary, "-test.run=^$", "-test.bench="+r.bench,
		"-test.benchtime="+r.time, fmt.Sprint("-test.count=", r.count), "-test.cpu=1")
	if err != nil {
		return nil, fmt.Errorf("run benchmarks: %w %s", err, out)
	}
	results, err := read(strings.NewReader(out))
	if err == nil && len(results) == 0 {
		err = fmt.Errorf("run benchmarks: none of %q gives ns/packet", r.bench)
	}
	return results, err
}

// read is the smallest ns/packet of each benchmark, in the order they ran.
func read(from io.Reader) ([]result, error) {
	var results []result
	lines := benchfmt.NewReader(from, "benchmark")
next:
	for lines.Scan() {
		res, ok := lines.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		for _, v := range res.Values {
			ns, unit := v.OrigValue, v.OrigUnit
			if unit == "" {
				ns, unit = v.Value, v.Unit
			}
			if unit != "ns/packet" {
				continue
			}
			name := res.Name.String()
			if _, after, ok := strings.Cut(name, "/"); ok {
				name = after
			}
			for i := range results {
				if results[i].name == name {
					results[i].ns = min(results[i].ns, ns)
					continue next
				}
			}
			results = append(results, result{name, ns})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read benchmarks: %w", err)
	}
	return results, nil
}

func (r *runner) add(build, round int, results []result) {
next:
	for _, res := range results {
		for _, row := range r.rows {
			if row.name == res.name {
				row.ns[build] = append(row.ns[build], res.ns)
				continue next
			}
		}
		row := &row{name: res.name}
		row.ns[build] = []float64{res.ns}
		r.rows = append(r.rows, row)
	}
}

// kept is the throughput of b in percent of that of a, from ns per packet of the
// same rounds.
func kept(a, b []float64) stat.Quantity {
	d := stat.Paired(a, b)
	k := func(slower float64) float64 { return 100 / (1 + slower/100) }
	return stat.Quantity{Median: k(d.Median), Low: k(d.High), High: k(d.Low), N: d.N, Unit: "%"}
}

// times is how many times as long as a b takes, from ns per packet of the same rounds.
func times(a, b []float64) stat.Quantity {
	d := stat.Paired(a, b)
	t := func(slower float64) float64 { return 1 + slower/100 }
	return stat.Quantity{Median: t(d.Median), Low: t(d.Low), High: t(d.High), N: d.N}
}

func (r *runner) print(ctx context.Context, w io.Writer) error {
	verdict := "keeps"
	if r.base != "" {
		verdict = "times"
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "ns per packet\t%s\t%s\t%s\n", r.builds[0].name, r.builds[1].name, verdict)
	for _, row := range r.rows {
		if len(row.ns[0]) != len(row.ns[1]) {
			return fmt.Errorf("%s ran %d times %s, %d times %s", row.name, len(row.ns[0]), r.builds[0].name, len(row.ns[1]), r.builds[1].name)
		}
		ratio := kept(row.ns[0], row.ns[1]).Text(stat.Fixed(1))
		if r.base != "" {
			ratio = times(row.ns[0], row.ns[1]).Text(stat.Fixed(3))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", row.name, quantity(stat.Summarize(row.ns[0], "ns")),
			quantity(stat.Summarize(row.ns[1], "ns")), ratio)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	meaning := fmt.Sprintf(`keeps: throughput with retpolines in %% of
that without, paired round by round. Calls of %s* in the
code: %d plain, %d with retpolines.`, gobin.ThunkPrefix, r.builds[0].thunks, r.builds[1].thunks)
	if r.base != "" {
		meaning = "times: ns of this tree by those of\nthe commit, paired round by round."
	}
	_, err := fmt.Fprintf(w, `
%s; %s; CPU %d
%d rounds of both builds, a process each; of %d runs in it the fastest counts.
CPU time, medians [95 %% intervals]. %s
`, host.Identify(host.Options{}).CPU, runtime.Version(), r.cpu, r.rounds, r.count, meaning)
	return err
}

func quantity(q stat.Quantity) string {
	q.Unit = "" // the column's head has it
	return q.Text(stat.Number)
}
