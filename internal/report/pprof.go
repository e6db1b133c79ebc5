package report

import (
	"fmt"
	"io"
	"math"

	"github.com/google/pprof/profile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Pprof writes a profile for go tool pprof: samples, and the time of a million
// packets in ns, since its values are whole numbers: what it shows as 131 ms are
// 131 ns a packet. The stage is a label of each sample.
func Pprof(w io.Writer, prof *record.Profile) error {
	kernel := &profile.Mapping{ID: 1, File: "[kernel.kallsyms]", HasFunctions: true}
	bpf := &profile.Mapping{ID: 2, File: "[bpf]", HasFunctions: true}
	out := &profile.Profile{
		SampleType: []*profile.ValueType{
			{Type: "samples", Unit: "count"},
			{Type: "time-per-million-packets", Unit: "nanoseconds"},
		},
		DefaultSampleType: "time-per-million-packets",
		Mapping:           []*profile.Mapping{kernel, bpf},
		TimeNanos:         prof.Time.UnixNano(),
		PeriodType:        &profile.ValueType{Type: prof.Sampling.Event, Unit: "count"},
		Comments:          []string{"time-per-million-packets: what shows as 1 ms is 1 ns per packet"},
	}
	if prof.Sampling.Event == "cpu-clock" && prof.Sampling.Rate > 0 {
		out.PeriodType.Unit = "nanoseconds"
		out.Period = int64(1e9) / int64(prof.Sampling.Rate)
	}
	locations := make(map[string]*profile.Location)
	locate := func(name string) *profile.Location {
		if l := locations[name]; l != nil {
			return l
		}
		f := &profile.Function{ID: uint64(len(out.Function) + 1), Name: name, SystemName: name}
		l := &profile.Location{ID: f.ID, Mapping: kernel, Line: []profile.Line{{Function: f}}}
		if cells.ShortName(name) != name {
			l.Mapping = bpf
		}
		out.Function, out.Location = append(out.Function, f), append(out.Location, l)
		locations[name] = l
		return l
	}
	for _, s := range prof.Stacks {
		sample := &profile.Sample{
			Value: []int64{int64(s.Samples), int64(math.Round(s.Ns * 1e6))},
			Label: map[string][]string{"stage": {s.Stage}},
		}
		for i := range s.Frames {
			sample.Location = append(sample.Location, locate(s.Frames[len(s.Frames)-1-i]))
		}
		out.Sample = append(out.Sample, sample)
	}
	if err := out.CheckValid(); err != nil {
		return fmt.Errorf("write pprof profile: %w", err)
	}
	if err := out.Write(w); err != nil {
		return fmt.Errorf("write pprof profile: %w", err)
	}
	return nil
}
