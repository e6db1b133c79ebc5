package fleet

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/record"
)

// Window is the time that a question is about: Until, and so long before it.
type Window struct {
	Until time.Time
	Since time.Duration
}

// Machine is what the newest record of a machine in one of its setups says.
type Machine struct {
	ID, Name, Run string
	At            time.Time
	Setup         *Setup
	// Numbers are in ns, NaN where there is none.
	Numbers [numbers]float64
	// Refused is the agent's reason why there is no number.
	Refused string
}

// Title is the name of a machine, or its identity where it has none.
func (m *Machine) Title() string { return cmp.Or(m.Name, m.ID) }

// number is the one of that name, NaN where the machine has none.
func (m *Machine) number(name string) float64 {
	if m == nil {
		return math.NaN()
	}
	if name == record.FleetIndirect {
		return m.Numbers[branches] * m.number(record.FleetBranch)
	}
	if i := m.Setup.place(name); i >= 0 {
		return m.Numbers[i]
	}
	return math.NaN()
}

// Measured tells whether it has a number.
func (m *Machine) Measured() bool { return hasNumber(m.Numbers) }

// newest are the newest records of each machine in each setup that it had in the window, those of a machine together, the
// newest first. Records with a wrong clock are not among them.
func (s *Store) newest(ctx context.Context, h *held, w Window) ([]*Machine, error) {
	all, of, err := s.newestRows(ctx, h, w)
	if err != nil {
		return nil, err
	}
	setups, err := s.setups(ctx, h, of)
	if err != nil {
		return nil, err
	}
	for i, m := range all {
		if m.Setup = setups[of[i]]; m.Setup == nil {
			return nil, fmt.Errorf("the store has no setup %d, which record %s names", of[i], m.Run)
		}
	}
	sortMachines(all)
	return all, nil
}

// sortMachines sorts by identity, those of one by their time, the newest first. Most identities differ in their first eight digits: what is
// sorted has these as a number, as 200 000 texts elsewhere in memory take ten times as long.
func sortMachines(all []*Machine) {
	type place struct {
		first uint64
		m     *Machine
	}
	places := make([]place, len(all))
	for i, m := range all {
		var first [8]byte
		copy(first[:], m.ID)
		places[i] = place{binary.BigEndian.Uint64(first[:]), m}
	}
	slices.SortFunc(places, func(a, b place) int {
		if c := cmp.Compare(a.first, b.first); c != 0 {
			return c
		}
		return cmp.Or(strings.Compare(a.m.ID, b.m.ID), b.m.At.Compare(a.m.At), strings.Compare(a.m.Run, b.m.Run))
	})
	for i, p := range places {
		all[i] = p.m
	}
}

// setups are those of these numbers. They are asked for by their numbers: for a condition about records PostgreSQL may read an index of
// all records for each setup.
func (s *Store) setups(ctx context.Context, h *held, numbers []int64) (map[int64]*Setup, error) {
	found := make(map[int64]*Setup)
	known := known{h, make(map[string]string), make(map[string]map[string]string)}
	// SQLite looks for each parameter among those before it.
	for some := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(numbers))), min(s.parameters, maxAskedFor)) {
		which, args := oneOf("id", some)
		err := s.eachSetup(ctx, h, len(some), "id", "setup WHERE "+which, func(id int64, setup *Setup, labels string) error {
			if found[id] != nil {
				return fmt.Errorf("setup %d is there twice", id) // the schema makes it a key; a view need not
			}
			found[id] = setup
			return known.take(id, setup, labels)
		}, args...)
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// closeRows ends a question that may have more rows, by its context: Close alone would read all of them.
func closeRows(rows *sql.Rows, cancel context.CancelFunc) {
	cancel()
	rows.Close()
}

// newestRows are the records that newest is about, in any order and without their setups, and the numbers of these.
func (s *Store) newestRows(ctx context.Context, h *held, w Window) (all []*Machine, setups []int64, err error) {
	columns := strings.Join(latestColumns, ", ")
	// Of a setup whose newest record came after the window, an older one counts.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, "SELECT "+columns+" FROM latest WHERE at > $1 AND at <= $2 UNION ALL SELECT r."+
		strings.Join(latestColumns, ", r.")+` FROM (
	SELECT o.machine, o.setup, max(o.at) AS at FROM latest l JOIN record o ON o.machine = l.machine AND o.setup = l.setup
	WHERE l.at > $2 AND o.clock = 0 AND o.at > $1 AND o.at <= $2 GROUP BY o.machine, o.setup
) n JOIN record r ON r.machine = n.machine AND r.at = n.at AND r.setup = n.setup WHERE r.clock = 0`,
		w.Until.Add(-w.Since).Unix(), w.Until.Unix())
	if err != nil {
		return nil, nil, fmt.Errorf("ask for records: %w", s.explain(err))
	}
	defer closeRows(rows, cancel)
	for rows.Next() {
		m := new(Machine)
		var at, setup int64
		var ns [numbers]sql.NullFloat64
		into := []any{&m.ID, &setup, &m.Run, &m.Name, &at, &m.Refused}
		for i := range ns {
			into = append(into, &ns[i])
		}
		if err := rows.Scan(into...); err != nil {
			return nil, nil, fmt.Errorf("ask for records: %w", s.explain(err))
		}
		m.At = time.Unix(at, 0).UTC()
		for i, x := range ns {
			m.Numbers[i] = orNaN(x)
		}
		if err := h.take(costMachine + len(m.ID) + len(m.Run) + len(m.Name) + len(m.Refused)); err != nil {
			return nil, nil, err
		}
		all, setups = append(all, m), append(setups, setup)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("ask for records: %w", s.explain(err))
	}
	return all, setups, nil
}

// eachSetup calls do with each setup that SQL behind FROM has, a number of its row, and the text of its labels, which it has not yet.
// Room for the longest one is taken before, twice, as the engine holds it too while it is read. FROM has at most that many setups, or
// the store has one twice.
func (s *Store) eachSetup(
	ctx context.Context, h *held, most int, number, from string, do func(n int64, setup *Setup, labels string) error, args ...any,
) error {
	names, length := []string{number}, "coalesce(octet_length(CAST(labels AS text)), 0)" // jsonb in PostgreSQL
	for _, c := range columns {
		names = append(names, c.name)
		length += " + coalesce(octet_length(" + c.name + "), 0)"
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var longest int
	ask := fmt.Sprintf("SELECT coalesce(max(length), 0) FROM (SELECT %s AS length FROM %s LIMIT %d) l", length, from, most)
	if err := s.db.QueryRowContext(ctx, ask, args...).Scan(&longest); err != nil {
		return fmt.Errorf("ask for setups: %w", s.explain(err))
	}
	if err := h.take(2 * longest); err != nil {
		return err
	}
	defer h.give(2 * longest)
	rows, err := s.db.QueryContext(ctx, "SELECT "+strings.Join(names, ", ")+", labels FROM "+from, args...)
	if err != nil {
		return fmt.Errorf("ask for setups: %w", s.explain(err))
	}
	defer closeRows(rows, cancel)
	for rows.Next() {
		var n int64
		var labels string
		setup := new(Setup)
		into := []any{&n}
		for i := range setup.values {
			into = append(into, &setup.values[i])
		}
		if err := rows.Scan(append(into, &labels)...); err != nil {
			return fmt.Errorf("ask for setups: %w", s.explain(err))
		}
		if len(labels) > record.MaxLabelsText {
			return fmt.Errorf("a setup has impossible labels: %d bytes, at most %d are possible", len(labels), record.MaxLabelsText)
		}
		if err := do(n, setup, labels); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("ask for setups: %w", s.explain(err))
	}
	return nil
}

// Condition is one that machines have to meet: a field has a value, or one that begins with what stands before a "*" at the
// end of Value.
type Condition struct{ Field, Value string }

// Where are conditions that all have to hold.
type Where []Condition

// ParseWhere reads texts as "kernel=6.12*,label:rack=r12", whose conditions all have to hold. A comma with no FIELD= behind
// it is a part of the value, as in names of CPUs; a backslash makes any comma one.
func ParseWhere(texts ...string) (Where, error) {
	var where Where
	for _, text := range texts {
		first := len(where)
		for _, part := range split(text) {
			field, value, ok := strings.Cut(part, "=")
			switch err := checkField(field); {
			case !ok && len(where) > first:
				where[len(where)-1].Value += "," + part
				continue
			case !ok:
				return nil, fmt.Errorf("%.60q is no condition: FIELD=VALUE", part)
			case err != nil:
				return nil, err
			}
			where = append(where, Condition{field, value})
		}
	}
	return where, nil
}

// split splits at commas without a backslash before them.
func split(text string) []string {
	if text == "" {
		return nil
	}
	var parts []string
	part := ""
	for piece := range strings.SplitSeq(text, ",") {
		if rest, ok := strings.CutSuffix(piece, `\`); ok {
			part += rest + ","
			continue
		}
		parts = append(parts, part+piece)
		part = ""
	}
	if part != "" {
		parts = append(parts, part)
	}
	return parts
}

// Holds tells whether a setup meets all conditions.
func (w Where) Holds(s *Setup) bool {
	return !slices.ContainsFunc(w, func(c Condition) bool { return !c.holds(s) })
}

func (c Condition) holds(s *Setup) bool {
	value := shown(c.Field, s.Value(c.Field))
	if prefix, ok := strings.CutSuffix(c.Value, "*"); ok {
		return strings.HasPrefix(value, prefix)
	}
	return value == c.Value
}

// noMachines is [ErrNoMachines] with some of the values that machines have where they do not meet a condition.
func noMachines(all []*Machine, where Where) error {
	for _, c := range where {
		var values []string
		for _, m := range all {
			if v := shown(c.Field, m.Setup.Value(c.Field)); !c.holds(m.Setup) && !slices.Contains(values, v) && len(values) < 4 {
				values = append(values, v)
			}
		}
		if slices.ContainsFunc(all, func(m *Machine) bool { return c.holds(m.Setup) }) || len(values) == 0 {
			continue
		}
		slices.Sort(values)
		return fmt.Errorf("%w: none has %s=%s; some have %q", ErrNoMachines, c.Field, c.Value, values)
	}
	return ErrNoMachines
}

// String is what [ParseWhere] reads.
func (w Where) String() string {
	var parts []string
	for _, c := range w {
		parts = append(parts, c.Field+"="+strings.ReplaceAll(c.Value, ",", `\,`))
	}
	return strings.Join(parts, ",")
}

// current are the newest records of those machines that meet the conditions in it. Where the agent did not measure in it, the newest
// that has numbers counts, if the machine was then what it is now.
func current(all []*Machine, where Where) []*Machine {
	var now []*Machine
	for i := range all {
		if (i == 0 || all[i].ID != all[i-1].ID) && where.Holds(all[i].Setup) {
			now = append(now, measured(all[i:]))
		}
	}
	return now
}

// measured is the newest record with a number of the machine of the first one, of the same setup but for [callRows]; else the first.
func measured(all []*Machine) *Machine {
	first := all[0]
	for _, m := range all {
		switch {
		case m.ID != first.ID:
			return first
		case m.Measured() && m.Setup.like(first.Setup):
			return m
		}
	}
	return first
}

// about are the machines that a question with conditions is about, and the head of its answer.
func (s *Store) about(ctx context.Context, h *held, w Window, where Where) ([]*Machine, record.FleetHead, error) {
	all, err := s.newest(ctx, h, w)
	if err != nil {
		return nil, record.FleetHead{}, err
	}
	machines := current(all, where)
	if len(machines) == 0 {
		return nil, record.FleetHead{}, noMachines(all, where)
	}
	head, err := s.head(ctx, h, w, machines, where.Holds)
	head.Where = where.String()
	return machines, head, err
}

// head is what answers of these machines have in common; asked tells whether a setup is one that the question is about.
func (s *Store) head(
	ctx context.Context, room *held, w Window, machines []*Machine, asked func(*Setup) bool,
) (h record.FleetHead, err error) {
	after, until := w.Until.Add(-w.Since), w.Until
	h = record.FleetHead{Since: after.UTC().Truncate(time.Second), Until: until.UTC().Truncate(time.Second)}
	ids := make(map[string]bool)
	without := make(map[string]*Machine) // also one that has a number on one side of two
	for _, m := range machines {
		if ids[m.ID] = true; !m.Measured() {
			without[m.ID] = m
		}
	}
	h.Machines, h.Measured = len(ids), len(ids)-len(without)
	h.Unmeasured = unmeasured(slices.Collect(maps.Values(without)))
	if h.WrongClock, err = s.wrongClock(ctx, room, asked); err != nil {
		return h, fmt.Errorf("count records with a wrong clock: %w", err)
	}
	h.FleetShared, err = s.sharedIDs(ctx, ids, after.Unix(), until.Unix())
	return h, err
}

// unmeasured are the first machines, by name, and why they have no number.
func unmeasured(machines []*Machine) []record.FleetUnmeasured {
	slices.SortFunc(machines, func(a, b *Machine) int {
		return cmp.Or(strings.Compare(a.Title(), b.Title()), strings.Compare(a.ID, b.ID))
	})
	named := []record.FleetUnmeasured{}
	for _, m := range machines[:min(len(machines), record.MaxFleetNames)] {
		reason := cmp.Or(m.Refused, record.FleetNotMeasured)
		named = append(named, record.FleetUnmeasured{Name: m.Title(), Machine: m.ID, Reason: reason, At: m.At})
	}
	return named
}

// wrongClock is how many records of setups that a question is about are left out of every answer. It holds one setup at a time: who
// sends a wrong clock sends as many as it likes.
func (s *Store) wrongClock(ctx context.Context, h *held, asked func(*Setup) bool) (n int, err error) {
	err = s.eachSetup(ctx, h, math.MaxInt, "records", `setup JOIN
(SELECT setup, count(*) AS records FROM record WHERE clock <> 0 GROUP BY setup) w ON w.setup = id`,
		func(records int64, setup *Setup, labels string) error {
			if err := json.Unmarshal([]byte(labels), &setup.labels); err != nil {
				return fmt.Errorf("a setup has impossible labels: %w", err)
			}
			if asked(setup) {
				n += int(records)
			}
			return nil
		})
	return n, err
}
