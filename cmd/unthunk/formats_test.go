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
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Every field of every document has a line in its section of docs/formats.md, and
// every line there is of a field.
func TestFormats(t *testing.T) {
	sections := readSections(t, filepath.Join("..", "..", "docs", "formats.md"))
	document := fieldsOf(record.Document[record.BenchRow]{})
	for _, section := range []struct {
		name  string
		types []any
	}{
		{"Document", []any{record.Document[record.BenchRow]{}, record.Warning{}}},
		{"Fingerprint", []any{host.Fingerprint{}}},
		{"Quantity", []any{stat.Quantity{}}},
		{"Reference", []any{record.Reference{}}},
		{"Difference", []any{stat.Difference{}}},
		{"bench", []any{record.BenchRow{}, record.Counts{}, record.Verdicts{}, record.QueueCount{}, record.LostFrames{}}},
		{"run", []any{record.Conclusion{}, record.Gain{}}},
		{"tax", []any{record.TaxRow{}}},
		{"profile", []any{record.ProfileRow{}, record.ProfileParts{}, record.ProfileOutside{}, record.Sampling{}, record.ProfileFunction{},
			record.ProfileLine{},
			record.ProfileCounter{}, record.ProfileStack{}, record.ProfileTax{}, record.ProfileSite{}}},
		{"xray", []any{record.SiteRow{}, record.SiteCounts{}, record.PartialFunction{}, record.Listing{}, record.ListingLine{}}},
		{"code", []any{record.Code{}, record.ListingLine{}, record.CodeBranch{}, record.CodeTotals{}}},
		{"drivers", []any{record.DriverRow{}, record.DriverCalls{}}},
		{"what-if", []any{record.WhatIf{}, record.WhatIfRow{}, record.WhatIfCounts{}, record.WhatIfCall{}, record.WhatIfFirst{},
			record.WhatIfWithout{}, record.Range{}}},
		{"lab", []any{record.Lab{}, record.LabRow{}, record.LabBuild{}, record.LabSite{}, record.LabPlace{},
			record.LabFunction{}, record.LabDMA{},
			record.LabDifference{}, record.LabProgram{}, record.Counts{},
			record.LabTrace{}, record.LabTraceFunction{}, record.LabTraceBranch{}, record.LabTraceLine{},
			record.LabTraceInstruction{}, record.LabTraceStack{}, record.LabTraceChange{}, record.LabTraceDifference{}}},
		{"prog-list", []any{record.ProgramList{}, record.ProgramRow{}, record.Attachment{}, record.MapEntry{}, record.ProgramMap{},
			record.HeldProgram{}, record.Observer{}, record.Process{}, record.Namespace{}, record.DispatcherState{}, record.Statistics{},
			record.ProgramCost{}}},
		{"prog-record", []any{progSample{}}},
		{"check", []any{host.Finding{}}},
		{"prog-xray", []any{record.ProgXray{}, record.ProgSiteRow{}, record.SourceLine{}, record.ProgXrayProgram{}, record.ProgXrayFunction{},
			record.ProgXrayMap{}, record.ProgXrayDispatcher{}, record.ProgXrayChange{}}},
		{"prog-code", []any{record.ProgCode{}, record.ProgListing{}, record.ProgListingLine{}}},
		{"prog-cost", []any{record.ProgCost{}, record.CostParts{}, record.ProgramIdentity{}, record.PacketSource{}, record.CostRow{},
			record.CostLine{}}},
		{"prog-diff", []any{record.ProgDiffParts{}, record.BehaviorChange{}, record.CallChange{}}},
		{"prog-watch", []any{record.ProgWatch{}, record.WatchParts{}, record.WatchedProgram{}, record.SampleCost{}, record.WatchRow{},
			record.Sampling{}, record.ProfileStack{}}},
		{"agent", []any{record.AgentParts{}, record.Machine{}, record.AgentPath{}, record.ProgramCode{}, record.AgentRefusal{},
			record.AgentCost{}}},
		{"prog-watch-second", []any{watchSecond{}}},
		{"compare", []any{record.Comparison{}, record.CompareRow{}, record.ReferenceChange{}, record.ProfileComparison{}, record.ProfileChange{},
			record.SiteComparison{}, record.SiteChange{}, record.FindingComparison{}, record.FindingChange{},
			record.LabComparison{}, record.LabChange{}, record.Origin{}, record.Cause{}}},
		{"gate", []any{record.Gate{}, record.GateUnlike{}, record.GateRow{}, record.GateCount{}, record.GateChange{}, record.Origin{}}},
		{"fleet-ingest", []any{record.FleetIngest{}, record.FleetRefusal{}}},
		{"fleet-who", []any{record.FleetWho{}, record.FleetWhoRow{}, record.FleetNumber{}, record.FleetUnmeasured{}}},
		{"fleet-odd", []any{record.FleetOdd{}, record.FleetOddRow{}, record.FleetField{}, record.FleetLimit{}, record.FleetUnmeasured{}}},
		{"fleet-compare", []any{record.FleetCompare{}, record.FleetCompareRow{}, record.FleetUnmeasured{}}},
		{"history", []any{record.History{}, record.HistoryGroup{}, record.LeftFile{}, record.HistoryRow{},
			record.HistoryPoint{}, record.HistoryChange{}, record.Origin{}, record.Cause{}}},
		{"forward", []any{forwardDocument{}, forwardRow{}, forward.Drop{}, forward.Link{}, queueRow{}, passageRow{}, forward.Event{}}},
		{"forward-event", []any{forwardEvent{}}},
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
