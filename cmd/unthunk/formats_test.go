package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/result"
	"github.com/unthunk/unthunk/internal/stat"
)

// Every field of every document has a line in its section of docs/formats.md, and
// every line there is of a field.
func TestFormats(t *testing.T) {
	sections := readSections(t, filepath.Join("..", "..", "docs", "formats.md"))
	document := fieldsOf(result.Document[result.BenchRow]{})
	for _, section := range []struct {
		name  string
		types []any
	}{
		{"Document", []any{result.Document[result.BenchRow]{}, result.Warning{}}},
		{"Fingerprint", []any{host.Fingerprint{}}},
		{"Quantity", []any{stat.Quantity{}}},
		{"Difference", []any{stat.Difference{}}},
		{"bench", []any{result.BenchRow{}, result.Counts{}}},
		{"run", []any{result.Verdict{}, result.Gain{}}},
		{"tax", []any{result.TaxRow{}}},
		{"profile", []any{result.ProfileRow{}, result.ProfileParts{}, result.Sampling{}, result.ProfileFunction{}, result.ProfileCounter{}, result.ProfileStack{}, result.ProfileTax{}, result.ProfileSite{}}},
		{"xray", []any{result.SiteRow{}, result.PartialFunction{}, result.Listing{}, result.ListingLine{}}},
		{"drivers", []any{result.DriverRow{}, result.DriverCalls{}}},
		{"lab", []any{result.Lab{}, result.LabRow{}, result.LabSite{}, result.LabFunction{}, result.LabDMA{}, result.LabDifference{}, result.Counts{}}},
		{"check", []any{host.Finding{}}},
		{"compare", []any{result.Comparison{}, result.CompareRow{}, result.ProfileComparison{}, result.ProfileChange{}, result.SiteComparison{}, result.SiteChange{}, result.LabComparison{}, result.LabChange{}, result.Origin{}, result.Cause{}}},
		{"history", []any{result.History{}, result.HistoryGroup{}, result.LeftFile{}, result.HistoryRow{}, result.HistoryPoint{}, result.HistoryChange{}, result.Origin{}, result.Cause{}}},
		{"forward", []any{forwardDocument{}, forwardRow{}, forward.Drop{}}},
		{"version", []any{buildFacts{}}},
	} {
		var want []string
		for _, v := range section.types {
			for _, field := range fieldsOf(v) {
				// The head of a record is in the first section only, unless a
				// row has a field of the same name.
				if section.name != "Document" && embedsDocument(v) && slices.Contains(document, field) {
					continue
				}
				want = append(want, field)
			}
		}
		got := sections[section.name]
		for _, field := range want {
			if !slices.Contains(got, field) {
				t.Errorf("formats.md, section %s: field %q has no line", section.name, field)
			}
		}
		for _, field := range got {
			if !slices.Contains(want, field) {
				t.Errorf("formats.md, section %s: no field is called %q", section.name, field)
			}
		}
		delete(sections, section.name)
	}
	for name := range sections {
		t.Errorf("formats.md, section %s: no type is checked against it", name)
	}
}

// readSections are the fields in the tables of each section that has some.
func readSections(t *testing.T, path string) map[string][]string {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	field := regexp.MustCompile("^\\| `([a-z0-9-]+)` \\|")
	sections := make(map[string][]string)
	name := ""
	for _, line := range strings.Split(string(b), "\n") {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			name = heading
		} else if m := field.FindStringSubmatch(line); m != nil {
			sections[name] = append(sections[name], m[1])
		}
	}
	return sections
}

func embedsDocument(v any) bool {
	f, ok := reflect.TypeOf(v).FieldByName("Schema")
	return ok && len(f.Index) > 1
}

// fieldsOf are the names of the fields that v has in JSON: by their tags, and for a
// type that marshals itself without tags what it writes.
func fieldsOf(v any) []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		return names
	}
	var fields map[string]any
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &fields)
	}
	if err != nil {
		panic(err)
	}
	for name := range fields {
		names = append(names, name)
	}
	return names
}
