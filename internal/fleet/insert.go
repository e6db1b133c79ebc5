package fleet

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// numberColumns are where the tables have the numbers, recordColumns and latestColumns those of two tables.
var (
	numberColumns = []string{"control", "direct_call", "call_1", "call_2", "call_3", "redirect_1", "redirect_16", "redirect_64"}
	recordColumns = slices.Concat([]string{
		"run", "machine", "name", "boot", "at", "kind", "ingested", "setup", "clock", "measured", "refused",
	}, numberColumns, []string{"doc"})
	latestColumns = append([]string{"machine", "setup", "run", "name", "at", "refused"}, numberColumns...)
)

// insert puts entries into the store, all in one transaction, and returns those that were not there before: only they say what
// is newest, and when boots were seen. Each table is written in the order of its keys: writers that meet wait for each other, and
// none for ever.
func (s *Store) insert(ctx context.Context, entries []*entry, now time.Time) (added []*entry, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) (err error) {
		if err := s.insertSetups(ctx, tx, entries); err != nil {
			return err
		}
		if added, err = s.insertRecords(ctx, tx, entries, now); err != nil {
			return fmt.Errorf("store records: %w", s.explain(err))
		}
		if err := s.insertLatest(ctx, tx, added); err != nil {
			return err
		}
		return s.insertBoots(ctx, tx, added)
	})
	return added, err
}

// insertRecords puts records into the store, and returns those that were not there before. Of several of one run the first is.
func (s *Store) insertRecords(ctx context.Context, tx *sql.Tx, entries []*entry, now time.Time) (added []*entry, err error) {
	byRun := func(a, b *entry) int { return strings.Compare(a.run, b.run) }
	sorted := slices.CompactFunc(slices.SortedStableFunc(slices.Values(entries), byRun), func(a, b *entry) bool { return a.run == b.run })
	width := len(recordColumns)
	for some := range slices.Chunk(sorted, s.parameters/width) {
		args := make([]any, 0, len(some)*width)
		for _, e := range some {
			args = append(args, e.run, e.machine, e.name, e.boot, e.at, "agent", now.Unix(), e.setupID, e.clock, oneIf(e.measured()), e.refused)
			args = append(e.appendNumbers(args), string(e.doc))
		}
		runs, err := texts(tx.QueryContext(ctx, "INSERT INTO record ("+strings.Join(recordColumns, ",")+") VALUES "+
			values(len(some), width)+" ON CONFLICT (run) DO NOTHING RETURNING run", args...))
		if err != nil {
			return nil, err
		}
		for _, e := range some {
			if slices.Contains(runs, e.run) {
				added = append(added, e)
			}
		}
	}
	return added, nil
}

// texts are the values of rows of one column.
func texts(rows *sql.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []string{}
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, rows.Err()
}

func oneIf(is bool) int {
	if is {
		return 1
	}
	return 0
}

// appendNumbers appends the numbers of an entry to the parameters of a statement.
func (e *entry) appendNumbers(args []any) []any {
	for _, x := range e.numbers {
		args = append(args, sql.NullFloat64{Float64: x, Valid: !math.IsNaN(x)})
	}
	return args
}

// insertLatest makes entries the newest of their machines and setups, where they are.
func (s *Store) insertLatest(ctx context.Context, tx *sql.Tx, entries []*entry) error {
	sorted := slices.DeleteFunc(slices.Clone(entries), func(e *entry) bool { return e.clock != 0 })
	slices.SortFunc(sorted, func(a, b *entry) int {
		return cmp.Or(strings.Compare(a.machine, b.machine), cmp.Compare(a.setupID, b.setupID), cmp.Compare(b.at, a.at))
	})
	sorted = slices.CompactFunc(sorted, func(a, b *entry) bool { return a.machine == b.machine && a.setupID == b.setupID })
	var set []string
	for _, c := range latestColumns[2:] {
		set = append(set, c+" = excluded."+c)
	}
	width := len(latestColumns)
	for some := range slices.Chunk(sorted, s.parameters/width) {
		var args []any
		for _, e := range some {
			args = e.appendNumbers(append(args, e.machine, e.setupID, e.run, e.name, e.at, e.refused))
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO latest ("+strings.Join(latestColumns, ",")+") VALUES "+values(len(some), width)+
			" ON CONFLICT (machine, setup) DO UPDATE SET "+strings.Join(set, ",")+" WHERE excluded.at > latest.at", args...)
		if err != nil {
			return fmt.Errorf("store newest records: %w", s.explain(err))
		}
	}
	return nil
}

// insertSetups puts the setups of entries into the store.
func (s *Store) insertSetups(ctx context.Context, tx *sql.Tx, entries []*entry) error {
	byID := func(a, b *entry) int { return cmp.Compare(a.setupID, b.setupID) }
	sorted := slices.CompactFunc(slices.SortedFunc(slices.Values(entries), byID), func(a, b *entry) bool { return a.setupID == b.setupID })
	names := []string{"id"}
	for _, c := range columns {
		names = append(names, c.name)
	}
	names = append(names, "labels")
	for some := range slices.Chunk(sorted, s.parameters/len(names)) {
		var args []any
		for _, e := range some {
			args = append(args, e.setupID)
			for _, v := range e.setup.values {
				args = append(args, v)
			}
			args = append(args, e.labels)
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO setup ("+strings.Join(names, ",")+") VALUES "+values(len(some), len(names))+
			" ON CONFLICT (id) DO NOTHING", args...)
		if err != nil {
			return fmt.Errorf("store setups: %w", s.explain(err))
		}
	}
	return nil
}

// span is when a boot of a machine was seen.
type span struct {
	machine, boot, name string
	first, last         int64
}

// spans are those of entries whose clock is right, sorted.
func spans(entries []*entry) []span {
	type key struct{ machine, boot, name string }
	seen := make(map[key]*span)
	for _, e := range entries {
		if e.clock != 0 {
			continue
		}
		k := key{e.machine, e.boot, e.name}
		if sp := seen[k]; sp != nil {
			sp.first, sp.last = min(sp.first, e.at), max(sp.last, e.at)
		} else {
			seen[k] = &span{e.machine, e.boot, e.name, e.at, e.at}
		}
	}
	var all []span
	for _, sp := range seen {
		all = append(all, *sp)
	}
	slices.SortFunc(all, func(a, b span) int {
		return cmp.Or(strings.Compare(a.machine, b.machine), strings.Compare(a.boot, b.boot), strings.Compare(a.name, b.name))
	})
	return all
}

func (s *Store) insertBoots(ctx context.Context, tx *sql.Tx, entries []*entry) error {
	const width = 5
	for some := range slices.Chunk(spans(entries), s.parameters/width) {
		var args []any
		for _, sp := range some {
			args = append(args, sp.machine, sp.boot, sp.name, sp.first, sp.last)
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO boot (machine, boot, name, seen_first, seen_last) VALUES "+values(len(some), width)+`
ON CONFLICT (machine, boot, name) DO UPDATE SET
	seen_first = CASE WHEN excluded.seen_first < boot.seen_first THEN excluded.seen_first ELSE boot.seen_first END,
	seen_last = CASE WHEN excluded.seen_last > boot.seen_last THEN excluded.seen_last ELSE boot.seen_last END
WHERE excluded.seen_first < boot.seen_first OR excluded.seen_last > boot.seen_last`, args...)
		if err != nil {
			return fmt.Errorf("store boots: %w", s.explain(err))
		}
	}
	return nil
}
