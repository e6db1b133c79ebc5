package fleet_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// questions are all that hold machines.
var questions = map[string]func(ctx context.Context, s *fleet.Store) error{
	"who": func(ctx context.Context, s *fleet.Store) error {
		_, err := s.Who(ctx, window, nil, []string{"kernel"})
		return err
	},
	"odd": func(ctx context.Context, s *fleet.Store) error { _, err := s.Odd(ctx, window, nil, 50); return err },
	"compare": func(ctx context.Context, s *fleet.Store) error {
		_, err := s.Compare(ctx, fleet.Comparison{Window: window, Base: fleet.Where{{"kernel", "6.12"}}, Canary: fleet.Where{{"kernel", "6.18"}}})
		return err
	},
}

// own is a record of a machine that is like no other: two machines have nothing in common.
func own(n uint64) *record.Agent {
	return machine(n, 1, func(a *record.Agent) {
		a.Host.Kernel = []string{"6.12", "6.18"}[n%2]
		a.Host.BootParams = fmt.Sprintf("machine=%d %s", n, strings.Repeat("x", 1000))
		a.Machine.Labels = map[string]string{"asset": fmt.Sprint(n)}
	})
}

// A question about more machines, or setups, than there is memory for is refused in one line.
func TestMaxHeld(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		var all []*record.Agent
		for n := range uint64(20) {
			all = append(all, own(n))
		}
		ingest(t, where, stream(t, all...))
		s, err := fleet.Open(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, test := range []struct {
			held    int
			refused bool
		}{{20 * 1000, true}, {20 * 2000, true}, {20 * 3000, false}} {
			fleet.SetMaxHeld(s, test.held)
			for name, question := range questions {
				err := question(t.Context(), s)
				if test.refused != (err != nil) || err != nil && (!strings.Contains(err.Error(), "ask for a shorter time") ||
					strings.Contains(err.Error(), "\n")) {
					t.Errorf("%s, %d bytes: %v", name, test.held, err)
				}
			}
		}
	})
}

// Machines get their setups, and no others, also where one statement cannot name all of these.
func TestSetupsInParts(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		var all []*record.Agent
		for n := range uint64(20) {
			all = append(all, own(n))
		}
		ingest(t, where, stream(t, append(all, own(7))...))
		s, err := fleet.Open(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		fleet.SetParameters(s, 3)
		machines, err := fleet.Newest(t.Context(), s, window)
		if err != nil || len(machines) != len(all) {
			t.Fatalf("%d machines: %v", len(machines), err)
		}
		before := ""
		for _, m := range machines {
			n, err := strconv.ParseUint(m.Setup.Value("label:asset"), 10, 64)
			if err != nil || m.ID != own(n).Machine.ID || m.ID < before {
				t.Errorf("machine %s after %s has the setup of %d: %v", m.ID, before, n, err)
			}
			before = m.ID
		}
	})
}

// A sender with a wrong clock, however many setups it has, stops no question: its records are counted.
func TestManyWrongClocks(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		all := []*record.Agent{own(0), own(1)}
		for n := range uint64(40) {
			a := own(2 + n)
			a.Time = now.AddDate(1, 0, 0)
			all = append(all, a)
		}
		ingest(t, where, stream(t, all...))
		s, err := fleet.Open(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		fleet.SetMaxHeld(s, 20_000)
		for name, question := range questions {
			if err := question(t.Context(), s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		who, err := s.Who(t.Context(), window, fleet.Where{{Field: "kernel", Value: "6.12"}}, []string{"kernel"})
		if err != nil || who.WrongClock != 20 || who.Machines != 1 {
			t.Errorf("%+v, %v", who, err)
		}
	})
}

// Labels of a setup that no record can have are refused before they are parsed, and a long text of one that no answer has takes
// memory while it is read.
func TestLongSetups(t *testing.T) {
	wrong := own(2)
	wrong.Time = now.AddDate(1, 0, 0)
	const labels = `labels = '{' || replace(hex(zeroblob(500000)), '0', '"a":"",') || '"b":""}'`
	for name, test := range map[string]struct{ change, want string }{
		"labels":              {labels, "impossible labels: 7000008 bytes"},
		"with a wrong clock":  {`kernel = hex(zeroblob(1000000)) WHERE id IN (SELECT setup FROM record WHERE clock <> 0)`, "MiB of memory"},
		"with a right one":    {`kernel = hex(zeroblob(1000000)) WHERE id IN (SELECT setup FROM record WHERE clock = 0)`, "MiB of memory"},
		"as long as possible": {`kernel = hex(zeroblob(200000))`, ""},
	} {
		where := t.TempDir() + "/fleet.db"
		ingest(t, where, stream(t, own(0), wrong))
		change(t, where, "UPDATE setup SET "+test.change)
		s, err := fleet.Open(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		if fleet.SetMaxHeld(s, 2_000_000); name == "labels" {
			fleet.SetMaxHeld(s, 40_000_000)
		}
		_, err = s.Who(t.Context(), window, nil, []string{"cpu"})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Setups that no machine had in the time of a question take no memory.
func TestManySetups(t *testing.T) {
	where := t.TempDir() + "/fleet.db"
	ingest(t, where, stream(t, own(1), own(2)))
	change(t, where, `WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300000) INSERT INTO setup
SELECT x, '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '{}' FROM n`)
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, question := range questions {
		testutil.Allocates(t, 16<<20, func() {
			if err := question(t.Context(), s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// Of odd machines only those that are answered are held, and groups are counted before they have numbers.
func TestManyRows(t *testing.T) {
	const machines = record.MaxRows + 2
	where := t.TempDir() + "/fleet.db"
	ingest(t, where, stream(t, machine(1, 1, nil), machine(2, 1, nil), machine(3, 1, nil)))
	columns := "kernel_build, cpu, microcode, hypervisor, indirect_thunk, return_thunk, call_sites, compiler, %s, mitigations," +
		" iommu, driver, xdp_program, jit, smt, governor, call_rows, labels"
	change(t, where, fmt.Sprintf(`CREATE TABLE n AS WITH RECURSIVE n(x) AS
	(SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < %d) SELECT x FROM n;
CREATE TABLE one AS SELECT * FROM setup LIMIT 1;
INSERT INTO setup SELECT x, kernel, `+columns+` FROM n, one;
INSERT INTO latest SELECT 'm' || x, x, x, '', (SELECT max(at) FROM latest), '', 1, 1, 1, 1, 1, 1, 1, 1, 1 FROM n`,
		machines, "'machine=' || x"))
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const refused = "fewer machines by --where"
	if _, err := s.Who(t.Context(), window, nil, []string{"boot-params"}); err == nil || !strings.Contains(err.Error(), refused) {
		t.Errorf("a group for each machine: %v", err)
	}
	// The usual value of the others is that of three: all fields of the rest are none.
	change(t, where, `UPDATE setup SET boot_params = '' WHERE id % 10 < 9`)
	odd, err := s.Odd(t.Context(), window, nil, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(odd.Rows) != 10 || odd.LeftOut < machines/11 || odd.LeftOut > machines/9 {
		t.Errorf("%d rows, %d left out", len(odd.Rows), odd.LeftOut)
	}
	all, err := s.Odd(t.Context(), window, nil, record.MaxRows)
	if err != nil {
		t.Fatal(err)
	}
	if all.LeftOut != 0 || len(all.Rows) != 10+odd.LeftOut {
		t.Fatalf("%d rows of %d", len(all.Rows), 10+odd.LeftOut)
	}
	for i, row := range odd.Rows {
		if row.Machine != all.Rows[i].Machine {
			t.Errorf("row %d is %s, of all rows it is %s", i, row.Machine, all.Rows[i].Machine)
		}
	}
}
