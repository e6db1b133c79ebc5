package record_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

func TestLoadProfile(t *testing.T) {
	dir := t.TempDir()
	load := func(name string, doc any) (*record.Profile, error) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(recordtest.Marshal(t, doc)), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := record.Load(file)
		if err != nil {
			return nil, err
		}
		return s.Profile(), nil
	}
	p, err := load("good", recordtest.FullProfile())
	if err != nil || len(p.Rows) != 6 || p.Tax.TargetEntries.Median != -0.5 || p.Stacks[0].Frames[1] != "bq_xmit_all" ||
		p.Rows[0].Samples[9] != recordtest.FullProfile().Rows[0].Samples[9] {
		t.Errorf("%+v, %v", p, err)
	}
	for name, tt := range map[string]struct {
		change func(*record.Profile)
		want   string
	}{
		"run":           {func(p *record.Profile) { p.Run = "" }, "run identity"},
		"schema":        {func(p *record.Profile) { p.Schema = "x" }, "schema"},
		"no packet":     {func(p *record.Profile) { p.Packet = nil }, "no ns per packet"},
		"packet of 0":   {func(p *record.Profile) { p.Packet.Median = 0 }, "no ns per packet"},
		"packet unit":   {func(p *record.Profile) { p.Packet.Unit = "Mpps" }, `packet is in "Mpps", not in ns`},
		"no rows":       {func(p *record.Profile) { p.Rows = nil }, "no stages"},
		"too many rows": {func(p *record.Profile) { p.Rows = make([]record.ProfileRow, record.MaxRows+1) }, "more than 10000 rows"},
		"twice":         {func(p *record.Profile) { p.Rows = append(p.Rows, p.Rows[0]) }, "receive: occurs twice"},
		"row of packet": {func(p *record.Profile) { p.Rows[0].Name = "packet" }, "packet: occurs twice"},
		"row name":      {func(p *record.Profile) { p.Rows[0].Name = "\x1b[2J" }, "impossible name"},
		"no ns":         {func(p *record.Profile) { p.Rows[0].Ns = nil }, "neither a number"},
		"no samples":    {func(p *record.Profile) { p.Rows[0].Samples, p.Rows[0].Rounds = nil, nil }, "without samples"},
		"fewer rounds":  {func(p *record.Profile) { p.Rows[1].Samples = p.Rows[1].Samples[1:] }, "9 samples but 10 rounds"},
		"other rounds": {func(p *record.Profile) { p.Rows[1].Rounds = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 10} },
			"row program: its rounds are not those of receive"},
		"rounds back":    {func(p *record.Profile) { p.Rows[0].Rounds = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 8} }, "out of order"},
		"negative round": {func(p *record.Profile) { p.Rows[0].Samples[0] = -1 }, "impossible sample of -1 ns"},
		"negative mean":  {func(p *record.Profile) { p.Rows[4].Ns.Median = -0.5 }, "row dma: ns is impossible: -0.5 ns"},
		"huge":           {func(p *record.Profile) { p.Rows[5].Samples[0] = -2e12 }, "impossible sample"},
		"interval":       {func(p *record.Profile) { p.Rows[0].Ns.Low = 1e3 }, "outside its interval"},
		"event":          {func(p *record.Profile) { p.Sampling.Event = "\a" }, "sampling: impossible event"},
		"lost":           {func(p *record.Profile) { p.Sampling.Lost = -1 }, "sampling: a count below 0"},
		"CPU":            {func(p *record.Profile) { p.Sampling.CPUs = []int{-1} }, "impossible CPUs"},
		"throughput":     {func(p *record.Profile) { p.Sampling.Throughput.Unit = "ns" }, "throughput is in"},
		"function":       {func(p *record.Profile) { p.Functions[0].Name = "a\nb" }, "function 0: impossible text"},
		"long function":  {func(p *record.Profile) { p.Functions[0].Name = strings.Repeat("x", 1001) }, "function 0: impossible text"},
		"stageless":      {func(p *record.Profile) { p.Functions[0].Stage = "" }, "function 0: it has no name or no stage"},
		"functionless":   {func(p *record.Profile) { p.Functions[0].Ns = nil }, "function 0: neither"},
		"many functions": {func(p *record.Profile) { p.Functions = make([]record.ProfileFunction, record.MaxFunctions+1) }, "100000 functions"},
		"thunks":         {func(p *record.Profile) { p.Tax.Thunks.Median = -2 }, "tax: thunks is impossible"},
		"agree":          {func(p *record.Profile) { p.Tax.Agree = "maybe" }, "tax: impossible agree"},
		"site":           {func(p *record.Profile) { p.Tax.Sites[0].Targets = []string{"\x07"} }, "tax: site 0: impossible text"},
		"site calls":     {func(p *record.Profile) { *p.Tax.Sites[0].Pointer = "\x07" }, "tax: site 0: impossible text"},
		"counter":        {func(p *record.Profile) { p.Counters[0].PerPacket.Median = -1 }, "counter cycles: per-packet is impossible"},
		"counter name":   {func(p *record.Profile) { p.Counters[0].Name = "" }, "counter 0: impossible name"},
		"empty counter":  {func(p *record.Profile) { p.Counters[0].PerPacket = nil }, "counter cycles: neither"},
		"no frames":      {func(p *record.Profile) { p.Stacks[0].Frames = nil }, "stack 0: 0 frames"},
		"deep":           {func(p *record.Profile) { p.Stacks[0].Frames = make([]string, record.MaxFrames+1) }, "stack 0: 257 frames"},
		"frame":          {func(p *record.Profile) { p.Stacks[0].Frames[1] = "\x1b" }, "stack 0: impossible text"},
		"empty frame":    {func(p *record.Profile) { p.Stacks[0].Frames[1] = "" }, "stack 0: it has no name"},
		"stack ns":       {func(p *record.Profile) { p.Stacks[0].Ns = -1 }, "stack 0: impossible: 12 samples, -1 ns"},
		"many stacks":    {func(p *record.Profile) { p.Stacks = make([]record.ProfileStack, record.MaxStacks+1) }, "200000 stacks"},
	} {
		bad := recordtest.FullProfile()
		tt.change(bad)
		if _, err := load("bad", bad); err == nil || !strings.Contains(err.Error(), tt.want) ||
			strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "load "+filepath.Join(dir, "bad")+": ") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	other := recordtest.FullProfile()
	other.Kind = "tax"
	if _, err := load("other", other); err == nil {
		t.Error("stages are read as prices")
	}
	if s, err := record.Load(filepath.Join(dir, "good")); err != nil || s.Sites() != nil || s.Bench() != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := record.Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzLoadProfile(f *testing.F) {
	for _, p := range []*record.Profile{recordtest.FullProfile(),
		recordtest.ProfileOf("a", 1, 7, recordtest.Stage{Name: "receive", Ns: 0.3})} {
		b, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"schema":"unthunk/1","kind":"profile","run":"x","rows":[{}]}`))
	f.Add([]byte(`{"schema":"unthunk/1","kind":"profile","run":"x","packet":{"median":1,"unit":"ns"},
			"rows":[{"name":"x","ns":{"median":1e-300,"unit":"ns"},"samples":[0,1e-300,0,0,5e-324,0,0],
			"rounds":[0,1,2,3,4,5,6]}],"sampling":{"event":"x","samples":1}}`))
	other := recordtest.ProfileOf("b", 2, 8, recordtest.Way...)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := record.Parse(b)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of more than one line: %q", err)
			}
			return
		}
		p := s.Profile()
		if p == nil {
			return
		}
		for _, c := range []*record.ProfileComparison{compare.Profiles(p, p, compare.Options{Threshold: 2}),
			compare.Profiles(p, other, compare.Options{})} {
			if _, err := json.Marshal(c); err != nil {
				t.Error(err)
			}
			for _, row := range c.Rows {
				if d := row.Difference; d != nil && !(d.P >= 0 && d.P <= 1) {
					t.Errorf("%s: %+v", row.Name, d)
				}
			}
		}
	})
}
