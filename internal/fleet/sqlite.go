package fleet

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
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
	if err := vetSQLite(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", s.explain(err)), db.Close())
	}
	return s, nil
}

// checkWritten refuses to write through links of other users, and to what is of another user where everybody can write: the
// store, or the journal that SQLite puts beside it.
func checkWritten(path string) error {
	return errors.Join(outfile.CheckStream(path), outfile.CheckStream(path+"-journal"))
}

// maxValue is the longest text of a store, and the longest row, in bytes: a record and its columns.
const maxValue = 4 * maxRecord

// madeUp counts what computes values where unthunk reads or writes: views, virtual tables and generated columns in place of
// its tables, and triggers of these. A file of some bytes has as many as it likes.
const madeUp = `WITH own(name) AS (VALUES ('unthunk_schema'), ('setup'), ('record'), ('latest'), ('boot'))
SELECT (SELECT count(*) FROM pragma_table_list t JOIN own ON lower(t.name) = own.name WHERE t.type <> 'table')
	+ (SELECT count(*) FROM own JOIN pragma_table_xinfo(own.name) c WHERE c.hidden <> 0)
	+ (SELECT count(*) FROM sqlite_master m JOIN own ON lower(m.tbl_name) = own.name WHERE m.type = 'trigger')`

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

// vetSQLite refuses a store whose tables are not plain ones.
func vetSQLite(ctx context.Context, db *sql.DB) error {
	var n int
	if err := db.QueryRowContext(ctx, madeUp).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return errors.New("it has views, triggers or computed columns where unthunk has its tables: it is not a store of unthunk")
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
