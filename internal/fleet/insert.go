package fleet

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// numberColumns are where the tables have the numbers, recordColumns and latestColumns those of two tables.
var (
	numberColumns = []string{"control", "direct_call", "call_1", "call_2", "call_3", "redirect_1", "redirect_16", "redirect_64",
		"branches_16"}
	recordColumns = slices.Concat([]string{
		"run", "machine", "name", "boot", "at", "kind", "ingested", "setup", "clock", "measured", "refused",
	}, numberColumns, []string{"doc"})
	latestColumns = append([]string{"machine", "setup", "run", "name", "at", "refused"}, numberColumns...)
)

// insert puts entries into the store, all in one transaction, and returns those that were not there before: only they say what
// is newest, and when boots were seen. Each table is written in the order of its keys: writers that meet wait for each other, and
// none for ever.
func (s *Store) insert(ctx context.Context, entries []*entry, now time.Time) (added []*entry, err error) {
	byRun := func(a, b *entry) int { return strings.Compare(a.run, b.run) }
	sorted := slices.SortedStableFunc(slices.Values(entries), byRun)
	sorted = slices.CompactFunc(sorted, func(a, b *entry) bool { return a.run == b.run }) // of several of one run the first
	put := s.insertRecords
	if s.copyIn != nil {
		put = s.copyRecords
	}
	added, err = s.insertAll(ctx, sorted, now, put)
	if err != nil && s.copyIn != nil && s.known(err) { // another writer was first
		added, err = s.insertAll(ctx, sorted, now, s.insertRecords)
	}
	return added, err
}

// putRecords puts records into the store, and returns those that were not there before.
type putRecords func(ctx context.Context, conn *sql.Conn, tx *sql.Tx, sorted []*entry, now time.Time) (added []*entry, err error)

func (s *Store) insertAll(ctx context.Context, entries []*entry, now time.Time, put putRecords) (added []*entry, err error) {
	err = s.inTx(ctx, func(conn *sql.Conn, tx *sql.Tx) (err error) {
		if err := s.insertSetups(ctx, tx, entries); err != nil {
			return err
		}
		if added, err = put(ctx, conn, tx, entries, now); err != nil {
			return fmt.Errorf("store records: %w", s.explain(err))
		}
		if err := s.insertLatest(ctx, tx, added); err != nil {
			return err
		}
		if err := s.insertBoots(ctx, tx, added); err != nil {
			return err
		}
		return s.insertShared(ctx, tx, added)
	})
	return added, err
}

// row is an entry as the table record has it; doc makes the document a parameter.
func (e *entry) row(now time.Time, doc any) []any {
	args := []any{e.run, e.machine, e.name, e.boot, e.at, "agent", now.Unix(), e.setupID, e.clock, oneIf(e.measured()), e.refused}
	return append(e.appendNumbers(args), doc)
}

// insertRecords is a [putRecords] beside which others may put the same.
func (s *Store) insertRecords(ctx context.Context, _ *sql.Conn, tx *sql.Tx, sorted []*entry, now time.Time) (added []*entry, err error) {
	width := len(recordColumns)
	for some := range slices.Chunk(sorted, s.parameters/width) {
		args := make([]any, 0, len(some)*width)
		for _, e := range some {
			args = append(args, e.row(now, string(e.doc))...)
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

// copyRecords is a [putRecords] that fails when another writer puts one of them.
func (s *Store) copyRecords(ctx context.Context, conn *sql.Conn, tx *sql.Tx, sorted []*entry, now time.Time) (added []*entry, err error) {
	var all []string
	for _, e := range sorted {
		all = append(all, e.run)
	}
	which, args := oneOf("run", all)
	known, err := texts(tx.QueryContext(ctx, "SELECT run FROM record WHERE "+which, args...))
	if err != nil {
		return nil, err
	}
	var rows [][]any
	for _, e := range sorted {
		if !slices.Contains(known, e.run) {
			added, rows = append(added, e), append(rows, e.row(now, e.doc))
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	return added, s.copyIn(ctx, conn, "record", recordColumns, rows)
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

// insertShared notes machines of entries of which two boots, or names, were seen in turns at any time.
func (s *Store) insertShared(ctx context.Context, tx *sql.Tx, entries []*entry) error {
	machines := make(map[string]bool)
	for _, e := range entries {
		machines[e.machine] = true
	}
	sorted := slices.Sorted(maps.Keys(machines))
	// Of two writers that see one boot each none would see the other's.
	if s.lockMachines != nil {
		if err := s.lockMachines(ctx, tx, sorted); err != nil {
			return fmt.Errorf("lock machines: %w", s.explain(err))
		}
	}
	for some := range slices.Chunk(sorted, s.parameters) {
		which, args := oneOf("machine", some)
		_, err := tx.ExecContext(ctx, "INSERT INTO shared (machine) "+seenInTurns(which)+
			"SELECT DISTINCT machine FROM turn WHERE seen_first < before ORDER BY 1 ON CONFLICT (machine) DO NOTHING", args...)
		if err != nil {
			return fmt.Errorf("store shared identities: %w", s.explain(err))
		}
	}
	return nil
}

// oneOf is a condition that a column has one of these values, which are the first parameters, and these.
func oneOf[T any](column string, values []T) (condition string, args []any) {
	places := make([]string, len(values))
	for i, v := range values {
		places[i], args = "$"+strconv.Itoa(i+1), append(args, v)
	}
	return column + " IN (" + strings.Join(places, ",") + ")", args
}

// seenInTurns is a table turn of SQL: when each boot of machines that meet a condition was first and last seen, sorted by the
// first, and before: until when any of those before it was seen. Records without a name are those of the name that the same boot has
// elsewhere. One overlaps another before it when it begins before the latest of those ended: each boot is looked at once, however
// many one machine says that it had.
func seenInTurns(which string) string {
	return `WITH named AS (
	SELECT machine, boot, CASE WHEN name = '' THEN max(name) OVER (PARTITION BY machine, boot) ELSE name END AS name, seen_first, seen_last
	FROM boot WHERE ` + which + `
), span AS (
	SELECT machine, min(seen_first) AS seen_first, max(seen_last) AS seen_last FROM named GROUP BY machine, boot, name
), turn AS (
	SELECT machine, seen_first, seen_last, max(seen_last) OVER
	(PARTITION BY machine ORDER BY seen_first, seen_last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM span
) `
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
