package fleet_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/pgserver"
)

// many are the records of so many machines, one a line.
func many(t *testing.T, machines int) string {
	t.Helper()
	var all []*record.Agent
	for n := range uint64(machines) {
		all = append(all, machine(n, 1, nil))
	}
	return stream(t, all...)
}

// stored is how many machines a store has.
func stored(t *testing.T, where string) int {
	t.Helper()
	return ask(t, where, func(ctx context.Context, s *fleet.Store) (int, error) {
		all, err := fleet.Newest(ctx, s, window)
		return len(all), err
	})
}

// interrupted is a stream that calls do once when so many bytes were read.
type interrupted struct {
	io.Reader
	left int
	do   func()
}

func (r *interrupted) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if r.left -= n; r.left <= 0 && r.do != nil {
		r.do()
		r.do = nil
	}
	return n, err
}

// A database that goes away in the middle ends the ingest with one line; what was committed is there when it returns, and
// another run takes the rest.
func TestDatabaseGoesAway(t *testing.T) {
	const machines = 2000
	server := pgserver.Start(t)
	where := server.Database(t, "fleet")
	text := many(t, machines)
	s, err := fleet.Create(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	killed := make(chan bool)
	kill := func() { server.Kill(); close(killed) }
	in := fleet.Ingest{Store: s, Now: now, In: &interrupted{strings.NewReader(text), len(text) * 2 / 3, kill}}
	done, err := in.Run(t.Context(), "-")
	<-killed // the read may be left behind
	if err == nil || strings.Contains(err.Error(), "\n") || done.Stopped == "" || !done.Incomplete {
		t.Errorf("%v: %+v", err, done)
	}
	s.Close()
	if done.New == 0 || done.New == machines {
		t.Errorf("%d records came in: the database did not go away in the middle", done.New)
	}
	server.Run(t)
	if n := stored(t, where); n != done.New {
		t.Errorf("%d machines are there, %d were committed", n, done.New)
	}
	if again := ingest(t, where, text); again.Known != done.New || again.New != machines-done.New || stored(t, where) != machines {
		t.Errorf("again: %+v", again)
	}
}

// A database that is full ends the ingest with a line that says so, and what was committed stays.
func TestDatabaseFull(t *testing.T) {
	const machines = 3000
	text := many(t, machines)
	t.Run("sqlite", func(t *testing.T) {
		where := filepath.Join(t.TempDir(), "fleet.db")
		s, err := fleet.Create(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		if err := fleet.LimitPages(t.Context(), s, 1000); err != nil { // 4 MB
			t.Fatal(err)
		}
		in := fleet.Ingest{Store: s, Now: now, In: strings.NewReader(text)}
		done, err := in.Run(t.Context(), "-")
		if err == nil || !strings.Contains(err.Error(), "full") || done.New == 0 || done.New == machines {
			t.Errorf("%v: %+v", err, done)
		}
		s.Close()
		if n := stored(t, where); n != done.New {
			t.Errorf("%d machines are there, %d were committed", n, done.New)
		}
		if again := ingest(t, where, text); again.Known != done.New || stored(t, where) != machines {
			t.Errorf("with more room: %+v", again)
		}
	})
	t.Run("postgres", func(t *testing.T) {
		testutil.Root(t)
		server := pgserver.Start(t)
		small := filepath.Join(server.Socket, "small")
		if err := os.Mkdir(small, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", small, "tmpfs", 0, "size=64m,mode=0777"); err != nil {
			if errors.Is(err, unix.EPERM) {
				testutil.Missing(t, "mount")
			}
			t.Fatal(err)
		}
		t.Cleanup(func() {
			server.Kill()
			if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		space := filepath.Join(small, "space")
		if out, err := exec.Command("install", "-d", "-o", "postgres", "-g", "postgres", "-m", "0700", space).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		server.SQL(t, "postgres", fmt.Sprintf("CREATE TABLESPACE small LOCATION '%s'", space))
		where := server.Database(t, "fleet", "-D", "small")
		s, err := fleet.Create(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		var free unix.Statfs_t
		if err := unix.Statfs(small, &free); err != nil {
			t.Fatal(err)
		}
		const left = 5 << 19 // 2.5 MB, for records of more
		if err := os.WriteFile(filepath.Join(small, "filler"), make([]byte, free.Bfree*uint64(free.Bsize)-left), 0o600); err != nil {
			t.Fatal(err)
		}
		in := fleet.Ingest{Store: s, Now: now, In: strings.NewReader(text)}
		done, err := in.Run(t.Context(), "-")
		if err == nil || !strings.Contains(err.Error(), "full") || done.New == 0 || done.New == machines {
			t.Errorf("%v: %+v", err, done)
		}
		s.Close()
		if n := stored(t, where); n != done.New {
			t.Errorf("%d machines are there, %d were committed", n, done.New)
		}
	})
}

// An ingest that is killed leaves whole records, and another run takes the rest. The one that is killed is this test's own
// program.
func TestKilled(t *testing.T) {
	const machines = 3000
	if where := os.Getenv("UNTHUNK_TEST_KILLED"); where != "" {
		s, err := fleet.Create(context.Background(), where)
		if err != nil {
			t.Fatal(err)
		}
		in := fleet.Ingest{Store: s, Now: now, In: os.Stdin}
		in.Run(context.Background(), "-")
		return
	}
	text := many(t, machines)
	engines(t, func(t *testing.T, where string) {
		r, w := io.Pipe()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
		cmd.Env = append(os.Environ(), "UNTHUNK_TEST_KILLED="+where)
		cmd.Stdin = r
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(text[:len(text)/2])) // as far as it reads ahead
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		r.Close()
		cmd.Wait()
		n := 0
		if s, err := fleet.Open(t.Context(), where); err == nil {
			s.Close()
			n = stored(t, where)
		}
		if n == 0 || n >= machines {
			t.Errorf("%d of %d machines came in before the kill", n, machines)
		}
		if done := ingest(t, where, text); done.Known != n || done.New != machines-n || stored(t, where) != machines {
			t.Errorf("after %d: %+v", n, done)
		}
	})
}

// Two ingests at the same time wait for each other, and each record is new in one of them.
func TestTwoAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		text := many(t, 600)
		done := make(chan *record.FleetIngest, 2)
		for range 2 {
			go func() { done <- ingest(t, where, text) }()
		}
		a, b := <-done, <-done
		if a.New+b.New != 600 || a.Known+b.Known != 600 || stored(t, where) != 600 {
			t.Errorf("%+v and %+v", a, b)
		}
	})
}

// An ingest takes the records of a batch in their order: a writer that has a later one does not have an earlier one, so that none
// of the two waits for ever. Here another transaction has the first, and takes the last when the ingest waits.
func TestWritersInOrder(t *testing.T) {
	where := pgserver.Start(t).Database(t, "fleet")
	ingest(t, where, many(t, 1))
	db, err := sql.Open("pgx", where)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	take := func(run string) {
		t.Helper()
		if _, err := tx.ExecContext(t.Context(), `INSERT INTO record SELECT $1, machine, name, boot, at, kind, ingested, setup, clock, measured,
	refused, control, direct_call, call_1, call_2, call_3, redirect_1, redirect_16, redirect_64, doc FROM record LIMIT 1`, run); err != nil {
			t.Fatal(err)
		}
	}
	var all []*record.Agent
	for n := range uint64(100) {
		a := machine(n, 1, nil)
		a.Run = fmt.Sprintf("ORDER%03d", 99-n)
		all = append(all, a)
	}
	take("ORDER000")
	done := make(chan error, 1)
	text := stream(t, all...)
	go func() {
		s, err := fleet.Create(t.Context(), where)
		if err == nil {
			in := fleet.Ingest{Store: s, Now: now, In: strings.NewReader(text)}
			_, err = in.Run(t.Context(), "-")
			err = errors.Join(err, s.Close())
		}
		done <- err
	}()
	for waits := 0; waits == 0; time.Sleep(time.Millisecond) {
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&waits); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("the ingest did not wait: %v", err)
		default:
		}
	}
	take("ORDER099")
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Folders are read with those below them; files that are no records, hidden or no files are passed over or counted.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	one := stream(t, machine(1, 1, nil))
	for name, text := range map[string]string{
		"a.json": one, "below/b.json": stream(t, machine(2, 1, nil)), "notes.txt": one, ".hidden.json": one, ".git/c.json": one,
		"empty.json": "", "cut.json": one[:500],
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	s, err := fleet.Create(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a pipe would wait for its writer
	defer cancel()
	in := fleet.Ingest{Store: s, Now: now}
	done, err := in.Run(ctx, dir)
	if err != nil || done.New != 2 || len(done.Rows) != 2 {
		t.Fatalf("%v: %+v", err, done)
	}
	cut, unreadable := done.Rows[0], done.Rows[1]
	if cut.Name != record.RefusedTruncated || cut.Count != 1 || unreadable.Name != record.RefusedUnreadable || unreadable.Count != 2 ||
		strings.Contains(fmt.Sprint(done.Rows), "root:") {
		t.Errorf("%+v", done.Rows)
	}
}
