package progcode

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// A record has room for so many rows: calls that are direct go first, and what the source
// says is cleaned so that the record can be read again.
func TestRecordLimits(t *testing.T) {
	t.Parallel()
	evil := "\x1b[2J" + strings.Repeat("x", 2000) + "\xff"
	c := &Code{
		Name: evil, Functions: []Function{{Name: evil}}, Maps: []Map{{ID: 7, Name: evil}}, Returns: branch.Returns{"ret": 1},
		Unseen: evil, Hidden: evil, Unpaired: 3,
	}
	for i := range record.MaxRows + 50 {
		s := Site{Offset: int64(i), Kind: KindHelper, Made: "direct", Calls: evil, Line: &Line{File: evil, Number: i, Text: evil}}
		if i%100 == 99 {
			s.Kind, s.Made, s.Indirect, s.Maps = KindTailCall, "retpoline", true, []int{0}
		}
		c.Sites = append(c.Sites, s)
	}
	doc := c.Record(host.Fingerprint{})
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := record.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	indirect := 0
	for _, row := range saved.ProgXray().Rows {
		if row.Indirect {
			indirect++
		}
	}
	if n := len(saved.ProgXray().Rows); n != record.MaxRows || indirect != (record.MaxRows+50)/100 {
		t.Errorf("%d rows, %d of them indirect", n, indirect)
	}
	var warnings []string
	for _, w := range saved.Warnings {
		warnings = append(warnings, w.Text)
	}
	for _, want := range []string{"50 places are left out", "not seen: ", "which maps are looked into is not known", "in 3 places"} {
		if !strings.Contains(strings.Join(warnings, "\n"), want) {
			t.Errorf("no %q in %q", want, warnings)
		}
	}
}

// Of a source line of megabytes, which may be that of many places, no copy is made.
func TestRecordLongText(t *testing.T) {
	c := &Code{Functions: []Function{{Name: "main"}}}
	long := &Line{File: "a.c", Number: 1, Text: strings.Repeat("x", 4<<20)}
	for range 100 {
		c.Sites = append(c.Sites, Site{Kind: KindHelper, Line: long})
	}
	testutil.Allocates(t, 1<<20, func() {
		if doc := c.Record(host.Fingerprint{}); len(doc.Rows) != 100 || len(doc.Rows[0].Source.Text) != maxText+len("…")-1 {
			t.Errorf("%d rows, %+v", len(doc.Rows), doc.Rows[0].Source)
		}
	})
}

// Rows of one name are numbered; a map without a name goes by its id.
func TestRecordNames(t *testing.T) {
	t.Parallel()
	site := Site{Kind: KindLookup, Made: Inline, Offset: -1, Maps: []int{0}}
	c := &Code{Functions: []Function{{Name: "main"}}, Maps: []Map{{ID: 7}}, Sites: []Site{site, site}}
	var names []string
	for _, row := range c.Record(host.Fingerprint{}).Rows {
		names = append(names, row.Name)
	}
	if got := fmt.Sprint(names); got != "[main/lookup map 7 main/lookup map 7#2]" {
		t.Error(got)
	}
}
