package fleet

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/unthunk/unthunk/internal/outfile"
)

// fileName is that of a store in a folder.
const fileName = "fleet.db"

// File is the file of a store that is not PostgreSQL.
func File(where string) string {
	if info, err := os.Stat(where); err == nil && info.IsDir() || strings.HasSuffix(where, "/") {
		return filepath.Join(where, fileName)
	}
	return where
}

func openSQLite(ctx context.Context, where string, write bool) (*Store, error) {
	path := File(where)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && !write:
		return nil, fmt.Errorf("there is no store %s: unthunk fleet ingest makes one", path)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open store: %w", err)
	case err == nil && !info.Mode().IsRegular():
		return nil, fmt.Errorf("open store %s: it is not a regular file", path)
	}
	if err := checkJournal(ctx, path); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// A question reads only; writers wait for each other. The file may be of others: what its schema calls is not trusted.
	options := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(30000)", "trusted_schema(off)", "cell_size_check(on)"}}
	if write {
		if err := checkWritten(path); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
		options.Set("mode", "rwc")
		options.Set("_txlock", "immediate")
	}
	connector, err := sqlite.NewConnector((&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: options.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	db := sql.OpenDB(bounded{connector, write})
	db.SetMaxOpenConns(1)
	s := &Store{db: db, engine: engine{
		name:       "sqlite",
		lock:       "SELECT 1", // the transaction is one that writes from its beginning
		hasVersion: "SELECT count(*) FROM sqlite_master WHERE name = 'unthunk_schema'",
		parameters: 32000,
		ofData:     func(error) bool { return false }, // a text is any bytes
		explain:    func(err error) error { return explainSQLite(path, err) },
	}}
	err = s.vet(ctx)
	if err == nil {
		err = s.checkStatistics(ctx, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", s.explain(err)), db.Close())
	}
	return s, nil
}

// checkWritten refuses to write through links of other users, and to what is of another user where everybody can write: the
// store, or the journal that SQLite puts beside it.
func checkWritten(path string) error {
	return errors.Join(outfile.CheckStream(path), outfile.CheckStream(path+"-journal"))
}

// checkJournal refuses a file that keeps its changes in others beside it (WAL, of which the bytes 18 and 19 of the file are 2):
// reading it makes these, and leaves them there. SQLite reads the bytes, as who closes a file gives up all locks that the process
// has on it (fcntl(2)).
func checkJournal(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: "mode=ro&immutable=1"}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	var version []byte
	err = db.QueryRowContext(ctx, "SELECT substr(data, 19, 2) FROM sqlite_dbpage WHERE pgno = 1").Scan(&version)
	if err == nil && bytes.Contains(version, []byte{2}) {
		return fmt.Errorf("%s keeps a write-ahead log: sqlite3 %[1]s 'PRAGMA journal_mode=delete' makes it one file", path)
	}
	return nil // what is no database is said to be none by who opens it
}

// maxValue is the longest text of a store, and the longest row, in bytes: a record and its columns.
const maxValue = 4 * maxRecord

// ownSchema is what a database says of the tables of unthunk: each of them, and each index and trigger of one, in SQL. Schemas are
// compared as texts.
const ownSchema = `SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema
WHERE lower(tbl_name) IN ('unthunk_schema', 'setup', 'record', 'latest', 'boot', 'shared') ORDER BY 1, 2, 3, 4`

// object is a row of ownSchema.
type object struct{ kind, name, table, sql string }

// schemaOf is the ownSchema of a database.
func schemaOf(ctx context.Context, db *sql.DB) ([]object, error) {
	rows, err := db.QueryContext(ctx, ownSchema)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []object
	for rows.Next() {
		var o object
		if err := rows.Scan(&o.kind, &o.name, &o.table, &o.sql); err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, rows.Err()
}

// bounded makes connections that take no text and no row of more than [maxValue]. database/sql makes another in place of one whose
// question was interrupted.
type bounded struct {
	driver.Connector
	// write says that they write.
	write bool
}

func (b bounded) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := b.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(lent{b.Connector, c}) // the limit is set by a connection of database/sql only
	conn, err := db.Conn(ctx)
	if err == nil {
		_, err = sqlite.Limit(conn, sqlite3.SQLITE_LIMIT_LENGTH, maxValue)
		err = errors.Join(err, conn.Close())
	}
	err = errors.Join(err, db.Close())
	if err == nil && b.write { // here, as it may wait for a lock: the driver hears no context while it opens
		_, err = c.(driver.ExecerContext).ExecContext(ctx, "PRAGMA journal_mode = truncate", nil)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// lent makes one connection, which stays open when it is closed.
type lent struct {
	driver.Connector
	conn driver.Conn
}

func (l lent) Connect(context.Context) (driver.Conn, error) { return lentConn{l.conn}, nil }

type lentConn struct{ driver.Conn }

func (lentConn) Close() error { return nil }

// Unwrap is for [sqlite.Limit].
func (l lentConn) Unwrap() driver.Conn { return l.Conn }

// vet refuses a store whose tables are not those that the steps make: a view, a virtual table, a trigger, a computed column, an
// index or a condition of a table computes where unthunk reads or writes, and a file of some bytes has as many as it likes.
func (s *Store) vet(ctx context.Context) error {
	have, err := schemaOf(ctx, s.db)
	if err != nil || len(have) == 0 {
		return err
	}
	steps, err := s.steps()
	if err != nil {
		return err
	}
	plain, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return err
	}
	defer plain.Close()
	plain.SetMaxOpenConns(1)
	var want []object
	for i := range steps {
		if _, err := plain.ExecContext(ctx, up(steps, i)); err != nil {
			return err
		}
		if want, err = schemaOf(ctx, plain); err != nil {
			return err
		}
		if slices.Equal(have, want) {
			return s.checkTrees(ctx, have)
		}
	}
	// The version can be asked for where its table is a plain one.
	ofVersion := func(o object) bool { return strings.EqualFold(o.table, "unthunk_schema") }
	others := func(o object) bool { return !ofVersion(o) }
	if slices.Equal(slices.DeleteFunc(have, others), slices.DeleteFunc(want, others)) {
		if version, err := s.version(ctx, s.db); err == nil && version > len(steps) {
			return newerError(version, len(steps))
		}
	}
	return errors.New("its tables, or their indexes or triggers, are others than unthunk makes: it is not a store of unthunk")
}

// checkStatistics refuses a store that says how many rows it has: SQLite believes it, and reads and sorts all rows where it says so.
func (s *Store) checkStatistics(ctx context.Context, path string) error {
	var drop sql.NullString
	err := s.db.QueryRowContext(ctx, `SELECT group_concat('DROP TABLE ' || lower(name), '; ') FROM sqlite_schema
		WHERE lower(name) IN ('sqlite_stat1', 'sqlite_stat4')`).Scan(&drop)
	if err == nil && drop.Valid {
		err = fmt.Errorf("%s has statistics of ANALYZE, which say in which order it is read: sqlite3 %[1]s '%s' drops them", path, drop.String)
	}
	return err
}

// Of a file of more than maxChecked bytes the table of records is not read whole, as its documents are not for a question: its indexes
// are. A check notes each page of the file by a bit, also those of a hole, of which no byte is on the disk: 32 MiB are maxPages, which
// are 1 TiB of SQLite's usual pages.
const (
	maxChecked = 64 << 20
	maxPages   = 1 << 28
)

// checkTrees refuses tables and indexes whose pages lead to one page in more than one way: a file of some pages has billions of rows
// so, and a question about these never ends, or sorts them into a file until the disk is full. Of tables that records are joined with
// it refuses a key that is there twice, too: each of its records would be as often in the answer.
func (s *Store) checkTrees(ctx context.Context, schema []object) error {
	var pages, size int64
	err := s.db.QueryRowContext(ctx, "SELECT page_count, page_size FROM pragma_page_count, pragma_page_size").Scan(&pages, &size)
	if err != nil {
		return err
	}
	if pages > maxPages {
		return fmt.Errorf("the database has %d pages: at most %d are checked", pages, maxPages)
	}
	large := pages*size > maxChecked
	for _, o := range schema {
		switch {
		case o.kind == "table" && (o.name != "record" || !large):
			var found string
			check := "quick_check"
			if o.name == "latest" || o.name == "shared" {
				check = "integrity_check" // of its keys, too
			}
			if err := s.db.QueryRowContext(ctx, "PRAGMA "+check+"("+o.name+")").Scan(&found); err != nil {
				return err
			}
			if found != "ok" {
				return fmt.Errorf("%w: %.200s", errDamaged, strings.Join(strings.Fields(found), " "))
			}
		case o.kind == "index" && o.table == "record" && large:
			if err := s.checkIndex(ctx, o.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// explainSQLite says what an error of SQLite means for the store.
func explainSQLite(path string, err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%s: the disk or the database is full: %w", path, err)
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%s: it is not a SQLite database", path)
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("%s: the database is damaged: %w", path, err)
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("%s: another process writes to it", path)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%s: it cannot be opened or written: %w", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
