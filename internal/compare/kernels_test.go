package compare

import (
	"fmt"
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
)

// Rows that differ in their kernel and bulk alone belong together, the kernels by their releases; a step is between two that
// follow one another and were traced.
func TestKernels(t *testing.T) {
	t.Parallel()
	l, other := new(record.Lab), new(record.Lab)
	count := func(kernel, of, bulk, arch string) record.LabRow {
		n := 1000.0
		return record.LabRow{Name: kernel + of + "/bulk=" + bulk, Labels: map[string]string{"kernel": kernel, "bulk": bulk},
			Instructions: &n, CallsPerPacket: &n, Build: &record.LabBuild{Arch: arch}}
	}
	traced := func(kernel string) record.LabRow {
		row := count(kernel, "", "16", "amd64")
		row.Trace = &record.LabTrace{Packets: 1, Executed: 1000, Functions: []record.LabTraceFunction{
			{Function: "veth_poll", Stage: "receive", Executed: 1000, Inclusive: 1000}}}
		return row
	}
	l.Rows = []record.LabRow{traced("debian:6.12-cloud"), traced("debian:6.1-cloud")}
	between := count("debian:6.11-cloud", "", "16", "amd64") // without a trace
	l.Rows = slices.Insert(l.Rows, 1, between,
		count("debian:6.1-cloud", "", "2", "amd64"), count("debian:6.1-cloud", "/cpu=EPYC", "16", "amd64"))
	other.Rows = []record.LabRow{count("debian:6.1-cloud-arm64", "", "16", "arm64"), count("debian:6.12-cloud-arm64", "", "16", "arm64"),
		{Name: "debian:6.1-cloud/prog=x/all", Labels: map[string]string{"kernel": "debian:6.1-cloud", "prog": "x"},
			Program: &record.LabProgram{}}}
	all := Kernels([]*record.Lab{l, other})
	var got []string
	for _, h := range all {
		text := fmt.Sprintf("%s %q %v:", h.Arch, h.Of, h.Bulks)
		for _, k := range h.Kernels {
			text += fmt.Sprintf(" %s %d", k.Name, len(k.Rows))
		}
		got = append(got, text)
	}
	want := []string{`amd64 "" [2 16]: debian:6.1-cloud 2 debian:6.11-cloud 1 debian:6.12-cloud 1`,
		`arm64 "" [16]: debian:6.1-cloud-arm64 1 debian:6.12-cloud-arm64 1`}
	if !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
	steps := all[0].Steps["16"]
	if len(steps) != 1 || steps[0].Old.Name != "debian:6.1-cloud/bulk=16" || steps[0].New.Name != "debian:6.12-cloud/bulk=16" ||
		len(all[0].Steps["2"]) > 0 {
		t.Errorf("steps %+v", all[0].Steps)
	}
	if row := all[0].Kernels[1].Any(all[0].Bulks); row == nil || row.Name != between.Name {
		t.Errorf("a row of a kernel: %+v", row)
	}
	// The step to a kernel is from the last one of its compiler.
	other.Rows = []record.LabRow{traced("debian:6.1-cloud"), traced("debian:6.12-cloud"), traced("debian:7.2-cloud")}
	for i, compiler := range []string{"gcc 14.2.0 (Debian)", "gcc 16.2.0 (Debian)", "gcc 14.2.0 (Debian 14.2.0-19)"} {
		other.Rows[i].Build = &record.LabBuild{Compiler: compiler}
	}
	steps = Kernels([]*record.Lab{other})[0].Steps["16"]
	if len(steps) != 2 || steps[0].Old.Name != other.Rows[0].Name || steps[1].Old.Name != other.Rows[0].Name ||
		steps[1].New.Name != other.Rows[2].Name {
		t.Errorf("steps of two compilers: %+v", steps)
	}
	l.Rows = l.Rows[:1]
	if all := Kernels([]*record.Lab{l}); len(all) > 0 {
		t.Errorf("of one kernel: %+v", all)
	}
}

// A row is of the kernel that its name was then, at one bulk once, and of the architecture of its guest, which a refused one says
// by its release or its name; a compiler that is not known is none that two share.
func TestKernelsApart(t *testing.T) {
	t.Parallel()
	n := 1000.0
	row := func(kernel, release, refused string) record.LabRow {
		r := record.LabRow{Name: kernel + "/bulk=16", Labels: map[string]string{"kernel": kernel, "bulk": "16"}, Release: release,
			Refused: refused}
		if refused == "" {
			r.Instructions, r.CallsPerPacket, r.Trace = &n, &n, &record.LabTrace{Packets: 1}
		}
		return r
	}
	with := func(r record.LabRow, compiler string) record.LabRow {
		r.Build = &record.LabBuild{Arch: "amd64", Compiler: compiler}
		return r
	}
	first, second := new(record.Lab), new(record.Lab)
	first.Rows = []record.LabRow{row("debian:6.12-cloud", "6.12.57+deb13-cloud-amd64", ""), row("debian:6.1-cloud", "6.1.0-amd64", "no boot"),
		row("debian:6.12-cloud-arm64", "", "no boot"), row("vmlinux", "6.13.1-arm64", "no boot")}
	second.Rows = []record.LabRow{row("debian:6.12-cloud", "6.12.86+deb13-cloud-amd64", ""), row("debian:6.1-cloud", "6.1.0-amd64", ""),
		row("debian:6.12-cloud", "6.12.57+deb13-cloud-amd64", ""), row("debian:6.1-cloud", "6.1.0-amd64", "it failed later")}
	all := Kernels([]*record.Lab{first, second})
	if len(all) != 1 || all[0].Arch != "amd64" || len(all[0].Kernels) != 3 || all[0].Repeated != 3 {
		t.Fatalf("%+v", all)
	}
	for i, want := range []*record.LabRow{&second.Rows[1], &first.Rows[0], &second.Rows[0]} {
		if k := all[0].Kernels[i]; k.Rows["16"] != want || k.Release != want.Release {
			t.Errorf("kernel %d is %s %s: %p, want %p", i, k.Name, k.Release, k.Rows["16"], want)
		}
	}
	if steps := all[0].Steps["16"]; len(steps) != 2 || steps[1].Old != &first.Rows[0] || steps[1].New != &second.Rows[0] {
		t.Errorf("steps %+v", steps)
	}
	// What is known of no compiler is compared with the last.
	first.Rows = []record.LabRow{row("a", "6.1", ""), with(row("b", "6.2", ""), "gcc 14"), row("c", "6.3", ""),
		with(row("d", "6.4", ""), "gcc 14")}
	for i, want := range []int{0, 1, 1} {
		if step := Kernels([]*record.Lab{first})[0].Steps["16"][i]; step.Old != &first.Rows[want] {
			t.Errorf("step %d is from %s", i, step.Old.Name)
		}
	}
	// A history has a limit, and says what it left out.
	first.Rows = nil
	for i := range maxKernels + 3 {
		first.Rows = append(first.Rows, row("debian:6", fmt.Sprintf("6.%d", i), ""))
	}
	if h := Kernels([]*record.Lab{first})[0]; len(h.Kernels) != maxKernels || h.Older != 3 || h.Kernels[0].Release != "6.3" {
		t.Errorf("%d kernels from %s, %d older", len(h.Kernels), h.Kernels[0].Release, h.Older)
	}
}
