package record_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
)

// A program on a device runs what its tables hold, and what the tables of those hold; not what tables of others do.
func TestReached(t *testing.T) {
	t.Parallel()
	var d record.ProgramList
	d.Rows = []record.ProgramRow{
		{ID: 1, Attached: []record.Attachment{{}}, MapIDs: []uint32{10}, Parts: []uint32{5}},
		{ID: 2, MapIDs: []uint32{10, 11}}, {ID: 3}, {ID: 4, MapIDs: []uint32{12}}, {ID: 5}, {ID: 6},
	}
	d.Maps = []record.ProgramMap{
		{ID: 10, Programs: []record.HeldProgram{{Program: 2}, {Program: 99}}}, // 99 was gone when it was looked at
		{ID: 11, Programs: []record.HeldProgram{{Program: 3}, {Program: 2}}},
		{ID: 12, Programs: []record.HeldProgram{{Program: 6}}},
	}
	if got := slices.Sorted(maps.Keys(d.Reached())); !slices.Equal(got, []uint32{1, 2, 3, 5}) {
		t.Errorf("reached: %v", got)
	}
}
