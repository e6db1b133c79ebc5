package recordtest

import "github.com/unthunk/unthunk/internal/record"

func Sites(rows ...record.SiteRow) *record.Document[record.SiteRow] {
	return &record.Document[record.SiteRow]{Head: record.Head{Schema: record.Schema, Kind: "xray",
		Run: record.NewRunID(), Settings: map[string]string{"path": "veth"}}, Rows: rows}
}

func Site(function, what, kind, per string) record.SiteRow {
	row := record.SiteRow{Name: function + "/" + what, Function: function, Kind: kind, Per: per, Stage: "transmit", Confidence: "certain"}
	if what != "unknown" {
		row.Pointer = &what
	}
	return row
}
