package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/pgserver"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// window is the month before now.
var window = fleet.Window{Until: now, Since: 30 * 24 * time.Hour}

// engines runs a test with an empty store of each engine.
func engines(t *testing.T, test func(t *testing.T, where string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "fleet.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, pgserver.Start(t).Database(t, "fleet")) })
}

// machine makes a record of machine n, n days before now.
func machine(n uint64, daysAgo float64, change func(*record.Agent)) *record.Agent {
	a := recordtest.Agent(fmt.Sprintf("RUN%d-%v", n, daysAgo), n, 8)
	a.Time = now.Add(-time.Duration(daysAgo * 24 * float64(time.Hour)))
	measured := a.Time
	a.Measured = &measured
	a.Machine.Name = fmt.Sprintf("edge-%d", n)
	if change != nil {
		change(a)
	}
	return a
}

// redirect sets the redirect alone of a record, at each bulk.
func redirect(a *record.Agent, ns float64) {
	for i := range a.Redirect {
		a.Redirect[i].Hop = &stat.Quantity{Median: ns, Low: ns - 1, High: ns + 1, N: 7, Unit: "ns"}
	}
}

// refuse makes a record that of an agent that did not measure.
func refuse(a *record.Agent) {
	a.Rows, a.Redirect, a.Measured = []record.TaxRow{}, []record.BenchRow{}, nil
	a.Refused = []record.AgentRefusal{{Part: "measure", Reason: "load", Text: "the load is 9 a CPU"}}
}

// stream is records one after another, as files or a log have them.
func stream(t *testing.T, records ...*record.Agent) string {
	t.Helper()
	var b strings.Builder
	for i, a := range records {
		encoded, err := record.Encode(a)
		if err == nil && i%2 == 1 {
			encoded, err = json.Marshal(a)
			encoded = append(encoded, '\n')
		}
		if err != nil {
			t.Fatal(err)
		}
		b.Write(encoded)
	}
	return b.String()
}

// ingest puts a stream into a store.
func ingest(t *testing.T, where, text string) *record.FleetIngest {
	t.Helper()
	s, err := fleet.Create(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	in := fleet.Ingest{Store: s, In: strings.NewReader(text), Now: now}
	done, err := in.Run(t.Context(), "-")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return done
}

// ask opens a store to read.
func ask[T any](t *testing.T, where string, question func(ctx context.Context, s *fleet.Store) (T, error)) T {
	t.Helper()
	s, err := fleet.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	answer, err := question(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// Records come in once, and who says what groups of machines pay: the newest record of each counts.
func TestWho(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		var all []*record.Agent
		for n := range uint64(20) {
			old := func(a *record.Agent) { redirect(a, 500); a.Machine.Labels = map[string]string{"rack": "old"} }
			all = append(all, machine(n, 8, old),
				machine(n, 1, func(a *record.Agent) {
					redirect(a, 100+float64(n))
					if n >= 10 {
						a.Host.Kernel = "6.19"
						redirect(a, 200+float64(n))
					}
					if n == 19 {
						a.Rows, a.Redirect, a.Measured = []record.TaxRow{}, []record.BenchRow{}, nil
						a.Refused = []record.AgentRefusal{{Part: "measure", Reason: "load", Text: "the load is 9 a CPU"}}
					}
				}))
		}
		text := stream(t, all...)
		if done := ingest(t, where, text); done.New != 40 || done.Known != 0 || len(done.Rows) != 0 || len(done.SharedIDs) != 0 {
			t.Errorf("%+v", done)
		}
		if done := ingest(t, where, text); done.New != 0 || done.Known != 40 {
			t.Errorf("a second time: %+v", done)
		}
		who := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
			return s.Who(ctx, window, nil, []string{"kernel", "label:rack"})
		})
		some := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
			return s.Who(ctx, window, fleet.Where{{Field: "kernel", Value: "6.1*"}, {Field: "kernel", Value: "6.19"}}, []string{"kernel"})
		})
		if some.Machines != 10 {
			t.Errorf("%d machines have 6.19", some.Machines)
		}
		store, failed := fleet.Open(t.Context(), where)
		if failed != nil {
			t.Fatal(failed)
		}
		defer store.Close()
		_, none := store.Who(t.Context(), window, fleet.Where{{Field: "kernel", Value: "5.*"}}, []string{"kernel"})
		const want = `none has kernel=5.*; some have ["6.18" "6.19"]`
		if !errors.Is(none, fleet.ErrNoMachines) || !strings.Contains(none.Error(), want) {
			t.Errorf("%v, want %s", none, want)
		}
		if who.Machines != 20 || who.Measured != 19 || len(who.Rows) != 2 {
			t.Fatalf("%d machines, %d measured: %+v", who.Machines, who.Measured, who.Rows)
		}
		newer, older := who.Rows[0], who.Rows[1]
		if newer.Name != "kernel=6.19, label:rack=r12" || newer.Machines != 10 || newer.Measured != 9 || newer.Refused["load"] != 1 {
			t.Errorf("%+v", newer)
		}
		for _, test := range []struct {
			row  record.FleetWhoRow
			name string
			want float64
			n    int
		}{
			{newer, "redirect/bulk=16", 214, 9}, {older, "redirect/bulk=16", 104.5, 10}, {older, "callback/loop", 8, 10},
			{older, "map-lookup/lpm", 8.5, 10}, {older, "direct-call", 1.2, 10},
			{older, "control", 0, 10},
		} {
			i := slices.IndexFunc(test.row.Numbers, func(n record.FleetNumber) bool { return n.Row == test.name })
			if i < 0 {
				t.Errorf("%s has no %s", test.row.Name, test.name)
				continue
			}
			if q := test.row.Numbers[i].Ns; q.N != test.n || math.Abs(q.Median-test.want) > 0.2 || !(q.Low <= q.Median && q.Median <= q.High) {
				t.Errorf("%s %s: %+v, want %v of %d machines", test.row.Name, test.name, q, test.want, test.n)
			}
		}
		// A week before, all had the older record.
		before := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
			return s.Who(ctx, fleet.Window{Until: now.Add(-5 * 24 * time.Hour), Since: window.Since}, nil, []string{"label:rack"})
		})
		if len(before.Rows) != 1 || before.Rows[0].Labels["label:rack"] != "old" || before.Rows[0].Machines != 20 {
			t.Errorf("as of a week before: %+v", before.Rows)
		}
		some = ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
			return s.Who(ctx, window, fleet.Where{{Field: "kernel", Value: "6.18"}}, []string{"cpu"})
		})
		if some.Machines != 10 || some.Where != "kernel=6.18" {
			t.Errorf("of one kernel: %+v", some)
		}
	})
}

// What is no record of agent is counted by its reason, and stops nothing.
func TestWrongInput(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		good := stream(t, machine(1, 1, nil), machine(2, 1, nil), machine(3, 1, nil))
		first, rest, _ := strings.Cut(good, "\n}\n")
		change := func(old, new string) string {
			a, err := record.Encode(machine(4, 1, nil))
			if err != nil || !strings.Contains(string(a), old) {
				t.Fatalf("%q is not in %s", old, a)
			}
			return strings.Replace(string(a), old, new, 1)
		}
		bench, err := record.Encode(recordtest.Agent("x", 4, 8).Redirect[0])
		if err != nil {
			t.Fatal(err)
		}
		parts := []string{
			first + "\n}\n",
			first[:len(first)/2] + "\n",                           // truncated, in the middle of the stream
			"a line of a log\nand another\n",                      // one
			`{"name":"somebody"}` + "\n",                          // foreign
			string(bench),                                         // foreign
			change(`"unthunk/1"`, `"unthunk/2"`),                  // schema
			change(`"kind": "agent"`, `"kind": "tax"`),            // kind
			change(`"reason": "boot"`, `"reason": "\u001b[31m"`),  // impossible
			change(`"edge-4"`, `"`+strings.Repeat("x", 2000)+`"`), // impossible
			"{" + strings.Repeat(" ", 5<<20) + "\n",               // large
			change(`"reason": "boot"`, `"reason": "boot", "extra": "\u0000"`),
			rest,
		}
		done := ingest(t, where, strings.Join(parts, ""))
		got := map[string]int{}
		for _, row := range done.Rows {
			got[row.Name] = row.Count
			if row.Example == "" || strings.Contains(row.Example, "\n") {
				t.Errorf("%s: %q", row.Name, row.Example)
			}
		}
		want := map[string]int{"truncated": 1, "foreign": 3, "schema": 1, "kind": 1, "impossible": 2, "large": 1}
		fresh := 4
		if fleet.IsPostgres(where) { // a text of jsonb has no zero byte
			want["store"], fresh = 1, 3
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || done.New != fresh ||
			done.Documents != fresh+len(parts)-3+fleet.BoolInt(fresh == 3) {
			t.Errorf("%d documents, %d new, refused %v, want %v", done.Documents, done.New, got, want)
		}
	})
}

// A machine is a group of its own when it is asked for each; what its indirect branches take is their number times the price of one.
func TestWhoByMachine(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		path := func(a *record.Agent) {
			a.Paths = []record.AgentPath{{Device: "veth", PerBulk: 1, PerPoll: 1}, {Device: "ice", PerPacket: 1, PerBulk: 1, PerPoll: 1}}
		}
		ingest(t, where, stream(t, machine(1, 2, nil), machine(1, 1, path), machine(2, 1, func(a *record.Agent) { a.Paths = nil })))
		who := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
			return s.Who(ctx, window, nil, []string{"machine", "cpu"})
		})
		if len(who.Rows) != 2 {
			t.Fatalf("%d rows of two machines", len(who.Rows))
		}
		for _, row := range who.Rows {
			call, branches := math.NaN(), math.NaN()
			for _, n := range row.Numbers {
				switch n.Row {
				case "callback/loop":
					call = n.Ns.Median
				case "indirect/bulk=16":
					branches = n.Ns.Median
				}
			}
			switch name := row.Labels["machine"]; {
			case row.Machines != 1 || !strings.HasPrefix(row.Name, "machine="+name+", cpu="):
				t.Errorf("%q of %d machines", row.Name, row.Machines)
			case name == "edge-1" && branches != 1.125*call, name == "edge-2" && !math.IsNaN(branches):
				t.Errorf("%s: branches take %v, a call %v", name, branches, call)
			}
		}
	})
}

// Machines of one name are told apart by their identities, the others have their names.
func TestWhoOfOneName(t *testing.T) {
	where := filepath.Join(t.TempDir(), "fleet.db")
	clone := func(a *record.Agent) { a.Machine.Name = "clone" }
	ingest(t, where, stream(t, machine(1, 1, clone), machine(2, 1, clone), machine(3, 1, nil)))
	who := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
		return s.Who(ctx, window, nil, []string{"machine"})
	})
	var got []string
	for _, row := range who.Rows {
		if row.Name != "machine="+row.Labels["machine"] {
			t.Errorf("%q is %q", row.Name, row.Labels)
		}
		got = append(got, row.Name)
	}
	slices.Sort(got)
	if len(got) != 3 || !strings.HasPrefix(got[0], "machine=clone (00000001") || !strings.HasPrefix(got[1], "machine=clone (00000002") ||
		got[2] != "machine=edge-3" {
		t.Errorf("%q", got)
	}
}

// A store of the first version becomes one of this, which knows the identities that were seen in turns.
func TestMigrates(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		if err := fleet.CreateFirst(t.Context(), where, `INSERT INTO boot VALUES ('a', '1', '', 10, 30), ('a', '2', '', 20, 40),
	('b', '1', 'x', 10, 20), ('b', '2', 'x', 21, 40), ('c', '1', '', 10, 30), ('c', '1', 'x', 20, 40)`); err != nil {
			t.Fatal(err)
		}
		if _, err := fleet.Open(t.Context(), where); err == nil || !strings.Contains(err.Error(), "makes version") {
			t.Errorf("a question to a store of the first version: %v", err)
		}
		ingest(t, where, stream(t, machine(1, 1, nil)))
		if got := ask(t, where, fleet.Shared); !slices.Equal(got, []string{"a"}) {
			t.Errorf("seen in turns: %v, want a", got)
		}
	})
}

// Clocks that are wrong are counted, kept and left out; identities of two machines are named.
func TestClocksAndIdentities(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		other := func(a *record.Agent) { a.Machine.Boot = strings.Repeat("a", 32) }
		done := ingest(t, where, stream(t,
			machine(1, 1, nil),
			machine(2, -0.5, nil), // within a day
			machine(3, -400, nil),
			machine(4, 20000, nil),
			machine(5, 9, nil), machine(5, 8, other), machine(5, 7, nil), // in turns
			machine(6, 9, nil), machine(6, 8, nil), machine(6, 7, other), // started anew
		))
		if done.New != 10 || done.Ahead != 1 || done.Behind != 1 || len(done.SharedIDs) != 1 ||
			!strings.HasPrefix(done.SharedIDs[0], "00000005") {
			t.Errorf("%+v", done)
		}
		who := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
			return s.Who(ctx, fleet.Window{Until: now.Add(500 * 24 * time.Hour), Since: 600 * 24 * time.Hour}, nil, []string{"cpu"})
		})
		if who.Machines != 4 || who.WrongClock != 2 || len(who.SharedIDs) != 1 {
			t.Errorf("%+v", who)
		}
	})
}

// Runs of one boot with a name and without are of one machine. An answer names what is shared and left out of its own machines
// and time only.
func TestNotesAreOfTheQuestion(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		anonymous := func(a *record.Agent) { a.Machine.Name = "" }
		other := func(a *record.Agent) { a.Machine.Boot = strings.Repeat("a", 32) }
		rack := func(a *record.Agent) { a.Machine.Labels = map[string]string{"rack": "r13"} }
		ingest(t, where, stream(t,
			machine(1, 9, nil), machine(1, 8, anonymous), machine(1, 7, nil),
			machine(2, 9, nil), machine(2, 8, func(a *record.Agent) { anonymous(a); other(a) }), machine(2, 7, nil), // two machines
			machine(3, 90, nil), machine(3, 80, other), machine(3, 70, nil), machine(3, 1, nil), // were two
			machine(4, 20000, rack), machine(5, 1, rack),
		))
		who := func(condition fleet.Where, days int) *record.FleetWho {
			w := fleet.Window{Until: now, Since: time.Duration(days) * 24 * time.Hour}
			return ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
				return s.Who(ctx, w, condition, []string{"cpu"})
			})
		}
		all, long, one := who(nil, 30), who(nil, 100), who(fleet.Where{{Field: "label:rack", Value: "r13"}}, 100)
		if len(all.SharedIDs) != 1 || !strings.HasPrefix(all.SharedIDs[0], "00000002") || all.WrongClock != 1 {
			t.Errorf("of a month: %v, %d with a wrong clock", all.SharedIDs, all.WrongClock)
		}
		if len(long.SharedIDs) != 2 {
			t.Errorf("of 100 days: %v", long.SharedIDs)
		}
		if one.Machines != 1 || len(one.SharedIDs) != 0 || one.WrongClock != 1 {
			t.Errorf("of a rack: %+v", one.FleetHead)
		}
		if two := who(fleet.Where{{Field: "label:rack", Value: "r12"}}, 30); two.WrongClock != 0 {
			t.Errorf("of the other rack: %d with a wrong clock", two.WrongClock)
		}
	})
}

// A run that is known changes nothing, whatever it says now, and is not counted as new with a wrong clock.
func TestKnownRun(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		first := []*record.Agent{machine(1, 2, nil), machine(2, 20000, nil)}
		if done := ingest(t, where, stream(t, first...)); done.New != 2 || done.Behind != 1 {
			t.Fatalf("%+v", done)
		}
		changed := machine(1, 1, func(a *record.Agent) { redirect(a, 999); a.Machine.Boot = strings.Repeat("b", 32) })
		changed.Run = first[0].Run
		fresh := machine(3, 1, nil)
		twice := machine(3, 0.5, func(a *record.Agent) { redirect(a, 999) })
		twice.Run = fresh.Run
		done := ingest(t, where, stream(t, first[1], changed, fresh))
		if done.New != 1 || done.Known != 2 || done.Behind != 0 {
			t.Errorf("%+v", done)
		}
		if done := ingest(t, where, stream(t, twice)); done.Known != 1 {
			t.Errorf("%+v", done)
		}
		all := ask(t, where, func(ctx context.Context, s *fleet.Store) ([]*fleet.Machine, error) {
			return fleet.Newest(ctx, s, window)
		})
		for _, m := range all {
			if m.Numbers[len(m.Numbers)-1] == 999 || m.At.After(now.AddDate(0, 0, -1)) {
				t.Errorf("%s is of %v with %v", m.Name, m.At, m.Numbers)
			}
		}
		if len(all) != 2 {
			t.Errorf("%d machines", len(all))
		}
	})
}

// A run that has the identity of one of another machine is refused, not taken for known.
func TestRunOfAnotherMachine(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		first, other := machine(1, 1, nil), machine(2, 1, nil)
		other.Run = first.Run
		ingest(t, where, stream(t, first))
		for _, text := range []string{stream(t, first, other), stream(t, other, first)} {
			done := ingest(t, where, text)
			if done.Documents != 2 || done.Known != 1 || len(done.Rows) != 1 || done.Rows[0].Name != record.RefusedRun ||
				!strings.Contains(done.Rows[0].Example, first.Machine.ID) {
				t.Errorf("%+v", done)
			}
		}
	})
}

// Files that are refused are named, each once, and not all of them.
func TestRefusedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := fleet.Create(t.Context(), filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const files = record.MaxFleetNames + 5
	for n := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.json", n)), []byte("{}\nno record\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := fleet.Ingest{Store: store, Now: now}
	done, err := in.Run(t.Context(), dir)
	if err != nil || len(done.Rows) != 1 {
		t.Fatalf("%+v: %v", done, err)
	}
	row := done.Rows[0]
	if names := slices.Compact(slices.Sorted(slices.Values(row.Files))); row.Count != 2*files || len(names) != record.MaxFleetNames {
		t.Errorf("%d refused, in %d files", row.Count, len(names))
	}
}

// Machines without a number are named, with the reason of the agent; machines without a program, or a label, by a word.
func TestUnmeasuredAndNone(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		bare := func(a *record.Agent) { a.Machine.Labels = nil }
		ingest(t, where, stream(t, machine(1, 1, func(a *record.Agent) { refuse(a); bare(a) }), machine(2, 1, bare), machine(3, 1, nil)))
		who := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
			return s.Who(ctx, window, fleet.Where{{Field: "label:rack", Value: "none"}}, []string{"label:rack", "xdp-program"})
		})
		if len(who.Rows) != 1 || who.Machines != 2 || who.Rows[0].Labels["label:rack"] != "none" {
			t.Errorf("%+v", who)
		}
		one := machine(1, 1, refuse)
		want := []record.FleetUnmeasured{{Name: one.Machine.Name, Machine: one.Machine.ID, Reason: "load", At: one.Time}}
		if !slices.Equal(who.Unmeasured, want) {
			t.Errorf("%+v, want %+v", who.Unmeasured, want)
		}
	})
}

// A machine that is unlike its twins is found, with the field and what it loses.
func TestOdd(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		var all []*record.Agent
		for n := range uint64(30) {
			all = append(all, machine(n, 1, func(a *record.Agent) {
				redirect(a, 100+float64(n%5)/10)
				switch n {
				case 3:
					a.Host.BootParams, a.Host.IndirectThunk = "mitigations=off", "none"
					redirect(a, 60)
				case 4:
					redirect(a, 150)
				case 5:
					a.Machine.IOMMU = "strict"
				case 6, 7:
					a.Host.CPU = "Another"
				}
			}))
		}
		ingest(t, where, stream(t, all...))
		odd := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetOdd, error) {
			return s.Odd(ctx, window, nil, 10)
		})
		if odd.Compared != 28 || odd.Alone != 2 || len(odd.Rows) != 3 {
			t.Fatalf("%d compared, %d alone: %+v", odd.Compared, odd.Alone, odd.Rows)
		}
		slow, iommu, off := odd.Rows[0], odd.Rows[1], odd.Rows[2]
		if slow.Name != "edge-4" || math.Abs(*slow.Lost-49.8) > 0.2 || len(slow.Prices) != 3 || len(slow.Fields) != 0 || slow.Twins != 27 {
			t.Errorf("%+v", slow)
		}
		if iommu.Name != "edge-5" || len(iommu.Fields) != 1 || iommu.Fields[0].Value != "strict" || iommu.Fields[0].Usual != "off" ||
			iommu.Fields[0].Share != 1 {
			t.Errorf("%+v", iommu)
		}
		if off.Name != "edge-3" || *off.Lost > -39 || len(off.Fields) != 2 || off.Fields[1].Value != "mitigations=off" {
			t.Errorf("%+v", off)
		}
		few := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetOdd, error) { return s.Odd(ctx, window, nil, 1) })
		if len(few.Rows) != 1 || few.LeftOut != 2 {
			t.Errorf("one of three: %+v", few)
		}
	})
}

// Numbers are judged among eight machines of a kind; machines with fewer are counted, and so are those without a number.
func TestOddFewNumbers(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		var all []*record.Agent
		for n := range uint64(20) {
			all = append(all, machine(n, 1, func(a *record.Agent) {
				redirect(a, 100)
				switch {
				case n == 0 || n == 4:
					redirect(a, 200)
				case n == 19:
					refuse(a)
				}
				switch {
				case n < 3:
					a.Host.Kernel = "three"
				case n < 11:
					a.Host.Kernel = "eight"
				case n < 18:
					a.Host.Kernel = "seven"
				default:
					a.Host.Kernel = "two"
				}
			}))
		}
		ingest(t, where, stream(t, all...))
		odd := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetOdd, error) {
			return s.Odd(ctx, window, nil, 10)
		})
		if odd.Unjudged != 3+7 || odd.Compared != 18 || odd.Alone != 2 || len(odd.Rows) != 1 || odd.Rows[0].Name != "edge-4" ||
			odd.Rows[0].Twins != 7 {
			t.Errorf("%d unjudged, %d compared, %d alone, %+v", odd.Unjudged, odd.Compared, odd.Alone, odd.Rows)
		}
		const want = "1 of 20 machines are unlike their twins; 2 have too few of them, 10 too few to judge their numbers, 1 no number."
		if said := conclusion.FleetOdd(odd); said != want {
			t.Errorf("%q, want %q", said, want)
		}
	})
}

// A machine whose agent refuses to measure keeps the numbers that it has in the time asked about, unless it is another since.
func TestWhoRefusedLater(t *testing.T) {
	engines(t, func(t *testing.T, where string) {
		ingest(t, where, stream(t,
			machine(1, 8, func(a *record.Agent) { redirect(a, 100) }),
			machine(1, 1, refuse),
			machine(2, 8, func(a *record.Agent) { redirect(a, 500) }),
			machine(2, 1, func(a *record.Agent) { refuse(a); a.Host.Microcode = "another" }),
			machine(3, 40, func(a *record.Agent) { redirect(a, 500) }), // before the window
			machine(3, 1, refuse)))
		who := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetWho, error) {
			return s.Who(ctx, window, nil, []string{"machine"})
		})
		if who.Machines != 3 || who.Measured != 1 || who.Rows[0].Name != "machine=edge-1" || who.Rows[0].Measured != 1 {
			t.Errorf("%d of %d have numbers: %+v", who.Measured, who.Machines, who.Rows)
		}
	})
}

// Canaries are compared with themselves where they were on both sides, else with machines of their CPU.
func TestCompare(t *testing.T) {
	// level is what the redirect of machine n takes: machines of two CPUs differ by a factor, and within by some percent.
	level := func(n uint64) float64 { return 100 * (1 + float64(n%2)) * (1 + float64(n%7)/100) }
	fleetOf := func(slower float64, both bool) string {
		var all []*record.Agent
		for n := range uint64(60) {
			cpu := func(a *record.Agent) { a.Host.CPU = fmt.Sprintf("CPU %d", n%2) }
			canary := n >= 40
			if !canary || both {
				all = append(all, machine(n, 9, func(a *record.Agent) { cpu(a); redirect(a, level(n)) }))
			}
			if canary {
				all = append(all, machine(n, 1, func(a *record.Agent) {
					cpu(a)
					a.Host.Kernel = "6.19"
					redirect(a, level(n)*slower*(1+float64(n%3)/1000))
				}))
			}
		}
		all = append(all, machine(99, 1, func(a *record.Agent) { a.Host.Kernel, a.Host.CPU = "6.19", "Alone" }))
		refuses := func(a *record.Agent) { // no number on the side of the canaries
			a.Host.Kernel = "6.19"
			refuse(a)
		}
		all = append(all, machine(98, 1, refuses), machine(1, 0.5, refuses))
		return stream(t, all...)
	}
	for _, test := range []struct {
		name      string
		slower    float64
		both      bool
		design    string
		regressed bool
		unmatched int
	}{
		{"paired, slower", 1.1, true, "paired", true, 1},
		{"paired, alike", 1, true, "paired", false, 1},
		{"unpaired, slower", 1.1, false, "unpaired", true, 1},
		{"unpaired, alike", 1, false, "unpaired", false, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			where := filepath.Join(t.TempDir(), "fleet.db")
			ingest(t, where, fleetOf(test.slower, test.both))
			c := fleet.Comparison{
				Window: window, Threshold: 5,
				Base: fleet.Where{{Field: "kernel", Value: "6.18"}}, Canary: fleet.Where{{Field: "kernel", Value: "6.19"}},
			}
			got := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetCompare, error) { return s.Compare(ctx, c) })
			if got.Design != test.design || got.Regressed() != test.regressed || got.Unmatched != test.unmatched || got.CanaryMachines != 21 {
				t.Errorf("%s, regressed %v, %d unmatched, %d canaries", got.Design, got.Regressed(), got.Unmatched, got.CanaryMachines)
			}
			said, untold := conclusion.FleetCompare(got), conclusion.FleetUntold(got)
			if (untold == "") != test.regressed || !strings.Contains(said, "1 of 21 canaries is") {
				t.Errorf("%q, %q", said, untold)
			}
			i := slices.IndexFunc(got.Rows, func(r record.FleetCompareRow) bool { return r.Name == "redirect/bulk=16" })
			if d := got.Rows[i].Difference; math.Abs(d.Median-100*(test.slower-1)) > 1 || d.Low > d.Median || d.High < d.Median {
				t.Errorf("%+v", d)
			}
			if got.Machines != 62 || got.Measured != 60 {
				t.Errorf("%d of %d machines have numbers", got.Measured, got.Machines)
			}
			if n := got.Rows[i].Needed; n != nil && *n < stat.MinRounds || n == nil && test.both {
				t.Errorf("canaries to show 1 %%: %v", n)
			}
		})
	}
}

// kernels are the sides of a comparison of two kernels.
var kernels = fleet.Comparison{
	Window: window, Threshold: 2,
	Base: fleet.Where{{Field: "kernel", Value: "6.18"}}, Canary: fleet.Where{{Field: "kernel", Value: "6.19"}},
}

// compared is the answer of a fleet of these records.
func compared(t *testing.T, c fleet.Comparison, all ...*record.Agent) *record.FleetCompare {
	t.Helper()
	where := filepath.Join(t.TempDir(), "fleet.db")
	ingest(t, where, stream(t, all...))
	return ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetCompare, error) { return s.Compare(ctx, c) })
}

// compareRow is the row of that name, nil when there is none.
func compareRow(doc *record.FleetCompare, name string) *record.FleetCompareRow {
	if i := slices.IndexFunc(doc.Rows, func(r record.FleetCompareRow) bool { return r.Name == name }); i >= 0 {
		return &doc.Rows[i]
	}
	return nil
}

// Canaries of a CPU of which the base has a machine or a few are not judged by these: what is odd in them would be in all canaries.
func TestCompareFewOfBase(t *testing.T) {
	for _, few := range []int{1, stat.MinRounds - 1} {
		var all []*record.Agent
		add := func(n int, kernel, cpu string, ns float64) {
			all = append(all, machine(uint64(n), 1, func(a *record.Agent) {
				a.Host.Kernel, a.Host.CPU = kernel, cpu
				redirect(a, ns*(1+float64(n%5)/1000))
			}))
		}
		for n := range 20 {
			add(n, "6.18", "many", 100)
			add(100+n, "6.19", "few", 100) // as fast as the others, and slower than the few
			if n < few {
				add(200+n, "6.18", "few", 80)
			}
		}
		got := compared(t, kernels, all...)
		if got.Regressed() || got.Unmatched != 20 || conclusion.FleetUntold(got) == "" {
			t.Errorf("%d of the base: %d unmatched, regressed %v, %+v", few, got.Unmatched, got.Regressed(), got.Rows)
		}
		for n := range 10 {
			add(300+n, "6.19", "many", 110)
		}
		got = compared(t, kernels, all...)
		row := compareRow(got, "redirect/bulk=16")
		if row == nil || !row.Regression || row.Base.N != 20 || row.Canary.N != 10 || math.Abs(row.Difference.Median-10) > 1 {
			t.Errorf("%d of the base, and canaries like many: %+v", few, row)
		}
	}
}

// A direct call is a check where both sides return alike. Where a rollout makes returns dearer, its price counts.
func TestCompareReturns(t *testing.T) {
	for _, both := range []bool{true, false} {
		for _, thunk := range []string{"ret", "srso_return_thunk"} {
			var all []*record.Agent
			for n := range uint64(20) {
				side := func(daysAgo float64, kernel, thunk string, ns float64) {
					all = append(all, machine(n+uint64(daysAgo)*uint64(100*fleet.BoolInt(!both)), daysAgo, func(a *record.Agent) {
						a.Host.Kernel, a.Host.ReturnThunk = kernel, thunk
						x := ns + float64(n)/1000
						a.Price("direct-call").Price = &stat.Quantity{Median: x, Low: x - 0.1, High: x + 0.1, N: 7, Unit: "ns"}
					}))
				}
				side(9, "6.18", "ret", 1.2)
				side(1, "6.19", thunk, 1.5)
			}
			got := compared(t, kernels, all...)
			row := compareRow(got, "direct-call")
			alike := thunk == "ret"
			if row.Reference != alike || row.Regression == alike || got.Regressed() == alike || (len(got.Warnings) > 0) != alike {
				t.Errorf("%s, %s: %+v, %+v", got.Design, thunk, row, got.Warnings)
			}
		}
	}
}

// The number of canaries that a comparison asks for shows 1 %, and a tenth of it does not: the answer is checked by making
// that fleet.
func TestNeeded(t *testing.T) {
	run := func(canaries uint64, slower float64) *record.FleetCompareRow {
		where := filepath.Join(t.TempDir(), "fleet.db")
		var all []*record.Agent
		for n := range canaries {
			noise := func(k uint64) float64 { return 1 + 0.03*rand.New(rand.NewPCG(n, k)).NormFloat64() }
			all = append(all, machine(n, 9, func(a *record.Agent) { redirect(a, 100*noise(1)) }),
				machine(n, 1, func(a *record.Agent) { a.Host.Kernel = "6.19"; redirect(a, 100*slower*noise(2)) }))
		}
		ingest(t, where, stream(t, all...))
		c := fleet.Comparison{Window: window, Threshold: 0.1, Base: fleet.Where{{Field: "kernel", Value: "6.18"}},
			Canary: fleet.Where{{Field: "kernel", Value: "6.19"}}}
		got := ask(t, where, func(ctx context.Context, s *fleet.Store) (*record.FleetCompare, error) { return s.Compare(ctx, c) })
		i := slices.IndexFunc(got.Rows, func(r record.FleetCompareRow) bool { return r.Name == "redirect/bulk=16" })
		return &got.Rows[i]
	}
	first := run(20, 1)
	if first.Needed == nil || *first.Needed < 60 {
		t.Fatalf("machines that scatter by 3 %%: %s", fmt.Sprint(first.Needed != nil, first.Difference))
	}
	if enough := run(uint64(*first.Needed)*3/2, 1.01); enough.Verdict != stat.Slower {
		t.Errorf("with %d canaries 1 %% is %q", *first.Needed*3/2, enough.Verdict)
	}
}

// What the store has no column for has no place.
func TestPlace(t *testing.T) {
	for name, want := range map[string]int{"redirect/bulk=8": -1, "redirect/bulk=1": 5, "control": 0, "callback/loop": -1} {
		if got := fleet.Place(name); got != want {
			t.Errorf("%s is at %d, want %d", name, got, want)
		}
	}
}

// Conditions may have commas, and unknown fields are refused.
func TestParseWhere(t *testing.T) {
	where, err := fleet.ParseWhere(`cpu=A\, B,label:rack=r12,iommu=`)
	if err != nil || len(where) != 3 || where[0].Value != "A, B" || where[2].Value != "" ||
		where.String() != `cpu=A\, B,label:rack=r12,iommu=` {
		t.Errorf("%v %v", where, err)
	}
	where, err = fleet.ParseWhere("cpu=AMD EPYC, family 25,label:rack=r12", "kernel=6.12*")
	if err != nil || len(where) != 3 || where[0].Value != "AMD EPYC, family 25" ||
		where[2] != (fleet.Condition{Field: "kernel", Value: "6.12*"}) {
		t.Errorf("%v %v", where, err)
	}
	for _, text := range []string{"kernel", "color=red", "label:=x", ",", "call-rows=x"} {
		if where, err := fleet.ParseWhere(text); err == nil {
			t.Errorf("%q is %v", text, where)
		}
	}
}

// A store that is none, is another program's, or is of a later version is one line, and is not written to.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, bytes.Repeat([]byte("not a database "), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() (*fleet.Store, error){
		"there is no store":         func() (*fleet.Store, error) { return fleet.Open(t.Context(), filepath.Join(dir, "none")) },
		"not a SQLite database":     func() (*fleet.Store, error) { return fleet.Create(t.Context(), text) },
		"it is not a regular file":  func() (*fleet.Store, error) { return fleet.Create(t.Context(), "/dev/null") },
		"a password on the command": func() (*fleet.Store, error) { return fleet.Open(t.Context(), "postgres://a:secret@127.0.0.1/b") },
		"open store":                func() (*fleet.Store, error) { return fleet.Open(t.Context(), "postgres://a@127.0.0.1:1/b") },
	} {
		s, err := open()
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want %q", err, name)
		}
	}
	if b, err := os.ReadFile(text); err != nil || len(b) != 1500 {
		t.Errorf("the file has %d bytes now: %v", len(b), err)
	}
	engines(t, func(t *testing.T, where string) {
		if s, err := fleet.Open(t.Context(), where); err == nil || !strings.Contains(err.Error(), "no ") {
			t.Errorf("an empty store opens: %v %v", s, err)
		}
		ingest(t, where, stream(t, machine(1, 1, nil)))
		if err := fleet.SetVersion(t.Context(), where, 99); err != nil {
			t.Fatal(err)
		}
		for _, open := range []func(context.Context, string) (*fleet.Store, error){fleet.Open, fleet.Create} {
			if s, err := open(t.Context(), where); err == nil || !strings.Contains(err.Error(), "use a newer one") {
				t.Errorf("a newer store opens: %v %v", s, err)
			}
		}
	})
}
