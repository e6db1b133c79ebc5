package page

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// kernelSource is a record of three kernels, of which the first was refused.
func kernelSource(t *testing.T) Source {
	t.Helper()
	l := reporttest.Traced()
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
			for _, d := range step.Functions {
				sum += d.Difference
			}
			if sum != step.Difference {
				t.Errorf("functions add up to %v, not to %v", sum, step.Difference)
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
		"150.7  ◆ 0.125", "no number"} {
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
