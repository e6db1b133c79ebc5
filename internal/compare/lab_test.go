package compare

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

func TestLabs(t *testing.T) {
	parse := func() *record.Lab {
		s, err := record.Parse([]byte(recordtest.LabJSON))
		if err != nil {
			t.Fatal(err)
		}
		return s.Lab()
	}
	old, new := parse(), parse()
	if c := Labs(old, new); c.Same != 1 || len(c.Rows) != 0 {
		t.Errorf("%+v", c)
	}
	new.Rows[0].Refused, new.Rows[0].Instructions = "it did not boot", nil
	if n, row := Labs(old, new).Lost(); n != 1 || row.Missing != "it did not boot" {
		t.Errorf("%d rows lost their number: %+v", n, row)
	}
	if n, _ := Labs(new, old).Lost(); n != 0 {
		t.Errorf("a row that got a number lost it")
	}
	new = parse()
	new.Rows[0].Instructions = nil
	if n, _ := Labs(old, new).Lost(); n != 1 {
		t.Errorf("a row without instructions lost no number")
	}
	new = parse()
	x := 10.5009765625
	new.Rows[0].Instructions = &x
	new.Rows[0].Sites[0].PerPacket = 2
	c := Labs(old, new)
	if len(c.Rows) != 1 || strings.Join(c.Rows[0].What, ", ") != "instructions: 10.5 → 10.5009765625, site f → g: 1 → 2" {
		t.Errorf("%+v", c.Rows)
	}
}
