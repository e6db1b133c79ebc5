package report

import (
	"bytes"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestProgramListGolden(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	hostile := reporttest.ProgramList()
	hostile.Rows[0].Program += "\x1b"
	hostile.Rows[0].Holders[0].Name += "\x1b"
	if err := ProgramList(&b, Options{Width: 80}, hostile); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n-- nothing there --\n")
	empty := &record.ProgramList{}
	empty.Rows, empty.Observers, empty.Dispatcher = nil, []record.Observer{}, &record.DispatcherState{}
	empty.Statistics.Holders = []record.Process{{PID: 5, Name: "top1"}}
	if err := ProgramList(&b, Options{Width: 80}, empty); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n-- without rights --\n")
	empty.Observers, empty.Dispatcher, empty.Statistics = nil, nil, record.Statistics{}
	empty.Unseen = []string{"links and observers: root is missing"}
	if err := ProgramList(&b, Options{Width: 40}, empty); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "proglist.txt", b.String())
}
