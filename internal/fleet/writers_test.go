package fleet_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/pgserver"
)

// holder begins a transaction of another program, which is there until it is ended.
func holder(t *testing.T, where, statement string) *sql.Tx {
	t.Helper()
	db, err := sql.Open("pgx", where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	if _, err := tx.Exec(statement); err != nil {
		t.Fatal(err)
	}
	return tx
}

// waitFor waits until so many sessions wait for a lock; ended has an error when one of them ends before.
func waitFor(t *testing.T, server *pgserver.Server, sessions int, ended <-chan error) {
	t.Helper()
	for strings.TrimSpace(server.SQL(t, "fleet", "SELECT count(*) FROM pg_locks WHERE NOT granted")) != fmt.Sprint(sessions) {
		select {
		case err := <-ended:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A question reads setups of records that come in while it reads.
func TestSetupWhileAsked(t *testing.T) {
	server := pgserver.Start(t)
	where := server.Database(t, "fleet")
	ingest(t, where, stream(t, machine(1, 1, nil)))
	tx := holder(t, where, "LOCK TABLE record IN ACCESS EXCLUSIVE MODE") // which is read with the newest records, and not with setups
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var who *record.FleetWho
	ended := make(chan error, 1)
	go func() {
		var err error
		who, err = s.Who(context.WithoutCancel(t.Context()), window, nil, []string{"kernel"})
		ended <- err
	}()
	waitFor(t, server, 1, ended)
	for _, statement := range []string{
		"CREATE TEMPORARY TABLE other AS SELECT * FROM setup", "UPDATE other SET id = 42, kernel = 'another'",
		"INSERT INTO setup SELECT * FROM other", "UPDATE latest SET setup = 42",
	} {
		if _, err := tx.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || len(who.Rows) != 1 || who.Rows[0].Name != "kernel=another" {
		t.Errorf("%+v, %v", who, err)
	}
}

// Two writers, each with a boot and a setup of one machine, note between them that its identity is shared.
func TestSharedByTwoWriters(t *testing.T) {
	server := pgserver.Start(t)
	where := server.Database(t, "fleet")
	other := func(a *record.Agent) { a.Machine.Boot, a.Host.Kernel = strings.Repeat("a", 32), "6.19" }
	writers := []string{
		stream(t, machine(5, 9, nil), machine(5, 7, nil)), stream(t, machine(5, 8, other), machine(5, 6, other)),
	}
	ingest(t, where, stream(t, machine(1, 1, nil)))
	server.SQL(t, "fleet", `CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER held AFTER INSERT ON boot DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION held()`)
	tx := holder(t, where, "SELECT pg_advisory_xact_lock(1)") // writers wait for it before they commit
	ended := make(chan error, len(writers))
	for _, text := range writers {
		s, err := fleet.Create(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		go func() {
			in := fleet.Ingest{Store: s, In: strings.NewReader(text), Now: now}
			_, err := in.Run(context.WithoutCancel(t.Context()), "-")
			ended <- err
		}()
	}
	waitFor(t, server, len(writers), ended)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for range writers {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if got := ask(t, where, fleet.Shared); len(got) != 1 || !strings.HasPrefix(got[0], "00000005") {
		t.Errorf("seen in turns: %q, want machine 5", got)
	}
}

// What a record of one machine costs does not grow with how many others are shared; of all of them, too, those asked for are found, with
// the number of their names.
func TestManyShared(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		const shared, hosts = 20_000, 200
		ingest(t, where, stream(t, machine(1, 1, nil)))
		s, err := fleet.Create(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := fleet.AddShared(t.Context(), s, shared, hosts); err != nil {
			t.Fatal(err)
		}
		of := map[string]bool{"m7": true, "none": true}
		testutil.Allocates(t, 1<<20, func() {
			if got, err := fleet.SharedIDs(t.Context(), s, of); err != nil || !slices.Equal(got.SharedIDs, []string{"m7"}) ||
				got.SharedCounts["m7"] != hosts || len(got.SharedNames["m7"]) != 8 {
				t.Errorf("%+v, %v", got, err)
			}
		})
		for i := range 5000 {
			of[fmt.Sprint("other", i)] = true
		}
		if got, err := fleet.SharedIDs(t.Context(), s, of); err != nil || !slices.Equal(got.SharedIDs, []string{"m7"}) {
			t.Errorf("of many: %+v, %v", got, err)
		}
	})
}
