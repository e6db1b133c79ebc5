package page

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// hostile puts a string wherever a record may hold one.
func hostile(t testing.TB, s string) []*record.Saved {
	t.Helper()
	records := everyRecord(t)
	bad := s + strings.Repeat("x", 40)
	for _, r := range records {
		r.File = s + r.File
		r.Run, r.Settings = s, map[string]string{s: s, "path": s, "scenario": s, "bulk": s}
		r.Host = host.Fingerprint{CPU: s, Kernel: s, Compiler: s, BootParams: s, Mitigations: map[string]string{s: s},
			IndirectThunk: s, CallSites: s, ReturnThunk: s, Drivers: map[string]string{s: s}}
		r.Warnings = append(r.Warnings, record.Warning{Row: s, Text: bad})
		if r.Bench() != nil {
			for i := range r.Bench().Rows {
				r.Bench().Rows[i].Name = s + "/bulk=" + s
			}
			r.Bench().Rows = append(r.Bench().Rows, record.BenchRow{Name: bad, Refused: bad})
		}
		if p := r.Stages(); p != nil {
			for i := range p.Rows {
				p.Rows[i].Name = s
			}
			for i := range p.Functions {
				p.Functions[i].Name, p.Functions[i].Stage = s, s
			}
			for i := range p.Tax.Sites {
				p.Tax.Sites[i].Function, p.Tax.Sites[i].Pointer, p.Tax.Sites[i].Targets, p.Tax.Sites[i].Stage = s, &bad,
					[]string{s}, s
			}
			for i := range p.Stacks {
				p.Stacks[i].Frames, p.Stacks[i].Stage = []string{s, bad}, s
			}
			p.Sampling.Event = s
		}
		for i := range r.Prices() {
			row := &r.Prices()[i]
			row.Name, row.Target, row.Note, row.Premise = s, s, s, s
		}
		if r.Sites() != nil {
			for i := range r.Sites().Rows {
				row := &r.Sites().Rows[i]
				row.Name, row.Function, row.Pointer, row.Kind, row.Stage, row.Thunk, row.Targets = s, s, &bad, s, s, s,
					[]string{s}
			}
			r.Sites().Code[0].Name, r.Sites().Code[0].Lines[0].Text, r.Sites().Code[0].Lines[0].Note = s, s, s
		}
		if r.Lab() != nil {
			for i := range r.Lab().Rows {
				row := &r.Lab().Rows[i]
				row.Name, row.Release, row.Thunk = s, s, s
				for j := range row.Sites {
					row.Sites[j].Function, row.Sites[j].Stage, row.Sites[j].Target, row.Sites[j].Pointer = s, s, s, s
				}
			}
			r.Lab().Differences[0].With, r.Lab().Differences[0].Without = s, s
		}
		if c := r.Comparison(); c != nil {
			c.Old.File, c.New.File = s, s
			c.Rows[0].Name, c.Rows[0].Against, c.Rows[0].Verdict = s, s, s
			c.Causes = []record.Cause{{Name: s, Old: &bad, New: &bad, Why: s}}
		}
		if c := r.SiteComparison(); c != nil {
			c.Rows[0].Name, c.Rows[0].What, c.Rows[0].Change = s, []string{s}, s
		}
		if c := r.LabComparison(); c != nil {
			c.Rows[0].Name, c.Rows[0].What = s, []string{s}
		}
	}
	return records
}

// Strings of records stay text, in every format.
func TestPageHostile(t *testing.T) {
	t.Parallel()
	text := string(pageOf(t, Source{Records: hostile(t, reporttest.Evil),
		History: reporttest.HostileTrends(t, reporttest.Evil), Version: reporttest.Evil}))
	text = strings.ReplaceAll(text, "https://evil", "") // as text it may stand there
	checkHTML(t, []byte(strings.ReplaceAll(text, "javascript:alert", "")))

	d := Source{Records: hostile(t, reporttest.Evil+"\x1b[31m\u202e\n# x"),
		History: reporttest.HostileTrends(t, reporttest.Evil), Version: reporttest.Evil}
	var b bytes.Buffer
	if err := Markdown(t.Context(), &b, d); err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"<script", "<img", "@maintainer", "https://", "](javascript", "\x1b", "\u202e",
		"\n# x"} {
		if strings.Contains(strings.NewReplacer(`\<`, `\`, `\]`, `\`).Replace(b.String()), not) {
			t.Errorf("Markdown has %q", not)
		}
	}
	b.Reset()
	d.Records = hostile(t, "=cmd()\"\n,")
	if err := CSV(t.Context(), &b, d); err != nil {
		t.Fatal(err)
	}
	for _, line := range readCSV(t, b.Bytes()) {
		for _, cell := range line {
			if strings.HasPrefix(cell, "=") {
				t.Fatalf("a formula: %q", cell)
			}
		}
	}
}
