package fleet

import (
	"context"
	"fmt"
	"math"

	"github.com/unthunk/unthunk/internal/record"
)

// BoolInt is 1 for true.
var BoolInt = oneIf

// ExplainPostgres says what an error of PostgreSQL means.
var ExplainPostgres = explainPostgres

// SetVersion says that the tables of a store are of another version.
func SetVersion(ctx context.Context, where string, version int) error {
	s, err := Create(ctx, where)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.db.ExecContext(ctx, "INSERT INTO unthunk_schema (version) VALUES ($1)", version)
	return err
}

// Newest are the newest records of a window.
func Newest(ctx context.Context, s *Store, w Window) ([]*Machine, error) {
	return s.newest(ctx, s.room(), w)
}

// SetMaxHeld lets a question hold so many bytes.
func SetMaxHeld(s *Store, n int) { s.maxHeld = n }

// SetParameters lets a statement have so many parameters.
func SetParameters(s *Store, n int) { s.parameters = n }

// CloseConnections makes the next question open another connection.
func CloseConnections(s *Store) {
	s.db.SetMaxIdleConns(-1)
	s.db.SetMaxIdleConns(1)
}

// LimitPages makes a SQLite database full at so many pages, for as long as it is open.
func LimitPages(ctx context.Context, s *Store, pages int) error {
	_, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
	return err
}

// HoldParsing leaves room for one byte among the documents that are parsed at a time. waits tells whether one waits
// for more, release gives the room back.
func HoldParsing(s *Store) (waits func() bool, release func()) {
	if !s.parsing.TryAcquire(maxParsed - 1) {
		panic("documents are being parsed")
	}
	waits = func() bool {
		if !s.parsing.TryAcquire(1) {
			return true
		}
		s.parsing.Release(1)
		return false
	}
	return waits, func() { s.parsing.Release(maxParsed - 1) }
}

// SharedIDs are those of machines at any time.
func SharedIDs(ctx context.Context, s *Store, of map[string]bool) (record.FleetShared, error) {
	return s.sharedIDs(ctx, of, math.MinInt64, math.MaxInt64)
}

// AddShared adds identities m1, m2 and so on, of which two boots were seen in turns; m7 is that of so many hosts.
func AddShared(ctx context.Context, s *Store, machines, hosts int) error {
	const n = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < "
	for _, statement := range []string{
		n + "%[1]d) INSERT INTO boot SELECT 'm' || x, 'a', '', 10, 30 FROM n",
		n + "%[1]d) INSERT INTO boot SELECT 'm' || x, 'b', '', 20, 40 FROM n",
		n + "%[1]d) INSERT INTO shared SELECT 'm' || x FROM n",
		n + "%[2]d) INSERT INTO boot SELECT 'm7', 'c', 'host-' || x, 10, 40 FROM n",
	} {
		if _, err := s.db.ExecContext(ctx, fmt.Sprintf(statement, machines, hosts)); err != nil {
			return err
		}
	}
	return nil
}

// Place is where a setup without calls has the number of that name.
func Place(name string) int { return new(Setup).place(name) }

// CreateFirst makes a store of the first version, and changes it.
func CreateFirst(ctx context.Context, where, statement string) error {
	connect := openSQLite
	if IsPostgres(where) {
		connect = openPostgres
	}
	s, err := connect(ctx, where, true)
	if err != nil {
		return err
	}
	defer s.Close()
	steps, err := s.steps()
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, up(steps, 0)+statement)
	return err
}

// Shared are the identities that a store notes as seen in turns.
func Shared(ctx context.Context, s *Store) ([]string, error) {
	return texts(s.db.QueryContext(ctx, "SELECT machine FROM shared ORDER BY 1"))
}
