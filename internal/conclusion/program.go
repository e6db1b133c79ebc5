package conclusion

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/record"
)

// programHeadline says how many indirect branches a program may run, and what to change.
func programHeadline(doc *record.ProgXray) Headline {
	own, within := 0, 0
	for i := range doc.Rows {
		if doc.Rows[i].Indirect {
			own++
		} else if doc.Rows[i].Within > 0 {
			within++
		}
	}
	h := Headline{Title: fmt.Sprintf("Program %s has %s in its code, and %s of a function that has one in its own", doc.Program.Name,
		many(own, "indirect branch"), many(within, "call"))}
	for _, c := range doc.Changes {
		h.Text += c.Text + "\n"
	}
	return h
}
