package fleet

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"
)

// ErrPassword is a password where everybody on the machine can see it.
var ErrPassword = errors.New("a password on the command line is in the list of processes: leave it out, and put it into a file " +
	"that PGPASSFILE names (~/.pgpass), or into a service file (postgres:///?service=NAME)")

// IsPostgres tells whether a store is a PostgreSQL database.
func IsPostgres(where string) bool {
	scheme, _, ok := strings.Cut(where, "://")
	return ok && (scheme == "postgres" || scheme == "postgresql")
}

// CheckStore refuses the name of a store that is none, and one with a password ([ErrPassword]).
func CheckStore(where string) error {
	if !IsPostgres(where) {
		if scheme, _, ok := strings.Cut(where, "://"); ok {
			return fmt.Errorf("a store is a file, a folder or postgres://: not %.20s://", scheme)
		}
		return nil
	}
	u, err := url.Parse(where)
	if err != nil {
		return errors.New("the address of the store cannot be read: postgres://USER@HOST/DATABASE") // err would have the password
	}
	_, has := u.User.Password()
	has = has || strings.Contains(u.User.Username(), ":") // as in u%3Asecret
	for name := range u.Query() {
		has = has || strings.EqualFold(name, "password") || strings.EqualFold(name, "sslpassword")
	}
	if has {
		return ErrPassword
	}
	return nil
}

// migrationLock is the number of the advisory lock of migrations: "unthunk" in ASCII.
const migrationLock = "SELECT pg_advisory_xact_lock(33054018522934891)"

func openPostgres(ctx context.Context, where string, _ bool) (*Store, error) {
	if err := CheckStore(where); err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(where)
	if err != nil {
		return nil, fmt.Errorf("read the address of the store: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 10 * time.Second
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "unthunk"
	}
	config.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {} // pgx would keep all that come
	var heards sync.Map                                                   // by frontend
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		h := &heard{Reader: r}
		f := pgproto3.NewFrontend(h, w)
		f.SetMaxBodyLen(maxValue)
		heards.Store(f, h)
		return f
	}
	config.AfterConnect = func(_ context.Context, conn *pgconn.PgConn) error {
		if h, ok := heards.LoadAndDelete(conn.Frontend()); ok {
			h.(*heard).greeted.Store(true)
		}
		return nil
	}
	s := &Store{db: stdlib.OpenDB(*config), engine: engine{
		name:       "postgres",
		lock:       migrationLock,
		hasVersion: "SELECT count(*) FROM pg_class WHERE relname = 'unthunk_schema' AND pg_table_is_visible(oid)",
		parameters: 65000,
		ofData:     ofData,
		copyIn:     copyIn,
		known:      alreadyThere,
		explain:    explainPostgres,

		lockMachines: lockMachines,
	}}
	s.db.SetMaxOpenConns(2)
	if err := s.db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", s.explain(err)), s.db.Close())
	}
	return s, nil
}

// maxGreeting is what a server says at most before it takes questions, in bytes, and what it reports of its parameters as long as
// there is a connection: pgx keeps each that has another name. An honest server has some 20 of 30 bytes.
const maxGreeting = 1 << 20

// heard reads what a server says, and holds it to [maxGreeting].
type heard struct {
	io.Reader
	read    int
	greeted atomic.Bool // it takes questions

	// header is that of the message that is read, as far as its first headed bytes; body is how much is to come of the message.
	header [5]byte
	headed int
	body   int64
	// parameters is the length of all messages that report one, in bytes.
	parameters int64
}

func (h *heard) Read(p []byte) (int, error) {
	greeted := h.greeted.Load()
	if !greeted {
		if h.read >= maxGreeting {
			return 0, errors.New("it says more than 1 MiB before it takes a question")
		}
		p = p[:min(len(p), maxGreeting-h.read)]
	}
	n, err := h.Reader.Read(p)
	if !greeted {
		h.read += n
	}
	if h.follow(p[:n]); greeted && h.parameters > maxGreeting {
		return 0, errors.New("it reports more than 1 MiB of parameters")
	}
	return n, err
}

// follow counts messages with parameters: a type, the length of what follows the type, and a body
// (postgresql.org/docs/current/protocol-message-formats.html).
func (h *heard) follow(b []byte) {
	for len(b) > 0 {
		if h.body > 0 {
			n := min(int64(len(b)), h.body)
			b, h.body = b[n:], h.body-n
			continue
		}
		n := copy(h.header[h.headed:], b)
		b = b[n:]
		if h.headed += n; h.headed < len(h.header) {
			return
		}
		h.headed = 0
		h.body = max(int64(binary.BigEndian.Uint32(h.header[1:]))-4, 0) // what is shorter is refused by pgx
		if h.header[0] == 'S' {
			h.parameters += int64(len(h.header)) + h.body
		}
	}
}

// copyIn puts rows into a table by COPY: PostgreSQL takes three quarters of the time of an INSERT of the same rows.
func copyIn(ctx context.Context, conn *sql.Conn, table string, columns []string, rows [][]any) error {
	return conn.Raw(func(of any) error {
		c, ok := of.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("a connection of another driver: %T", of)
		}
		_, err := c.Conn().CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromRows(rows))
		return err
	})
}

// Advisory locks of machines have two numbers: "unth" in ASCII, and one of lockedApart. A server has room for some thousand locks, of
// all transactions together.
const (
	machinesLock = 1970173032
	lockedApart  = 64
)

// lockMachines takes the advisory locks of machines, in the order of their numbers, so that no two writers wait for each other.
func lockMachines(ctx context.Context, tx *sql.Tx, machines []string) error {
	var numbers []int
	for _, machine := range machines {
		numbers = append(numbers, int(crc32.ChecksumIEEE([]byte(machine))%lockedApart))
	}
	slices.Sort(numbers)
	for _, n := range slices.Compact(numbers) {
		if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1, $2)", machinesLock, n); err != nil {
			return err
		}
	}
	return nil
}

// alreadyThere tells whether PostgreSQL refuses a row that is there.
func alreadyThere(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "23505"
}

// ofData tells whether PostgreSQL refuses what it was given: class 22 is of data (a text with a zero byte, a number that is
// too large), 54 of limits of the program (an index entry or a JSON text that is too large).
func ofData(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "54"))
}

// explainPostgres says what an error of PostgreSQL means for the store.
func explainPostgres(err error) error {
	err = brief{err}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok { // it has a line for each address
		return fmt.Errorf("the database does not answer: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		_, lost := errors.AsType[*net.OpError](err)
		lost = lost || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)
		if lost || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err) {
			return fmt.Errorf("the database went away: %w", err)
		}
		return err
	}
	switch {
	case strings.HasPrefix(e.Code, "53"): // insufficient resources
		return fmt.Errorf("the database is full: %w", err)
	case strings.HasPrefix(e.Code, "57"): // operator intervention
		return fmt.Errorf("the database went away: %w", err)
	case e.Code == "42501":
		return fmt.Errorf("this user may not: %w", err)
	}
	return err
}

// brief is an error whose text is the beginning of another's: a server may say any length.
type brief struct{ error }

func (b brief) Error() string {
	const most = 1000
	text := b.error.Error()
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

func (b brief) Unwrap() error { return b.error }
