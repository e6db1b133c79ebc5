package cells

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Signed is a difference of counts with all its digits, and its sign.
func Signed(x float64) string {
	if x >= 0 {
		return "+" + stat.Exact(x)
	}
	return stat.Exact(x)
}

// NamedCount is a count of a gate by its name.
type NamedCount struct {
	Name string
	*record.GateCount
}

// GateCounts are the counts that a row of a gate has.
func GateCounts(r *record.GateRow) (counts []NamedCount) {
	for _, c := range []NamedCount{{"instructions", r.Instructions}, {"indirect", r.Indirect}} {
		if c.GateCount != nil {
			counts = append(counts, c)
		}
	}
	return counts
}

// Allowed is how much more a count may be.
func Allowed(c *record.GateCount) string {
	text := Signed(c.Allowed)
	if c.Spread > 0 {
		text += " ±" + stat.Exact(c.Spread)
	}
	return text
}

// GateChange is an indirect branch, or a function, that two kernels execute another number of times.
func GateChange(c *record.GateChange) (change, what, ns string) {
	what = c.Function
	if c.Target != "" {
		what += " → " + c.Target
	}
	if c.Part != "" {
		what = c.Part + ": " + what
	}
	what = fmt.Sprintf("%s, %s → %s", what, stat.Exact(c.Old), stat.Exact(c.New))
	switch {
	case c.Old == 0:
		what += ", new"
	case c.New == 0:
		what += ", gone"
	}
	if c.Ns != nil {
		median, around := Quantity(c.Ns)
		ns = Join(" ", median+" ns", around)
	}
	return Signed(c.Difference()), Clean(what), ns
}

// GateBuild is what a part of two builds differs in.
func GateBuild(u record.GateUnlike) string {
	allowed := ""
	if u.Allowed {
		allowed = " (allowed)"
	}
	old, now := cmp.Or(u.Old, "not known"), cmp.Or(u.New, "not known")
	if u.Name == "config" { // sums
		old, now = old[:min(12, len(old))], now[:min(12, len(now))]
	}
	options := ""
	if n := len(u.Options); n > 0 {
		options = " (" + strings.Join(u.Options[:min(n, optionsShown)], ", ")
		if n > optionsShown {
			options += fmt.Sprintf(" and %d more", n-optionsShown)
		}
		options += ")"
	}
	return Clean(fmt.Sprintf("%s: %s → %s%s%s", u.Name, old, now, options, allowed))
}

// optionsShown are how many options are named that two configurations differ in.
const optionsShown = 12

// GateSide is one side of a gate: the release of its kernel, and where its counts are from.
func GateSide(release, from string) string {
	if release == "" {
		return Clean(from)
	}
	return Clean(strings.TrimPrefix(from+": Linux "+release, ": "))
}
