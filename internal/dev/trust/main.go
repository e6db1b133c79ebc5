package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
)

func main() {
	if isLoad() {
		return
	}
	var p plan
	var only, lock, judge string
	flag.IntVar(&p.tries, "tries", 40, "tries of each situation")
	flag.DurationVar(&p.duration, "duration", 3*time.Second, "length of a run")
	flag.StringVar(&only, "only", "", "the `situations` to try, by the beginnings of their names, separated by commas")
	flag.StringVar(&p.folder, "records", "", "keep the records of the runs in `DIR`, and make no try that has records there")
	flag.StringVar(&judge, "judge", "", "measure nothing: judge the records in `DIR`")
	flag.StringVar(&lock, "lock", "", "hold a lock on `FILE` during each try, to take turns with others who measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := func() error {
		if only != "" {
			p.only = strings.Split(only, ",")
		}
		var t *trust
		var err error
		if judge != "" {
			p.folder = judge
			t, err = p.judge()
		} else {
			t, err = p.locked(ctx, lock)
		}
		if err == nil {
			t.write(os.Stdout)
		}
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "trust:", err)
		os.Exit(1)
	}
}

// plan is what to find out.
type plan struct {
	tries    int
	duration time.Duration // of a run
	// only are beginnings of the names of situations that are tried; all of them when it is empty.
	only []string
	// folder is where records are kept; none are when it is empty.
	folder string
	// turn is locked during each try; nil when nobody else measures.
	turn *os.File
}

// locked is [plan.run] with a lock on a file.
func (p plan) locked(ctx context.Context, lock string) (t *trust, err error) {
	if lock != "" {
		if p.turn, err = os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			return nil, err
		}
		defer p.turn.Close()
	}
	return p.run(ctx, os.Stderr)
}

// run makes all tries, and writes a line about each.
func (p plan) run(ctx context.Context, progress io.Writer) (*trust, error) {
	cpu, err := rounds.CPU{}.Pick()
	if err != nil {
		return nil, err
	}
	loads, err := loadsOf(cpu)
	if err != nil {
		return nil, err
	}
	t := &trust{}
	err = p.inTurn(func() (err error) {
		if t.turn, err = calibrate(ctx); err != nil {
			return err
		}
		base, err := measure(ctx, p.duration, none)
		if err != nil {
			return err
		}
		last := base.Rows[len(base.Rows)-1]
		if last.Ns == nil {
			return fmt.Errorf("%s: %s", last.Name, last.Refused)
		}
		t.ns = last.Ns.Median
		return nil
	})
	if err != nil {
		return nil, err
	}
	for n := range p.tries {
		if err := p.round(ctx, n, loads, t, progress); err != nil {
			return nil, fmt.Errorf("try %d: %w", n+1, err)
		}
	}
	return t, nil
}

// inTurn calls f while the lock is held, if there is one.
func (p plan) inTurn(f func() error) error {
	if p.turn == nil {
		return f()
	}
	if err := unix.Flock(int(p.turn.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", p.turn.Name(), err)
	}
	return errors.Join(f(), unix.Flock(int(p.turn.Fd()), unix.LOCK_UN))
}

// round makes the n-th try of each situation unless it has its records.
func (p plan) round(ctx context.Context, n int, loads []load, t *trust, progress io.Writer) error {
	for i, s := range situations() {
		if !p.wants(s) {
			continue
		}
		if s.simulated() {
			continue
		}
		one, err := p.load(s, n)
		if errors.Is(err, fs.ErrNotExist) {
			err = p.inTurn(func() (err error) {
				// Another process may have made it meanwhile.
				if one, err = p.load(s, n); !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				if one, err = p.try(ctx, s, n, loads, t); err == nil {
					err = p.save(one, s, n)
				}
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		said, err := t.add(i, one)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(progress, "%d %s%s: %s\n", n+1, s.name, one.load, said)
		if i == twoRuns {
			if err := t.simulate(p, one); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p plan) wants(s situation) bool {
	return len(p.only) == 0 || slices.ContainsFunc(p.only, func(begin string) bool { return strings.HasPrefix(s.name, begin) })
}

// outcome is what one try measured: the record of one run, or of two.
type outcome struct {
	runs []*record.Saved
	// load says what the machine had to bear, for a line of progress.
	load string
}

// try makes one try of a situation.
func (p plan) try(ctx context.Context, s situation, n int, loads []load, t *trust) (one outcome, err error) {
	slowed := fmt.Sprintf("spin:%d", t.turnsFor(s.slow)) // no turns where nothing differs: the same as none
	if s.runs == 1 {
		doc, err := measure(ctx, p.duration, none, slowed)
		if err != nil {
			return one, err
		}
		one.runs = []*record.Saved{record.NewSaved(doc)}
		return one, nil
	}
	loaded, l := 1, load{}
	if s.load != nil {
		loaded, l = s.load(n, loads)
		one.load = fmt.Sprintf(", %s in run %d", l.name, loaded+1)
	}
	for run := range 2 {
		doc, err := func() (doc record.Doc, err error) {
			if s.load != nil && run == loaded {
				end := l.start(s.late(n, p.duration))
				defer func() { err = cmp.Or(err, end()) }()
			}
			switch {
			case s.profiles:
				return profileRun(ctx, p.duration)
			case run == 1:
				return renamed(measure(ctx, p.duration, slowed))
			}
			return measure(ctx, p.duration, none)
		}()
		if err != nil {
			return one, err
		}
		one.runs = append(one.runs, record.NewSaved(doc))
	}
	if loaded == 0 && s.profiles { // the quiet one first
		slices.Reverse(one.runs)
	}
	return one, nil
}

// late is how long after the beginning of a run its load begins: at once, or in every other pair of tries in its middle.
func (s situation) late(n int, run time.Duration) time.Duration {
	if n/2%2 == 1 && !s.profiles {
		return run / 2
	}
	return 0
}

// save keeps the records of the n-th try of a situation, if it is to.
func (p plan) save(one outcome, s situation, n int) error {
	if p.folder == "" {
		return nil
	}
	if err := os.MkdirAll(p.folder, 0o755); err != nil {
		return err
	}
	for run, r := range one.runs {
		if p := r.Profile(); p != nil && p.Packet == nil {
			return nil // it could not be read again
		}
		if err := record.Save(p.file(s, n, run), r.Doc); err != nil {
			return err
		}
	}
	return nil
}

func (p plan) file(s situation, n, run int) string {
	name := strings.NewReplacer(", ", "-", " ", "-").Replace(s.name)
	return filepath.Join(p.folder, fmt.Sprintf("%s-%03d-%d.json", name, n, run))
}

// load reads the records of a try that was made before; there are none where it was not.
func (p plan) load(s situation, n int) (one outcome, err error) {
	if p.folder == "" {
		return one, fs.ErrNotExist
	}
	for run := range s.runs {
		r, err := record.Load(p.file(s, n, run))
		if err != nil {
			return one, err
		}
		one.runs = append(one.runs, r)
	}
	return one, nil
}

// kept are the numbers of the tries of a situation that have records.
func (p plan) kept(s situation) (tries []int) {
	before, after, _ := strings.Cut(p.file(s, 0, 0), "000")
	files, _ := filepath.Glob(before + "*" + after) // the pattern is no wrong one
	for _, file := range files {
		number := strings.TrimSuffix(strings.TrimPrefix(file, before), after)
		if n, err := strconv.Atoi(number); err == nil {
			tries = append(tries, n)
		}
	}
	return tries
}

// judge judges records that were kept.
func (p plan) judge() (*trust, error) {
	t := &trust{}
	for i, s := range situations() {
		if !p.wants(s) || s.simulated() {
			continue
		}
		for _, n := range p.kept(s) {
			one, err := p.load(s, n)
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was broken off between its two runs
			}
			if err == nil {
				_, err = t.add(i, one)
			}
			if err == nil && i == twoRuns {
				err = t.simulate(p, one)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// none is the operation that is compared with itself.
const none = "none"

// measure is `unthunk bench --quick --bulk 1,8,64 --operation … --duration …`.
func measure(ctx context.Context, d time.Duration, operations ...string) (*record.Document[record.BenchRow], error) {
	plan := redirect.Plan{Bulks: []int{1, 8, 64}, Schedule: rounds.Schedule{Rounds: quickRounds, Duration: d}}
	for _, s := range operations {
		op, err := redirect.ParseOperation(s)
		if err != nil {
			return nil, err
		}
		plan.Operations = append(plan.Operations, op)
	}
	doc := record.New[record.BenchRow]("bench", host.Identify(host.Options{}))
	raw, err := redirect.Run(ctx, plan, nil)
	if err != nil {
		return nil, err
	}
	if raw.Incomplete {
		return nil, context.Cause(ctx)
	}
	doc.Rows, doc.Warnings = raw.Record()
	doc.AddReferences("", raw.References)
	return doc, nil
}

// quickRounds is what --quick has.
const quickRounds = 7

// renamed makes rows of any operation those of none, so that they are compared with such.
func renamed(doc *record.Document[record.BenchRow], err error) (*record.Document[record.BenchRow], error) {
	if err != nil {
		return nil, err
	}
	for i := range doc.Rows {
		row := &doc.Rows[i]
		row.Name = strings.Replace(row.Name, "/operation="+row.Labels["operation"], "", 1)
		row.Labels["operation"] = none
	}
	return doc, nil
}
