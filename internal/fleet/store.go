package fleet

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/semaphore"
)

//go:embed migrations
var migrations embed.FS

// Store is a database of records.
type Store struct {
	db *sql.DB
	engine
	// parsing has [maxParsed].
	parsing *semaphore.Weighted
	// maxHeld is what a question may hold, in bytes.
	maxHeld int
}

// engine is what SQLite and PostgreSQL do not have in common.
type engine struct {
	// name is "sqlite" or "postgres": a folder of migrations.
	name string
	// lock makes migrations of several processes wait for each other until the end of the transaction.
	lock string
	// hasVersion counts the tables of the name unthunk_schema.
	hasVersion string
	// parameters is how many parameters a statement may have.
	parameters int
	// ofData tells whether an error is about what is stored, and not about the store.
	ofData func(error) bool
	// copyIn puts rows into a table in less time than INSERT, in the transaction of a connection, and refuses rows that are there;
	// nil where there is no such way. known tells whether that is why it failed.
	copyIn func(ctx context.Context, conn *sql.Conn, table string, columns []string, rows [][]any) error
	known  func(error) bool
	// lockMachines makes writers wait for those of the same machines until the end of their transactions; nil where no two write at
	// a time.
	lockMachines func(ctx context.Context, tx *sql.Tx, machines []string) error
	// explain makes an error of the store one line that says what to do.
	explain func(error) error
}

// Open opens a store to read it: the path of a SQLite file or of the folder that has it, or postgres://.
// It is an error when there is none, or when its tables are of another version.
func Open(ctx context.Context, where string) (*Store, error) { return open(ctx, where, false) }

// Create opens a store to write to it, and makes what is not there: file, tables, their newest version.
func Create(ctx context.Context, where string) (*Store, error) { return open(ctx, where, true) }

func open(ctx context.Context, where string, write bool) (*Store, error) {
	connect := openSQLite
	if IsPostgres(where) {
		connect = openPostgres
	}
	s, err := connect(ctx, where, write)
	if err != nil {
		return nil, err
	}
	s.parsing, s.maxHeld = semaphore.NewWeighted(maxParsed), maxHeld
	if write {
		err = s.migrate(ctx)
	} else {
		err = s.checkVersion(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes the store.
func (s *Store) Close() error { return s.db.Close() }

// steps are the migrations of an engine in their order. Version n is what step n makes of version n-1.
func (e *engine) steps() ([]string, error) {
	names, err := fs.Glob(migrations, "migrations/"+e.name+"/*.sql")
	if err != nil {
		return nil, fmt.Errorf("find migrations: %w", err)
	}
	slices.Sort(names)
	var steps []string
	for _, name := range names {
		b, err := migrations.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read migration: %w", err)
		}
		steps = append(steps, string(b))
	}
	return steps, nil
}

// up is step i and the version that it makes.
func up(steps []string, i int) string {
	sql := steps[i] + ";\nINSERT INTO unthunk_schema (version) VALUES (" + strconv.Itoa(i+1) + ");\n"
	if i == 0 {
		return "CREATE TABLE unthunk_schema (version integer NOT NULL);\n" + sql
	}
	return sql
}

// querier is a database or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// version is that of the tables; 0 when there are none.
func (s *Store) version(ctx context.Context, q querier) (version int, err error) {
	var tables int
	if err := q.QueryRowContext(ctx, s.hasVersion).Scan(&tables); err != nil {
		return 0, fmt.Errorf("look for tables: %w", s.explain(err))
	}
	if tables == 0 {
		return 0, nil
	}
	if err := q.QueryRowContext(ctx, "SELECT max(version) FROM unthunk_schema").Scan(&version); err != nil {
		return 0, fmt.Errorf("read the version of the tables: %w", s.explain(err))
	}
	return version, nil
}

func newerError(version, known int) error {
	return fmt.Errorf("the tables of the store are of version %d, and this unthunk knows %d: use a newer one", version, known)
}

func (s *Store) checkVersion(ctx context.Context) error {
	steps, err := s.steps()
	if err != nil {
		return err
	}
	version, err := s.version(ctx, s.db)
	switch {
	case err != nil:
		return err
	case version == 0:
		return errors.New("the store has no records: unthunk fleet ingest puts some there")
	case version > len(steps):
		return newerError(version, len(steps))
	case version < len(steps):
		return fmt.Errorf("the tables of the store are of version %d: unthunk fleet ingest makes version %d of them", version, len(steps))
	}
	return nil
}

// migrate brings the tables to their newest version, all in one transaction.
func (s *Store) migrate(ctx context.Context) error {
	steps, err := s.steps()
	if err != nil {
		return err
	}
	if version, err := s.version(ctx, s.db); err == nil && version == len(steps) {
		return nil // without a lock, and without the right to make tables
	}
	return s.inTx(ctx, func(_ *sql.Conn, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, s.lock); err != nil {
			return fmt.Errorf("lock the tables: %w", s.explain(err))
		}
		version, err := s.version(ctx, tx)
		switch {
		case err != nil:
			return err
		case version > len(steps):
			return newerError(version, len(steps))
		}
		for i := version; i < len(steps); i++ {
			if _, err := tx.ExecContext(ctx, up(steps, i)); err != nil {
				return fmt.Errorf("make version %d of the tables: %w", i+1, s.explain(err))
			}
		}
		return nil
	})
}

// inTx runs do in a transaction of a connection, which lasts only when do succeeds.
func (s *Store) inTx(ctx context.Context, do func(*sql.Conn, *sql.Tx) error) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", s.explain(err))
	}
	defer conn.Close()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", s.explain(err))
	}
	if err := do(conn, tx); err != nil {
		_ = tx.Rollback() // where that fails the connection is gone, and the database does it
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", s.explain(err))
	}
	return nil
}

// values is "($1,$2),($3,$4)": rows of so many parameters.
func values(rows, width int) string {
	var b strings.Builder
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('(')
		for j := range width {
			if j > 0 {
				b.WriteByte(',')
			}
			b.WriteString("$" + strconv.Itoa(i*width+j+1))
		}
		b.WriteByte(')')
	}
	return b.String()
}
