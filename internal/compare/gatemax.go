package compare

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// Allowance is how much more than a base a packet may take.
type Allowance struct {
	// Row is the place of a row; empty for all.
	Row string
	// Count is "instructions" or "indirect".
	Count string
	// More per packet, in percent of the base when Percent is set.
	More    float64
	Percent bool
}

// errAllowance is about the form of one.
var errAllowance = errors.New("say instructions=+N or indirect=+N, with N or N%, behind ROW: for one row")

// ParseAllowance reads "instructions=+4", "indirect=+0.5%" or "redirect-map/bulk=16:instructions=+4".
func ParseAllowance(s string) (Allowance, error) {
	fail := func(err error) (Allowance, error) { return Allowance{}, fmt.Errorf("%.80q: %w", s, err) }
	var a Allowance
	text := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		if a.Row, text = s[:i], s[i+1:]; a.Row == "" {
			return fail(errAllowance)
		}
	}
	count, more, ok := strings.Cut(text, "=")
	if !ok || count != "instructions" && count != "indirect" {
		return fail(errAllowance)
	}
	a.Count = count
	if more, ok = strings.CutPrefix(more, "+"); !ok {
		return fail(errors.New("say how much more than the base it may be, with a + before it"))
	}
	more, a.Percent = strings.CutSuffix(more, "%")
	n, err := strconv.ParseFloat(more, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > 1e9 || strings.ContainsAny(more, "xXpP_+-") {
		return fail(fmt.Errorf("%.40q is no number from 0 to 1e9", more))
	}
	a.More = n
	return a, nil
}

// allowed is how much more than base a count of a row may be: by the last allowance for the row, else by the last for
// all rows, else none.
func allowed(max []Allowance, row, count string, base float64) float64 {
	var all, own *Allowance
	for i := range max {
		switch a := &max[i]; {
		case a.Count != count:
		case a.Row == row:
			own = a
		case a.Row == "":
			all = a
		}
	}
	a := own
	if a == nil {
		a = all
	}
	switch {
	case a == nil:
		return 0
	case a.Percent:
		return a.More / 100 * base
	}
	return a.More
}

// knownRows refuses allowances for rows that a base does not have.
func knownRows(max []Allowance, base *record.Lab, place func(*record.LabRow) string) error {
	var names []string
	has := make(map[string]bool)
	for i := range base.Rows {
		if name := place(&base.Rows[i]); !has[name] {
			has[name] = true
			names = append(names, name)
		}
	}
	for _, a := range max {
		if a.Row != "" && !has[a.Row] {
			return fmt.Errorf("the base has no row %.80q: its rows are %s", a.Row, strings.Join(names[:min(len(names), 12)], ", "))
		}
	}
	return nil
}
