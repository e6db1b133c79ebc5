package reporttest

import (
	"math"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func fleetHead() record.FleetHead {
	until := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	return record.FleetHead{
		Since: until.AddDate(0, 0, -30), Until: until, Where: "label:rack=r12", Machines: 1204, Measured: 1171, WrongClock: 2,
		Unmeasured: []record.FleetUnmeasured{
			{Name: "edge-107", Machine: "0000006b89abcdef0123456789abcdef", Reason: "load", At: until.AddDate(0, 0, -2)},
			{Name: "edge-9", Machine: "0000000989abcdef0123456789abcdef", Reason: "steal", At: until.AddDate(0, 0, -5)},
		},
		FleetShared: record.FleetShared{
			SharedIDs:    []string{"0000000589abcdef0123456789abcdef"},
			SharedNames:  map[string][]string{"0000000589abcdef0123456789abcdef": {"edge-5", "edge-5-old"}},
			SharedCounts: map[string]int{"0000000589abcdef0123456789abcdef": 2},
		},
	}
}

func fleetDocument[Row any](kind string, rows ...Row) record.Document[Row] {
	d := *record.New[Row](kind, host.Fingerprint{})
	d.Time, d.Run, d.Rows = time.Date(2026, 11, 29, 12, 0, 1, 0, time.UTC), "RUN", rows
	return d
}

func overMachines(median, half float64, n int) *stat.Quantity {
	return &stat.Quantity{Median: median, Low: median - half, High: median + half, N: n, Unit: "ns"}
}

// FleetWho is an answer of fleet who, of two groups.
func FleetWho() *record.FleetWho {
	labels := func(kernel, indirect string) map[string]string {
		return map[string]string{"kernel": kernel, "indirect": indirect}
	}
	return &record.FleetWho{
		Document: fleetDocument("fleet-who",
			record.FleetWhoRow{
				Name: "kernel=6.18.5, indirect=retpoline", Labels: labels("6.18.5", "retpoline"), Machines: 1200, Measured: 1170,
				Refused: map[string]int{"load": 26, "steal": 4},
				Numbers: []record.FleetNumber{
					{Row: "control", Ns: overMachines(0.01, 0.02, 1170)}, {Row: "direct-call", Ns: overMachines(1.21, 0.03, 1170)},
					{Row: "callback/loop", Ns: overMachines(8.3, 0.1, 1170)}, {Row: "map-lookup/lpm", Ns: overMachines(8.8, 0.1, 1170)},
					{Row: "redirect/bulk=1", Ns: overMachines(343, 7.9, 1170)}, {Row: "redirect/bulk=16", Ns: overMachines(99.9, 2.3, 1170)},
					{Row: "redirect/bulk=64", Ns: overMachines(93.6, 1.9, 1169)}, {Row: "indirect/bulk=16", Ns: overMachines(1.04, 0.02, 1170)},
				},
			},
			record.FleetWhoRow{
				Name: "kernel=6.18.5, indirect=none", Labels: labels("6.18.5", "none"), Machines: 4, Measured: 1, Refused: map[string]int{"load": 3},
				Numbers: []record.FleetNumber{{Row: "redirect/bulk=16", Ns: overMachines(70, math.NaN(), 1)}},
			}),
		FleetHead: fleetHead(), By: []string{"kernel", "indirect"},
	}
}

// FleetOdd is an answer of fleet odd: a machine that is slow, one with a boot parameter of its own.
func FleetOdd() *record.FleetOdd {
	slow, fast := 49.8, -30.1
	at := time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)
	labels := map[string]string{"cpu": "AMD EPYC", "microcode": "0x1000065", "kernel": "6.18.5", "virtual": "none"}
	return &record.FleetOdd{
		Document: fleetDocument("fleet-odd",
			record.FleetOddRow{
				Name: "edge-4", Machine: "0000000489abcdef0123456789abcdef", Run: "RUN4", At: at, Labels: labels, Twins: 211,
				Fields: []record.FleetField{}, Lost: &slow,
				Prices: []record.FleetLimit{{Row: "redirect/bulk=16", Ns: 149.7, Median: 99.9, Low: 95.1, High: 104.7}},
			},
			record.FleetOddRow{
				Name: "edge-3", Machine: "0000000389abcdef0123456789abcdef", Run: "RUN3", At: at, Labels: labels, Twins: 211,
				Fields: []record.FleetField{
					{Name: "indirect", Value: "none", Usual: "retpoline", Share: 0.995},
					{Name: "boot-params", Value: "mitigations=off", Share: 0.995},
					{Name: "mitigations", Value: "mds: Not affected; spectre_v2: Vulnerable", Usual: "mds: Not affected; spectre_v2: Retpolines",
						Share: 0.995},
				},
				Prices: []record.FleetLimit{}, Lost: &fast,
			}),
		FleetHead: fleetHead(), Twins: []string{"cpu", "microcode", "kernel", "virtual"}, Compared: 1196, Alone: 8, Unjudged: 5, LeftOut: 1,
	}
}

// FleetCompare is an answer of fleet compare: a redirect that is slower, a call that cannot be told, one that too few measured.
func FleetCompare() *record.FleetCompare {
	needed := 14
	d := func(median, half, p, smallest float64) *stat.Difference {
		return &stat.Difference{Median: median, Low: median - half, High: median + half, P: p, N: 20, Smallest: smallest, Unit: "percent"}
	}
	doc := &record.FleetCompare{
		Document: fleetDocument("fleet-compare",
			record.FleetCompareRow{Name: "direct-call", Base: overMachines(1.2, 0.1, 20), Canary: overMachines(1.3, 0.1, 20),
				Difference: d(8.3, 2, 0.001, 3), Verdict: stat.Slower, Reference: true, Needed: &needed},
			record.FleetCompareRow{Name: "callback/loop", Base: overMachines(8.2, 0.1, 20), Canary: overMachines(8.3, 0.1, 20),
				Difference: d(1.2, 2, 0.4, 3), Verdict: stat.CannotTell},
			record.FleetCompareRow{Name: "map-lookup/lpm", Base: overMachines(8.8, 0.1, 4), Canary: overMachines(8.9, 0.1, 3),
				Missing: "4 and 3 machines have the number: 6 of each side have to"},
			record.FleetCompareRow{Name: "redirect/bulk=1", Base: overMachines(343, 9, 4), Canary: overMachines(350, 9, 3),
				Missing: "4 and 3 machines have the number: 6 of each side have to"},
			record.FleetCompareRow{Name: "redirect/bulk=16", Base: overMachines(99.9, 1, 20), Canary: overMachines(107, 1, 20),
				Difference: d(7.1, 0.7, 0.0001, 0.8), Verdict: stat.Slower, Regression: true, Needed: &needed}),
		FleetHead: fleetHead(), Base: "kernel=6.12.57", Canary: "kernel=6.18.5", BaseMachines: 1180, CanaryMachines: 24, Paired: 20,
		Design: "paired", Unmatched: 4, Threshold: 2,
	}
	doc.Where = ""
	doc.Warn("direct-call", "a direct call takes longer too, and both sides return alike: the machines or their clocks changed")
	return doc
}

// FleetIngest is what fleet ingest did with 1210 documents.
func FleetIngest() *record.FleetIngest {
	return &record.FleetIngest{
		Document: fleetDocument("fleet-ingest",
			record.FleetRefusal{Name: record.RefusedTruncated, Count: 3, Example: "records/edge-9/a.json: truncated: the JSON ends in the middle"},
			record.FleetRefusal{Name: record.RefusedForeign, Count: 1, Example: "stdin: not a record of unthunk"}),
		Documents: 1210, New: 1200, Known: 6, Ahead: 2, FleetShared: fleetHead().FleetShared,
	}
}
