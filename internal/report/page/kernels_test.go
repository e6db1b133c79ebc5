package page

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// kernelSource is a record of three kernels, of which the first was refused.
func kernelSource(t *testing.T) Source {
	t.Helper()
	l := reporttest.Traced()
	for i := range l.Rows {
		l.Rows[i].Build = &record.LabBuild{Compiler: "gcc 12.2.0 (Debian)"}
	}
	old := record.LabRow{Name: "debian:5.10-cloud/bulk=16", Release: "5.10.0-46-cloud-amd64",
		Refused: "live frames are missing: needs Linux 5.18",
		Labels:  map[string]string{"kernel": "debian:5.10-cloud", "bulk": "16"}, Build: &record.LabBuild{Compiler: "gcc 10.2.1 (Debian)"}}
	for label, value := range l.Rows[0].Labels {
		if old.Labels[label] == "" {
			old.Labels[label] = value
		}
	}
	l.Rows = append([]record.LabRow{old}, l.Rows...)
	return Source{Records: []*record.Saved{savedAs(t, "lab.json", l)}, Kernels: compare.Kernels([]*record.Lab{l})}
}

// Counts of several kernels are a section: how many, where, and what moved; its numbers add up.
func TestKernels(t *testing.T) {
	t.Parallel()
	src := kernelSource(t)
	page := string(pageOf(t, src))
	for _, want := range []string{"From kernel to kernel", "A packet takes 150.6875 instructions on Linux 6.1.0 and", "at bulk 16",
		"The largest step of one compiler&#39;s is from 6.1.0 to 6.12.117", "which functions moved", "needs Linux 5.18", kernelsTitle} {
		if !strings.Contains(page, want) {
			t.Errorf("page: no %q", want)
		}
	}
	src.Section = "kernels"
	var b bytes.Buffer
	if err := Markdown(t.Context(), &b, src); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"5.10.0-46-cloud-amd64      | gcc 10.2.1 |           – |", "by kernel and bulk:", "*6.1.0 to 6.12.117*",
		"page_pool_put_unrefed_netmem, was page_pool_put_defragged_page", "5.10.0-46-cloud-amd64: no number: live frames are missing"} {
		if !strings.Contains(text, want) {
			t.Errorf("Markdown: no %q in\n%s", want, text)
		}
	}
	for _, not := range []string{"# ", "Made by", "Machines"} {
		if strings.HasPrefix(text, not) || strings.Contains(text, "\n"+not) {
			t.Errorf("Markdown of a section has %q", not)
		}
	}
	stages := stageTable(&src.Kernels[0], "16")
	if last := stages.Rows[len(stages.Rows)-1].Cells; last[0].Text != "all" || last[1].Text != "150.6875" {
		t.Errorf("stages: %+v", last)
	}
	for _, h := range src.Kernels {
		for _, step := range h.Steps["16"] {
			sum := 0.0
			for _, d := range step.Change.Functions {
				sum += d.Difference
			}
			if sum != step.Change.Difference {
				t.Errorf("functions add up to %v, not to %v", sum, step.Change.Difference)
			}
		}
	}
	src.Section = "ladder"
	err := Markdown(t.Context(), io.Discard, src)
	if err == nil || !strings.Contains(err.Error(), `nothing for section "ladder": there are kernels`) {
		t.Errorf("a section that is not there: %v", err)
	}
}

// The figure is a file of its own where there are more rows than a flame graph has.
func TestKernelsFile(t *testing.T) {
	t.Parallel()
	src := kernelSource(t)
	l := src.Records[0].Lab()
	for i := range l.Rows {
		l.Rows[i].Trace = nil
	}
	var b bytes.Buffer
	if err := SVG(t.Context(), &b, src); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`<svg xmlns="http://www.w3.org/2000/svg"`, "prefers-color-scheme:dark", ">6.12.117<",
		"150.7  ◆ 0.125", "no number", ">Of amd64.<"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in %s", want, b.String())
		}
	}
	for d := xml.NewDecoder(&b); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A kernel that was not counted at a bulk has no count there; one that was, and does not go through a place, has 0. A stage is that of
// what a branch enters.
func TestKernelPlaces(t *testing.T) {
	t.Parallel()
	n := 100.0
	row := func(kernel, bulk string, sites ...record.LabSite) record.LabRow {
		return record.LabRow{Name: kernel + "/bulk=" + bulk, Labels: map[string]string{"kernel": kernel, "bulk": bulk}, Release: kernel,
			Instructions: &n, CallsPerPacket: &n, Sites: sites}
	}
	poll := record.LabSite{Function: "__napi_poll", Target: "veth_poll", Stage: "receive", PerPacket: 1}
	other := record.LabSite{Function: "__napi_poll", Target: "gro_poll", Stage: "transmit", PerPacket: 2}
	bare := row("6.3", "1")
	bare.Instructions, bare.CallsPerPacket, bare.Refused = nil, nil, "not measured"
	l := &record.Lab{}
	l.Rows = []record.LabRow{row("6.1", "1", poll), row("6.2", "1", other), row("6.1", "16", other, poll), bare, row("6.3", "16", poll)}
	h := compare.Kernels([]*record.Lab{l})[0]
	for range 20 { // whatever the order of maps is
		var got []string
		for _, r := range placeTable(&h).Rows {
			var line []string
			for _, c := range r.Cells {
				line = append(line, c.Text)
			}
			got = append(got, strings.Join(line, " "))
		}
		want := []string{"1 transmit __napi_poll → gro_poll 0 2 –", "1 receive __napi_poll → veth_poll 1 0 –",
			"16 transmit __napi_poll → gro_poll 2 – 0", "16 receive __napi_poll → veth_poll 1 – 1"}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
	}
}

// Indirect branches add up to the same bytes each time.
func TestBranchesOf(t *testing.T) {
	t.Parallel()
	calls := 1.0
	row := &record.LabRow{CallsPerPacket: &calls}
	for i := range 12 {
		row.Sites = append(row.Sites, record.LabSite{Function: fmt.Sprintf("f%d", i), PerPacket: 0.1 * float64(i*i+1)})
	}
	first := *branchesOf(row)
	for range 50 {
		if again := *branchesOf(row); again != first {
			t.Fatalf("%v, and then %v", first, again)
		}
	}
}

// Kernels, bulks and reasons without limit make a page with one, which says what it leaves out.
func TestKernelsMany(t *testing.T) {
	t.Parallel()
	n := 100.0
	l := reporttest.Traced()
	l.Rows = nil
	for i := range 1500 {
		kernel, bulk := fmt.Sprintf("6.%d", i/2), fmt.Sprint(i)
		row := record.LabRow{Name: kernel + "/bulk=" + bulk, Labels: map[string]string{"kernel": kernel, "bulk": bulk}, Release: kernel,
			Sites: []record.LabSite{}, Functions: []record.LabFunction{}}
		if i%2 == 0 && i < 1450 {
			row.Refused = fmt.Sprintf("reason %d", i)
		} else {
			row.Instructions, row.CallsPerPacket = &n, &n
		}
		l.Rows = append(l.Rows, row)
	}
	src := Source{Records: []*record.Saved{savedAs(t, "lab.json", l)}, Kernels: compare.Kernels([]*record.Lab{l})}
	counts := kernelCounts(src.Kernels)
	if len(counts.Columns) != 2+2*maxBulks {
		t.Errorf("%d columns", len(counts.Columns))
	}
	for _, want := range []string{"112 bulks without a column.", "686 older kernels left out.", "6.686: no number: reason 1372.",
		"And 23 kernels more without a number."} {
		if !strings.Contains(counts.Remark, want) {
			t.Errorf("no %q in %s", want, counts.Remark)
		}
	}
	var b bytes.Buffer
	if err := SVG(t.Context(), &b, src); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "And 48 more.") || b.Len() > 1<<20 {
		t.Errorf("a figure of %d bytes", b.Len())
	}
}

// The headline's step is the tables': to a kernel from the last of its compiler.
func TestKernelsHeadline(t *testing.T) {
	t.Parallel()
	l := &record.Lab{}
	for i, test := range []struct {
		compiler string
		n        float64
	}{{"gcc 14 (a)", 100}, {"gcc 16", 500}, {"gcc 14 (b)", 130}, {"", 900}, {"", 2000}} {
		kernel := fmt.Sprintf("6.%d", i)
		l.Rows = append(l.Rows, record.LabRow{Name: kernel + "/bulk=16", Labels: map[string]string{"kernel": kernel, "bulk": "16"},
			Release: kernel + ".9+deb13-amd64", Instructions: &test.n, CallsPerPacket: &test.n, Build: &record.LabBuild{Compiler: test.compiler}})
	}
	h := conclusion.OfKernels(&compare.Kernels([]*record.Lab{l})[0])
	if want := "The largest step of one compiler's is from 6.0.9 to 6.2.9: +30."; h.Text != want {
		t.Errorf("%q, want %q", h.Text, want)
	}
}
