package fleet_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/pgserver"
)

// repeated is a text without end.
type repeated string

func (r repeated) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		n += copy(b[n:], r)
	}
	return n, nil
}

// An ingest hears its context in a stream without end, of one line or of many, and at a pipe that nobody writes to.
func TestIngestIsStopped(t *testing.T) {
	pipe, writer := io.Pipe()
	t.Cleanup(func() { writer.Close() })
	for name, in := range map[string]io.Reader{
		"one line": repeated("\x00"), "lines": repeated("y\n"), "document": repeated("{\n  1,\n"), "pipe": pipe,
	} {
		s, err := fleet.Create(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stream := &interrupted{Reader: in, left: 1 << 20, do: cancel}
		if in == pipe {
			stream.left = 1
			go cancel() // while it waits, or before
		}
		ingest := fleet.Ingest{Store: s, In: stream, Now: now}
		done, err := ingest.Run(ctx, "-")
		if !errors.Is(err, context.Canceled) || done.New != 0 {
			t.Errorf("%s: %v, %+v", name, err, done)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Who opens a store that another process holds, to read or to write, or writes to it, hears its context.
func TestLockedStore(t *testing.T) {
	where := filepath.Join(t.TempDir(), "fleet.db")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	opened, err := fleet.Create(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	db, err := sql.Open("sqlite", where)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(context.Context) error{
		"read":  func(ctx context.Context) error { _, err := fleet.Open(ctx, where); return err },
		"write": func(ctx context.Context) error { _, err := fleet.Create(ctx, where); return err },
		"ingest": func(ctx context.Context) error {
			in := fleet.Ingest{Store: opened, In: strings.NewReader(stream(t, machine(2, 1, nil))), Now: now}
			_, err := in.Run(ctx, "-")
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// Documents wait until there is room for them among those that are parsed at a time, of whatever Ingest, and hear their context.
func TestIngestWaits(t *testing.T) {
	s, err := fleet.Create(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	text := stream(t, machine(1, 1, nil))
	for _, stopped := range []bool{true, false} {
		waits, release := fleet.HoldParsing(s)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan *record.FleetIngest, 1)
		go func() {
			in := fleet.Ingest{Store: s, In: strings.NewReader(text), Now: now}
			done, _ := in.Run(ctx, "-")
			ended <- done
		}()
		for !waits() {
			if len(ended) > 0 {
				t.Fatalf("it did not wait: %+v", <-ended)
			}
			runtime.Gosched()
		}
		want := 1
		if stopped {
			cancel()
			want = 0
		} else {
			release()
		}
		if done := <-ended; done.New != want || done.Incomplete != stopped {
			t.Errorf("stopped %v: %+v, want %d new", stopped, done, want)
		}
		if stopped {
			release()
		}
		cancel()
	}
}

// change runs statements in a SQLite file.
func change(t *testing.T, where, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", where)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statements); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

// A SQLite file of others in which a table computes what it has, without end or of any size, is refused before it is asked.
func TestComputedTables(t *testing.T) {
	const setups = `ALTER TABLE setup RENAME TO kept; CREATE VIEW setup AS `
	for name, statements := range map[string]string{
		"endless view": setups + `WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS id, kept.* FROM n, kept`,
		"large view":   setups + `SELECT id, hex(zeroblob(400000000)) AS kernel FROM kept`,
		"other case":   `ALTER TABLE setup RENAME TO kept; CREATE VIEW SETUP AS SELECT * FROM kept`,
		"version":      `DROP TABLE unthunk_schema; CREATE VIEW unthunk_schema AS SELECT 1 AS version`,
		"column":       `ALTER TABLE record ADD COLUMN more text AS (hex(zeroblob(400000000)))`,
		"trigger":      `CREATE TRIGGER t AFTER INSERT ON boot BEGIN DELETE FROM record; END`,
		"virtual":      `DROP TABLE boot; CREATE VIRTUAL TABLE boot USING rtree(id, seen_first, seen_last)`,
		"index":        `CREATE INDEX more ON boot (hex(zeroblob(400000000)))`,
		"other index":  `DROP INDEX record_clock; CREATE INDEX record_clock ON record (clock) WHERE length(hex(zeroblob(400000000)))`,
		"condition": `ALTER TABLE boot RENAME TO kept; CREATE TABLE boot (machine text NOT NULL, boot text NOT NULL, name text NOT NULL,
			seen_first integer NOT NULL, seen_last integer NOT NULL CHECK (length(hex(zeroblob(400000000)))), PRIMARY KEY (machine, boot, name))`,
		"plain column": `ALTER TABLE setup ADD COLUMN more text`,
		"newest":       `ALTER TABLE latest RENAME TO kept; CREATE VIEW latest AS SELECT * FROM kept`,
	} {
		where := filepath.Join(t.TempDir(), "fleet.db")
		ingest(t, where, stream(t, machine(1, 1, nil)))
		change(t, where, statements)
		for _, open := range []func(context.Context, string) (*fleet.Store, error){fleet.Open, fleet.Create} {
			s, err := open(t.Context(), where)
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "not a store of unthunk") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// Tables of a later version are not those of this one, and are said to be later.
	later := filepath.Join(t.TempDir(), "fleet.db")
	ingest(t, later, stream(t, machine(1, 1, nil)))
	change(t, later, `ALTER TABLE setup ADD COLUMN more text; INSERT INTO unthunk_schema VALUES (1000)`)
	if _, err := fleet.Open(t.Context(), later); err == nil || !strings.Contains(err.Error(), "use a newer one") {
		t.Errorf("later: %v", err)
	}
	// What somebody adds beside the tables is nobody's business.
	where := filepath.Join(t.TempDir(), "fleet.db")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	change(t, where, `CREATE VIEW kernels AS SELECT DISTINCT kernel FROM setup; CREATE TABLE mine (a)`)
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
}

// multiply makes a table or an index of a file, which is one page, into six levels of pages of which each leads 40 times to the next.
// The file is said to have so many pages, and has that size.
func multiply(t *testing.T, where, name string, pages uint32) {
	t.Helper()
	db, err := sql.Open("sqlite", where)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var root, size, count int
	if err := db.QueryRow("SELECT rootpage, page_size, page_count FROM sqlite_schema, pragma_page_size, pragma_page_count WHERE name = $1",
		name).Scan(&root, &size, &count); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(where)
	if err != nil {
		t.Fatal(err)
	}
	leaf := file[(root-1)*size : root*size]
	const ofTable, ofIndex, inner = 13, 10, 8 // what a page is, and how much less its inner pages are
	var rest []byte                           // of a cell, behind the page that it leads to
	switch leaf[0] {
	case ofTable:
		rest = []byte{1}
	case ofIndex:
		at := int(binary.BigEndian.Uint16(leaf[inner:]))
		if leaf[at] >= 0x80 {
			t.Fatalf("the first row of %s has 128 bytes or more", name)
		}
		rest = leaf[at : at+1+int(leaf[at])]
	default:
		t.Fatalf("%s has more than one page", name)
	}
	page := func(child int) []byte {
		const cells, header = 40, 12
		p := make([]byte, size)
		p[0] = leaf[0] - inner
		binary.BigEndian.PutUint16(p[3:], cells)
		binary.BigEndian.PutUint32(p[8:], uint32(child))
		at := size
		for i := range cells {
			at -= 4 + len(rest)
			binary.BigEndian.PutUint32(p[at:], uint32(child))
			copy(p[at+4:], rest)
			binary.BigEndian.PutUint16(p[header+2*i:], uint16(at))
		}
		binary.BigEndian.PutUint16(p[5:], uint16(at))
		return p
	}
	leaf = bytes.Clone(leaf)
	file = append(file, leaf...)
	for range 6 {
		count++
		file = append(file, page(count)...)
	}
	copy(file[(root-1)*size:], page(count+1))
	copy(file[92:96], file[24:28])
	binary.BigEndian.PutUint32(file[28:], max(pages, uint32(len(file)/size)))
	if err := os.WriteFile(where, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(where, int64(binary.BigEndian.Uint32(file[28:]))*int64(size)); err != nil {
		t.Fatal(err)
	}
}

// A file of some pages that says that it has billions of rows is refused before it is asked, also one that says it is large: its size is
// that of a hole.
func TestManyRowsOfFewPages(t *testing.T) {
	for name, pages := range map[string][]uint32{
		"latest": {0, 20_000}, "sqlite_autoindex_latest_1": {0}, "sqlite_autoindex_boot_1": {0, 20_000}, "boot": {0}, "setup": {0},
		"sqlite_autoindex_shared_1": {0}, "record_at": {0, 20_000, 1 << 28}, "record_machine": {0, 20_000}, "record": {0},
	} {
		for _, pages := range pages {
			where := filepath.Join(t.TempDir(), "fleet.db")
			ingest(t, where, stream(t, machine(1, 1, nil)))
			change(t, where, "INSERT INTO shared SELECT machine FROM record")
			multiply(t, where, name, pages)
			for _, open := range []func(context.Context, string) (*fleet.Store, error){fleet.Open, fleet.Create} {
				s, err := open(t.Context(), where)
				if err == nil {
					s.Close()
				}
				if err == nil || !strings.Contains(err.Error(), "the database is damaged: ") || len(err.Error()) > len(where)+300 {
					t.Errorf("%s, %d pages: %v", name, pages, err)
				}
			}
		}
	}
}

// A file whose keys are there more than once, as its trees may be sound nevertheless, or that says itself how many rows it has, is refused
// before a question joins its rows.
func TestKeysOfMoreRows(t *testing.T) {
	where := filepath.Join(t.TempDir(), "fleet.db")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	change(t, where, "ANALYZE")
	refused := func(want string) {
		t.Helper()
		for _, open := range []func(context.Context, string) (*fleet.Store, error){fleet.Open, fleet.Create} {
			s, err := open(t.Context(), where)
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("not %q: %v", want, err)
			}
		}
	}
	refused("sqlite3 " + where + " 'DROP TABLE sqlite_stat1; DROP TABLE sqlite_stat4' drops them")
	change(t, where, "DROP TABLE sqlite_stat1; DROP TABLE sqlite_stat4")
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	change(t, where, `CREATE TEMP TABLE kept AS SELECT sql FROM sqlite_schema WHERE name = 'latest';
		CREATE TABLE more AS SELECT * FROM latest UNION ALL SELECT * FROM latest;
		DROP TABLE latest; ALTER TABLE more RENAME TO latest;
		CREATE INDEX other ON latest (machine, setup);
		PRAGMA writable_schema = on;
		UPDATE sqlite_schema SET sql = (SELECT sql FROM kept) WHERE name = 'latest';
		UPDATE sqlite_schema SET name = 'sqlite_autoindex_latest_1', sql = null WHERE name = 'other'`)
	refused("the database is damaged: non-unique entry in index sqlite_autoindex_latest_1")
}

// A file that is a hole of billions of pages is refused before these are noted.
func TestManyPages(t *testing.T) {
	where := filepath.Join(t.TempDir(), "fleet.db")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	multiply(t, where, "latest", 1<<28+1)
	for _, open := range []func(context.Context, string) (*fleet.Store, error){fleet.Open, fleet.Create} {
		s, err := open(t.Context(), where)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "the database has 268435457 pages: at most 268435456 are checked") {
			t.Error(err)
		}
	}
}

// A store of more than 64 MiB is as good as a small one.
func TestLargeStore(t *testing.T) {
	where := filepath.Join(t.TempDir(), "fleet.db")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	change(t, where, "CREATE TABLE mine (a); INSERT INTO mine SELECT zeroblob(70000000)")
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
}

// A message of a server is no longer than a row of a store, before anybody knows whose the server is.
func TestLargeMessage(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, err = conn.Write([]byte{'E', 0x3f, 0xff, 0xff, 0xff}) // an error of 1 GiB
			for err == nil {
				_, err = conn.Write(make([]byte, 1<<20))
			}
			conn.Close()
		}
	}()
	testutil.Allocates(t, 256<<20, func() {
		s, err := fleet.Open(t.Context(), fmt.Sprintf("postgres://me@%s/fleet?sslmode=disable", listener.Addr()))
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "invalid body length") {
			t.Error(err)
		}
	})
}

// A server that names parameters without end is left soon, before it takes questions and after: they are kept.
func TestManyParameters(t *testing.T) {
	for _, test := range []struct {
		name, greeting, want string
	}{
		{"before", "R\x00\x00\x00\x08\x00\x00\x00\x00", "more than 1 MiB before it takes a question"}, // no password is asked for
		{"after", "R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I", "the database went away"},
	} {
		t.Run(test.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var server sync.WaitGroup
			defer server.Wait()
			defer listener.Close()
			server.Go(func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					_, err = conn.Write([]byte(test.greeting))
					for i := 0; err == nil && i < 64<<10; i++ {
						name := fmt.Sprintf("%01000d\x00\x00", i)
						_, err = conn.Write(append([]byte{'S', 0, 0, byte((len(name) + 4) >> 8), byte(len(name) + 4)}, name...))
					}
					conn.Close()
				}
			})
			testutil.Allocates(t, 64<<20, func() {
				s, err := fleet.Open(t.Context(), fmt.Sprintf("postgres://me@%s/fleet?sslmode=disable", listener.Addr()))
				if err == nil {
					s.Close()
				}
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Error(err)
				}
			})
		})
	}
}

// What a server notifies of is forgotten: it may do so without end before it answers.
func TestNotifications(t *testing.T) {
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	held := open()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	defer server.Wait()
	defer listener.Close()
	kept, notified := uint64(0), uint64(64<<20)
	server.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, err = conn.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0, 'Z', 0, 0, 0, 5, 'I'}) // no password; ask
			many := bytes.Repeat([]byte{'A', 0, 0, 0, 12, 0, 0, 0, 1, 'c', 0, 'p', 0}, 1<<16)
			before := inUse()
			for n := uint64(0); err == nil && n < notified; n += uint64(len(many)) {
				_, err = conn.Write(many)
			}
			after := inUse()
			kept = max(kept, after-min(before, after))
			conn.Close()
		}
	})
	s, err := fleet.Open(t.Context(), fmt.Sprintf("postgres://me@%s/fleet?sslmode=disable", listener.Addr()))
	if err == nil {
		s.Close()
		t.Error("a server that answers no question is a store")
	}
	listener.Close()
	server.Wait()
	// The library closes a connection that failed in the background.
	testutil.Eventually(t, "each connection is closed", func() bool { return open() <= held })
	if kept > notified {
		t.Errorf("%d MiB are kept of %d", kept>>20, notified>>20)
	}
}

// inUse is the heap that is in use, in bytes.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What a server says of an error is cut: it may say 16 MiB.
func TestLongError(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	for _, err := range []error{
		&pgconn.PgError{Severity: long, Message: long, Code: "53" + long}, &pgconn.PgError{Message: long},
		fmt.Errorf("ask: %w", &pgconn.PgError{Severity: "ERROR", Message: long, Code: "42501"}),
	} {
		if text := fleet.ExplainPostgres(err).Error(); len(text) > 4000 || !utf8.ValidString(text) {
			t.Errorf("%d bytes: %.40s", len(text), text)
		}
	}
}

// A question that holds as much as it may ends, also when the server has rows without end.
func TestEndlessRows(t *testing.T) {
	where := pgserver.Start(t).Database(t, "fleet")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	db, err := sql.Open("pgx", where)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `ALTER TABLE latest RENAME TO kept; CREATE VIEW latest AS
SELECT k.machine, k.setup, k.run, repeat('x', 100000) AS name, k.at, k.refused, k.control, k.direct_call, k.call_1, k.call_2, k.call_3,
	k.redirect_1, k.redirect_16, k.redirect_64, k.branches_16 FROM (SELECT kept.*, generate_series(1, 1000000000000) FROM kept) k`)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fleet.SetMaxHeld(s, 1<<20)
	_, err = fleet.Newest(t.Context(), s, fleet.Window{Since: 1000 * 24 * time.Hour, Until: now})
	if err == nil || !strings.Contains(err.Error(), "ask for a shorter time") {
		t.Error(err)
	}
}

// A store with two setups of one number is refused, also when they have no end.
func TestSetupTwice(t *testing.T) {
	where := pgserver.Start(t).Database(t, "fleet")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	db, err := sql.Open("pgx", where)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `ALTER TABLE setup RENAME TO kept;
CREATE VIEW setup AS SELECT kept.*, generate_series(1, 1000000000000) FROM kept`)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = fleet.Newest(t.Context(), s, fleet.Window{Since: 1000 * 24 * time.Hour, Until: now})
	if err == nil || !strings.Contains(err.Error(), "is there twice") {
		t.Error(err)
	}
}

// A text of a store is no longer than a record can be.
func TestLargeValue(t *testing.T) {
	where := filepath.Join(t.TempDir(), "fleet.db")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	change(t, where, `UPDATE setup SET kernel = hex(zeroblob(20000000))`)
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, connection := range []string{"the first", "another"} {
		if _, err := s.Who(t.Context(), window, nil, []string{"cpu"}); err == nil || !strings.Contains(err.Error(), "too big") {
			t.Errorf("a text of 40 MB, %s connection: %v", connection, err)
		}
		fleet.CloseConnections(s)
	}
}

// Root writes neither through another user's link in place of the journal, nor into it.
func TestForeignJournal(t *testing.T) {
	testutil.Root(t)
	dir := filepath.Join(t.TempDir(), "shared")
	victim := filepath.Join(t.TempDir(), "victim")
	for _, err := range []error{
		os.Mkdir(dir, 0o700), os.Chmod(dir, os.ModeSticky|0o777), os.WriteFile(victim, []byte("secret"), 0o600),
		os.Symlink(victim, filepath.Join(dir, "fleet.db-journal")), os.Lchown(filepath.Join(dir, "fleet.db-journal"), 23_456, 23_456),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := fleet.Create(t.Context(), filepath.Join(dir, "fleet.db"))
	if err == nil {
		s.Close()
	}
	if b, errRead := os.ReadFile(victim); err == nil || errRead != nil || string(b) != "secret" {
		t.Errorf("a store beside a foreign journal: %v; the file has %q now", err, b)
	}
}

// A store that is not one file is refused, to read and to write, and nothing is left beside it. A new one can be written by its
// owner only.
func TestWriteAheadLog(t *testing.T) {
	dir := t.TempDir()
	where := filepath.Join(dir, "fleet.db")
	old := unix.Umask(0)
	ingest(t, where, stream(t, machine(1, 1, nil)))
	unix.Umask(old)
	if info, err := os.Stat(where); err != nil || info.Mode() != 0o644 {
		t.Errorf("a new store: %v, %v", info.Mode(), err)
	}
	change(t, where, "PRAGMA journal_mode = wal")
	for _, open := range []func(context.Context, string) (*fleet.Store, error){fleet.Open, fleet.Create} {
		s, err := open(t.Context(), where)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "write-ahead log") {
			t.Error(err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// A machine that says another boot each time costs what as many machines cost: each pair of boots compared would be 2·10⁸.
func TestManyBoots(t *testing.T) {
	const boots = 20_000
	first := now.AddDate(0, 0, -20).Unix()
	where := filepath.Join(t.TempDir(), "fleet.db")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	change(t, where, fmt.Sprintf(`WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < %d)
INSERT INTO boot SELECT (SELECT machine FROM record), x, '', %d + 10 * x, %[2]d + 10 * x + 9 FROM n`, boots, first))
	shared := func() []string {
		return ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
			return s.Who(ctx, window, nil, []string{"cpu"})
		}).SharedIDs
	}
	change(t, where, "INSERT INTO shared SELECT machine FROM record")
	if got := shared(); len(got) != 0 {
		t.Errorf("shared: %v, want none", got)
	}
	change(t, where, fmt.Sprintf(`INSERT INTO boot SELECT machine, 'other', '', %d, %d FROM record`, first+15, first+25))
	if got := shared(); len(got) != 1 || !strings.HasPrefix(got[0], "00000001") {
		t.Errorf("shared: %v, want machine 1", got)
	}
}
