package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/unpack"
)

// Batches are what one transaction takes.
const (
	batchRecords = 256
	batchBytes   = 8 << 20
)

// Documents on their way into a store. One takes up to 200 times its bytes, and never more than a record may, while it is parsed.
const (
	// maxParsed is how many bytes of documents are parsed at a time, by all that put some into one [Store]; a larger one is alone.
	maxParsed = 1 << 20
	// maxParsers are those of one Ingest, and waiting how many documents wait before and behind them.
	maxParsers = 4
	waiting    = 4
)

// Ingest reads documents into a store. Each batch of them is one transaction, so what was committed stays whatever
// happens, and a second run takes what is missing.
type Ingest struct {
	Store *Store
	// In is what "-" stands for.
	In io.Reader
	// Now is the time by which clocks are judged.
	Now time.Time
	// MaxRefused is after how many documents that it cannot take it ends with [ErrRefused]; 0 for no limit.
	MaxRefused int

	mu   sync.Mutex
	done *record.FleetIngest
	// refused is how many documents were.
	refused int
	// machines are the identities that were read.
	machines map[string]bool
	// over is set when what is done is known: a read that was left behind counts nothing more.
	over bool
}

// ErrRefused is that too many documents were refused to read more.
var ErrRefused = errors.New("too many documents are refused")

// Run ingests files, the files *.json in folders and in those below them, and "-". The record says what was done also
// when there is an error. It returns soon after ctx ends: a read that waits, as of a pipe, is left behind.
func (in *Ingest) Run(ctx context.Context, paths ...string) (*record.FleetIngest, error) {
	in.done = &record.FleetIngest{Document: *record.New[record.FleetRefusal]("fleet-ingest", host.Fingerprint{})}
	in.done.SharedIDs = []string{}
	in.machines = make(map[string]bool)
	g, gctx := errgroup.WithContext(ctx)
	docs, entries := make(chan document, waiting), make(chan *entry, waiting)
	read := make(chan error, 1)
	go func() {
		defer close(docs)
		read <- in.readAll(gctx, paths, docs)
	}()
	g.Go(func() error {
		select {
		case err := <-read:
			return err
		case <-gctx.Done():
			return gctx.Err()
		}
	})
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), maxParsers) {
		workers.Add(1)
		g.Go(func() error {
			defer workers.Done()
			return in.parse(gctx, docs, entries)
		})
	}
	go func() { workers.Wait(); close(entries) }()
	batches := make(chan []*entry)
	g.Go(func() error {
		defer close(batches)
		return in.collect(gctx, entries, batches)
	})
	g.Go(func() error { return in.store(gctx, batches) })
	err := g.Wait()
	if err == nil {
		in.done.FleetShared, err = in.Store.sharedIDs(ctx, in.machines, math.MinInt64, math.MaxInt64)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.over = true
	slices.SortFunc(in.done.Rows, func(a, b record.FleetRefusal) int { return strings.Compare(a.Name, b.Name) })
	if err != nil {
		in.done.Stopped, in.done.Incomplete = err.Error(), true
	}
	return in.done, err
}

// document is one of a stream.
type document struct {
	b    []byte
	from string
}

// readAll sends the documents of paths.
func (in *Ingest) readAll(ctx context.Context, paths []string, docs chan<- document) error {
	for _, path := range paths {
		if err := in.read(ctx, path, docs); err != nil {
			return err
		}
	}
	return nil
}

// read sends the documents of a path.
func (in *Ingest) read(ctx context.Context, path string, docs chan<- document) error {
	if path == "-" {
		return in.readStream(ctx, in.In, "stdin", docs)
	}
	return filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			in.refuse(file, &refusal{record.RefusedUnreadable, unwrapPath(err)})
			return nil
		case entry.IsDir():
			if file != path && strings.HasPrefix(entry.Name(), ".") {
				return filepath.SkipDir
			}
			return nil
		case file != path && (filepath.Ext(file) != ".json" || strings.HasPrefix(entry.Name(), ".")):
			return nil
		}
		return in.readFile(ctx, file, file == path, docs)
	})
}

func (in *Ingest) readFile(ctx context.Context, file string, named bool, docs chan<- document) error {
	// A link in a folder of others may lead anywhere: only one that was named is followed.
	open := unpack.OpenNoFollow
	if named {
		open = unpack.Open
	}
	f, _, err := open(file, math.MaxInt64)
	if err != nil {
		in.refuse(file, &refusal{record.RefusedUnreadable, unwrapPath(err)})
		return nil
	}
	defer f.Close()
	return in.readStream(ctx, f, file, docs)
}

// unwrapPath is an error without the name of the file.
func unwrapPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

func (in *Ingest) readStream(ctx context.Context, r io.Reader, from string, docs chan<- document) error {
	stream := newDocuments(unpack.Heard(ctx, r)) // a line, or what is no document, may have no end
	for {
		doc, err := stream.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			in.refuse(from, &refusal{record.RefusedUnreadable, unwrapPath(err)})
			return nil
		}
		select {
		case docs <- document{doc, from}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// parse makes entries of documents, and counts those that it cannot.
func (in *Ingest) parse(ctx context.Context, docs <-chan document, entries chan<- *entry) error {
	for {
		var doc document
		more := true
		select {
		case doc, more = <-docs:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !more {
			return nil
		}
		size := int64(min(len(doc.b), maxParsed))
		if err := in.Store.parsing.Acquire(ctx, size); err != nil {
			return err
		}
		e, err := newEntry(doc.b, in.Now)
		in.Store.parsing.Release(size)
		if err != nil {
			if in.refuse(doc.from, err) {
				return ErrRefused
			}
			continue
		}
		e.from = doc.from
		select {
		case entries <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refuse counts a document that is not taken, and tells whether that is the last which may be refused.
func (in *Ingest) refuse(from string, err error) (last bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.over {
		return false
	}
	reason := record.RefusedStore
	if r, ok := errors.AsType[*refusal](err); ok {
		reason = r.reason
	}
	in.done.Documents++
	i := slices.IndexFunc(in.done.Rows, func(r record.FleetRefusal) bool { return r.Name == reason })
	if i < 0 {
		in.done.Rows = append(in.done.Rows, record.FleetRefusal{Name: reason, Example: from + ": " + err.Error(), Files: []string{}})
		i = len(in.done.Rows) - 1
	}
	row := &in.done.Rows[i]
	row.Count++
	if len(row.Files) < record.MaxFleetNames && !slices.Contains(row.Files, from) {
		row.Files = append(row.Files, from)
	}
	in.refused++
	return in.MaxRefused > 0 && in.refused >= in.MaxRefused
}

// collect makes batches of entries: one is collected while another is stored.
func (in *Ingest) collect(ctx context.Context, entries <-chan *entry, batches chan<- []*entry) error {
	var batch []*entry
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		select {
		case batches <- batch:
		case <-ctx.Done():
			return ctx.Err()
		}
		batch, size = nil, 0
		return nil
	}
	for e := range entries {
		batch = append(batch, e)
		if size += len(e.doc); len(batch) >= batchRecords || size >= batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return flush()
}

// store stores batches, each in a transaction.
func (in *Ingest) store(ctx context.Context, batches <-chan []*entry) error {
	for batch := range batches {
		if err := in.storeBatch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// storeBatch stores entries. Of one that the database does not take the others are stored all the same.
func (in *Ingest) storeBatch(ctx context.Context, batch []*entry) error {
	added, err := in.Store.insert(ctx, batch, in.Now)
	switch {
	case err == nil:
		return in.countKnown(ctx, batch, added)
	case !in.Store.ofData(err):
		return err
	case len(batch) == 1:
		in.refuse(batch[0].from, err)
		return nil
	}
	half := len(batch) / 2
	if err := in.storeBatch(ctx, batch[:half]); err != nil {
		return err
	}
	return in.storeBatch(ctx, batch[half:])
}

// countKnown counts entries of which some were put into the store, and refuses those of the others whose run is that of another machine:
// they are not there, and never will be.
func (in *Ingest) countKnown(ctx context.Context, batch, added []*entry) error {
	if len(added) == len(batch) {
		in.count(batch, added)
		return nil
	}
	machines, err := in.Store.machinesOf(ctx, batch)
	if err != nil {
		return err
	}
	kept := slices.Clone(batch)
	kept = slices.DeleteFunc(kept, func(e *entry) bool {
		if m := machines[e.run]; m != e.machine {
			in.refuse(e.from, &refusal{record.RefusedRun, fmt.Errorf("its run %.64q is one of another machine, %s, in the store", e.run, m)})
			return true
		}
		return false
	})
	in.count(kept, added)
	return nil
}

// machinesOf are the machines of runs of entries, as the store has them.
func (s *Store) machinesOf(ctx context.Context, entries []*entry) (map[string]string, error) {
	var runs []string
	for _, e := range entries {
		runs = append(runs, e.run)
	}
	which, args := oneOf("run", runs)
	rows, err := s.db.QueryContext(ctx, "SELECT run, machine FROM record WHERE "+which, args...)
	if err != nil {
		return nil, fmt.Errorf("ask for known records: %w", s.explain(err))
	}
	defer rows.Close()
	machines := make(map[string]string)
	for rows.Next() {
		var run, machine string
		if err := rows.Scan(&run, &machine); err != nil {
			return nil, fmt.Errorf("ask for known records: %w", s.explain(err))
		}
		machines[run] = machine
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("ask for known records: %w", s.explain(err))
	}
	return machines, nil
}

// count counts entries that are in the store, of which some were not before.
func (in *Ingest) count(batch, added []*entry) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.done.Documents += len(batch)
	in.done.New += len(added)
	in.done.Known += len(batch) - len(added)
	for _, e := range batch {
		in.machines[e.machine] = true
	}
	for _, e := range added {
		switch {
		case e.clock > 0:
			in.done.Ahead++
		case e.clock < 0:
			in.done.Behind++
		}
	}
}

// Of shared identities so many have names in answers, and each so many names.
const (
	maxShared      = 16
	maxSharedNames = 8
)

// maxAskedFor is how many setups are asked for at a time, and of how many machines boots: of more those of all that are noted are read.
const maxAskedFor = 1024

// sharedIDs are the identities of these machines that more than one machine has, sorted: two boots, or names, of one identity
// that were seen in turns, after a time and until another, in seconds since 1970; and names of some.
func (s *Store) sharedIDs(ctx context.Context, of map[string]bool, after, until int64) (found record.FleetShared, err error) {
	which, args := "machine IN (SELECT machine FROM shared)", []any(nil)
	if len(of) > 0 && len(of) <= maxAskedFor {
		var these string
		these, args = oneOf("machine", slices.Sorted(maps.Keys(of)))
		which += " AND " + these
	}
	from, to := "$"+strconv.Itoa(len(args)+1), "$"+strconv.Itoa(len(args)+2)
	ids, err := texts(s.db.QueryContext(ctx, seenInTurns(which)+"SELECT DISTINCT machine FROM turn WHERE seen_first < before AND seen_last > "+
		from+" AND before > "+from+" AND seen_first <= "+to+" ORDER BY 1", append(args, after, until)...))
	if err != nil {
		return found, fmt.Errorf("look for shared identities: %w", s.explain(err))
	}
	found.SharedIDs = slices.DeleteFunc(ids, func(id string) bool { return !of[id] })
	for _, id := range found.SharedIDs[:min(len(found.SharedIDs), maxShared)] {
		if err := s.addSharedNames(ctx, &found, id); err != nil {
			return found, fmt.Errorf("look for names of shared identities: %w", s.explain(err))
		}
	}
	return found, nil
}

// addSharedNames adds the first host names of an identity, and how many it has.
func (s *Store) addSharedNames(ctx context.Context, found *record.FleetShared, id string) error {
	var count int
	err := s.db.QueryRowContext(ctx, "SELECT count(DISTINCT name) FROM boot WHERE machine = $1 AND name <> ''", id).Scan(&count)
	if err != nil || count == 0 {
		return err
	}
	names, err := texts(s.db.QueryContext(ctx, "SELECT DISTINCT name FROM boot WHERE machine = $1 AND name <> '' ORDER BY 1 LIMIT $2", id,
		maxSharedNames))
	if err != nil {
		return err
	}
	if found.SharedNames == nil {
		found.SharedNames, found.SharedCounts = make(map[string][]string), make(map[string]int)
	}
	found.SharedNames[id], found.SharedCounts[id] = names, count
	return nil
}
