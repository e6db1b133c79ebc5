package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil/pgserver"
)

// machinesEnv is how many machines the fleets of the benchmarks have, with commas between: 100,1000,10000,100000.
const machinesEnv = "UNTHUNK_MACHINES"

// weeks of records that a simulated fleet has, one a week.
const weeks = 52

// simulated makes the records of fleets that there are not, from one that a real machine made (testdata/agent.json): CPUs,
// kernels, drivers and racks are invented, numbers scatter by 3 % around those of the real one.
type simulated struct {
	real *record.Agent
	now  time.Time
}

func newSimulated(tb testing.TB) *simulated {
	tb.Helper()
	b, err := os.ReadFile("testdata/agent.json")
	if err != nil {
		tb.Fatal(err)
	}
	saved, err := record.Parse(b)
	if err != nil {
		tb.Fatal(err)
	}
	return &simulated{saved.Agent(), time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
}

// at is the record of machine n in a week, 0 the first of them.
func (s *simulated) at(n, week int) *record.Agent {
	copied := *s.real
	a := &copied
	a.Rows, a.Redirect = slices.Clone(a.Rows), slices.Clone(a.Redirect)
	r := rand.New(rand.NewPCG(uint64(n), uint64(week)))
	rack := n % 100
	a.Run = fmt.Sprintf("SIM%dW%d", n, week)
	a.Time = s.now.Add(-time.Duration(weeks-1-week)*7*24*time.Hour - time.Duration(n%(6*24*3600))*time.Second)
	a.Measured = &a.Time
	a.Machine.ID = fmt.Sprintf("%08x%024x", uint32(n)*2654435761, n)
	a.Machine.Boot = fmt.Sprintf("%016x%016x", n, week/8)
	a.Machine.Name = fmt.Sprintf("edge-%d", n)
	a.Machine.Labels = map[string]string{"rack": fmt.Sprintf("r%d", rack)}
	a.Machine.Drivers = []string{[]string{"mlx5_core", "ice", "virtio_net"}[rack%3]}
	a.Host.CPU = fmt.Sprintf("CPU of kind %d", rack%6)
	a.Host.Microcode = fmt.Sprintf("0x%x", rack%12)
	a.Host.Kernel = fmt.Sprintf("6.12.%d", 40+week/13)
	factor := 1 + float64(rack%6)/10
	if week == weeks-1 && n%10 == 0 { // canaries
		a.Host.Kernel = "6.18.5"
		factor *= 1.04
	}
	if n%1000 == 7 {
		a.Host.BootParams, a.Host.IndirectThunk = "mitigations=off", "none"
		factor *= 0.8
	}
	if n%33 == 5 {
		a.Rows, a.Redirect, a.Measured = []record.TaxRow{}, []record.BenchRow{}, nil
		a.Refused = []record.AgentRefusal{{Part: "measure", Reason: "load", Text: "a load of 3 a CPU: at most 0.5"}}
	}
	scale := func(q *stat.Quantity) *stat.Quantity {
		x := q.Median * factor * (1 + 0.03*r.NormFloat64())
		return &stat.Quantity{Median: x, Low: x - math.Abs(x)/50, High: x + math.Abs(x)/50, N: q.N, Unit: q.Unit}
	}
	for i := range a.Rows {
		a.Rows[i].Price = scale(a.Rows[i].Price)
	}
	for i := range a.Redirect {
		a.Redirect[i].Hop = scale(a.Redirect[i].Hop)
	}
	return a
}

// document is a record as a file has it.
func (s *simulated) document(tb testing.TB, n, week int) []byte {
	tb.Helper()
	b, err := json.Marshal(s.at(n, week))
	if err != nil {
		tb.Fatal(err)
	}
	return append(b, '\n')
}

// fill gives a store the records of so many machines in all weeks. Three weeks are made one by one, the others are these at
// other times; their documents are empty, which no question reads.
func (s *simulated) fill(tb testing.TB, store *Store, machines int) {
	tb.Helper()
	ctx := tb.Context()
	for _, week := range []int{0, weeks / 2, weeks - 1} {
		var batch []*entry
		for n := range machines {
			a := s.at(n, week)
			e := &entry{
				run: a.Run, machine: a.Machine.ID, name: a.Machine.Name, boot: a.Machine.Boot, at: a.Time.Unix(), numbers: numbersOf(a),
				setup: newSetup(a), doc: []byte("{}"),
			}
			if len(a.Refused) > 0 {
				e.refused = a.Refused[0].Reason
			}
			var err error
			if e.labels, err = e.setup.labelsText(); err != nil {
				tb.Fatal(err)
			}
			e.setupID = e.setup.id(e.labels)
			if batch = append(batch, e); len(batch) == 1000 || n == machines-1 {
				if _, err := store.insert(ctx, batch, s.now); err != nil {
					tb.Fatal(err)
				}
				batch = nil
			}
		}
	}
	list := strings.Join(recordColumns, ", ")
	for week := range weeks - 1 {
		from := week / (weeks / 2) * (weeks / 2)
		if week == from {
			continue
		}
		later := fmt.Sprintf("at + %d,", (week-from)*7*24*3600)
		shifted := strings.NewReplacer("run,", fmt.Sprintf("run || 'C%d',", week), "at,", later).Replace(list)
		first := s.now.Add(-time.Duration(weeks-1-from) * 7 * 24 * time.Hour).Unix()
		_, err := store.db.ExecContext(ctx, fmt.Sprintf("INSERT INTO record (%s) SELECT %s FROM record WHERE at > %d AND at <= %d",
			list, shifted, first-6*24*3600, first))
		if err != nil {
			tb.Fatal(err)
		}
	}
	columns := strings.Join(latestColumns, ", ")
	statements := []string{
		"DELETE FROM latest",
		"INSERT INTO latest (" + columns + ") SELECT r." + strings.Join(latestColumns, ", r.") +
			" FROM (SELECT machine, setup, max(at) AS at FROM record GROUP BY machine, setup) n" +
			" JOIN record r ON r.machine = n.machine AND r.setup = n.setup AND r.at = n.at",
	}
	if store.name == "postgres" { // a file with statistics is refused
		statements = append(statements, "ANALYZE")
	}
	for _, statement := range statements {
		if _, err := store.db.ExecContext(ctx, statement); err != nil {
			tb.Fatal(err)
		}
	}
}

// fleets runs a benchmark on fleets of each size, in each engine that holds them.
func fleets(b *testing.B, bench func(b *testing.B, s *simulated, store *Store, machines int, cpu func() time.Duration)) {
	sizes := os.Getenv(machinesEnv)
	if sizes == "" {
		sizes = "100"
	}
	s := newSimulated(b)
	for _, engine := range []struct {
		name string
		most int
		open func(b *testing.B, machines int) (where string, cpu func() time.Duration)
	}{
		{"sqlite", 1000, func(b *testing.B, _ int) (string, func() time.Duration) {
			return filepath.Join(b.TempDir(), "fleet.db"), func() time.Duration { return 0 }
		}},
		{"postgres", math.MaxInt, func(b *testing.B, machines int) (string, func() time.Duration) {
			server := pgserver.Start(b, "shared_buffers=1GB", "max_wal_size=8GB", "work_mem=64MB")
			return server.Database(b, fmt.Sprintf("fleet%d", machines)), server.CPU
		}},
	} {
		for size := range strings.SplitSeq(sizes, ",") {
			machines, err := strconv.Atoi(size)
			if err != nil || machines < 1 {
				b.Fatalf("%s=%s: numbers of machines with commas between", machinesEnv, sizes)
			}
			if machines > engine.most {
				continue
			}
			b.Run(fmt.Sprintf("engine=%s/machines=%d", engine.name, machines), func(b *testing.B) {
				where, cpu := engine.open(b, machines)
				store, err := Create(b.Context(), where)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { store.Close() })
				s.fill(b, store, machines)
				bench(b, s, store, machines, cpu)
			})
		}
	}
}

// ownCPU is what this process has taken of the CPUs.
func ownCPU(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// Each question of a fleet, and how many records a second come in beside what is there.
func BenchmarkFleet(b *testing.B) {
	fleets(b, func(b *testing.B, s *simulated, store *Store, machines int, cpu func() time.Duration) {
		ctx := b.Context()
		month := Window{Until: s.now, Since: 30 * 24 * time.Hour}
		before := Window{Until: s.now.Add(-20 * 7 * 24 * time.Hour), Since: month.Since}
		by := []string{"kernel", "cpu", "indirect"}
		for name, ask := range map[string]func(ctx context.Context) (record.Doc, error){
			"who":    func(ctx context.Context) (record.Doc, error) { return store.Who(ctx, month, nil, by) },
			"who-at": func(ctx context.Context) (record.Doc, error) { return store.Who(ctx, before, nil, by) },
			"odd":    func(ctx context.Context) (record.Doc, error) { return store.Odd(ctx, month, nil, 50) },
			"compare": func(ctx context.Context) (record.Doc, error) {
				return store.Compare(ctx, Comparison{month, Where{{"kernel", "6.12.43"}}, Where{{"kernel", "6.18.5"}}, 2})
			},
		} {
			b.Run(name, func(b *testing.B) {
				taken := -cpu() - ownCPU(b)
				for b.Loop() {
					if _, err := ask(ctx); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric((taken+cpu()+ownCPU(b)).Seconds()*1000/float64(b.N), "cpu-ms/op")
			})
		}
		b.Run("ingest", func(b *testing.B) {
			const records = 4000
			next := 0
			var taken time.Duration // of the CPUs, by both sides
			for b.Loop() {
				b.StopTimer()
				var stream bytes.Buffer
				for range records {
					stream.Write(s.document(b, next%machines, weeks+next/machines))
					next++
				}
				b.SetBytes(int64(stream.Len()))
				b.StartTimer()
				taken -= cpu() + ownCPU(b)
				in := Ingest{Store: store, In: &stream, Now: s.now.AddDate(100, 0, 0)}
				done, err := in.Run(ctx, "-")
				if err != nil || done.New != records {
					b.Fatalf("%+v: %v", done, err)
				}
				taken += cpu() + ownCPU(b)
			}
			b.ReportMetric(taken.Seconds()*1000/records/float64(b.N), "cpu-ms/record")
			b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
		var size int64
		if store.name == "postgres" {
			if err := store.db.QueryRowContext(ctx, "SELECT pg_database_size(current_database())").Scan(&size); err != nil {
				b.Fatal(err)
			}
			b.Logf("%d machines: %d MB", machines, size>>20)
		}
	})
}
