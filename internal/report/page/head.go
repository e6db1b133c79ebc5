package page

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// head writes what is above all sections: the answer as the first screen gives it, or
// else the headline of one record; when and on what that was measured, banners, and the
// table of what a redirect costs, what to try and what to avoid.
func (v *viewer) head(out *view) {
	if v.first == nil {
		out.Title = "Nothing was measured"
		if v.src.History != nil {
			out.Title = cells.Clean(conclusion.OfHistory(v.src.History).Title)
		}
		return
	}
	of := []string{v.labels[v.first]}
	if answer, from := v.answer(); answer != nil {
		out.Title = strings.TrimSuffix(cells.Clean(answer.Claim[0]), ".")
		if rest := answer.Claim[1:]; len(rest) > 0 {
			out.Summary = []string{cells.Clean(strings.Join(rest, " "))}
		}
		out.Glance = glanceBlock(answer)
		of = from
	} else {
		h := conclusion.Of(v.first)
		if len(v.src.Kernels) > 0 && v.first.Kind == "lab" {
			h, of = conclusion.OfKernels(&v.src.Kernels[0]), nil
		}
		out.Title = cells.Clean(h.Title)
		for line := range strings.SplitSeq(h.Text, "\n") {
			if line != "" {
				out.Summary = append(out.Summary, cells.Clean(line))
			}
		}
	}
	if n := len(v.src.Records); len(of) > 0 && n > len(of) {
		out.Summary = append(out.Summary, fmt.Sprintf("That is %s, of %d records here.", strings.Join(of, ", "), n))
	}
	out.About = about(v.first)
	out.Banners = v.banners()
}

// answer is what the ladder, prices and stages of the title's machine that the page shows
// say of a redirect, and the names of the records that they are from; nil where none is of
// a redirect.
func (v *viewer) answer() (answer *conclusion.Answer, from []string) {
	if v.first.Bench() == nil || len(v.first.Bench().Rows) == 0 {
		return nil, nil
	}
	best := func(p part) *record.Saved {
		if has := len(partRows(v.first, p)) > 0; has || v.first.Kind == "run" {
			return cmp.Or(v.merged[mergedPart{v.first, p}], v.first)
		}
		for _, s := range v.src.Records {
			if len(partRows(s, p)) > 0 && !v.folds(s, p) && sameMachine(s.Host, v.first.Host) {
				return s
			}
		}
		return v.first
	}
	ladder, prices, profile := best(ladderPart), best(pricesPart), best(profilePart)
	of := *ladder.Bench()
	of.Settings = maps.Clone(of.Settings)
	of.Prices, of.Stages, of.Profile = prices.Prices(), nil, nil
	if p := profile.Stages(); p != nil && p.Packet != nil {
		of.Stages, of.Profile = p.Rows, &p.ProfileParts
		if of.Settings == nil {
			of.Settings = make(map[string]string)
		}
		of.Settings["profiled"] = profiled(profile)
	}
	of.Conclusion = v.first.Bench().Conclusion
	if of.Conclusion == nil {
		of.Conclusion = conclusion.New(&of, nil)
	}
	for _, s := range []*record.Saved{ladder, prices, profile} {
		if name := v.labels[s]; !slices.Contains(from, name) {
			from = append(from, name)
		}
	}
	answer = conclusion.NewAnswer(&of)
	if answer.Redirect == nil && v.first.Kind != "run" { // of another operation
		return nil, nil
	}
	return answer, from
}

// glanceBlock says what, how much, and what to do, in one table; nil for nothing.
func glanceBlock(a *conclusion.Answer) *block {
	t := &table{Columns: []column{{"", "t"}, {"ns a packet", "n"}, {"95 %", "i w"}, {"verb", "i w"}}}
	add := func(what, sign string, ns *stat.Quantity, see string) {
		median, around := cells.Quantity(ns)
		if ns != nil && sign == "" {
			median = ns.Cost(stat.Number)
		}
		if ns == nil || math.IsNaN(ns.Median) {
			sign, median, around = "", "not priced", ""
		}
		t.add(what, sign+median, around, see)
	}
	if a.Redirect != nil {
		t.group("what")
		var rates []string
		for _, r := range a.Rates {
			if r.Mpps != nil {
				rates = append(rates, fmt.Sprintf("%s Mpps at bulk %s", stat.Number(r.Mpps.Median), cells.Clean(r.Bulk)))
			}
		}
		what := cells.Clean(a.Of + " at bulk " + a.Bulk)
		if len(rates) > 0 {
			what += "; the whole test does " + strings.Join(rates, ", ")
		}
		add(what, "", a.Redirect, "bench")
		if a.Tax != nil {
			add(cells.Join(": ", "of it indirect calls", strings.Join(a.Calls, "; ")), "", a.Tax, "tax")
		}
	}
	var why []note
	for _, gains := range []struct {
		title, sign string
		of          []record.Gain
	}{{"to try", "−", a.Try}, {"to avoid", "+", a.Avoid}} {
		if len(gains.of) > 0 {
			t.group(gains.title)
		}
		for _, g := range gains.of {
			sign, what := gains.sign, g.What
			if g.AtMost {
				sign = "at most " + sign
			}
			if g.Now != "" {
				what += " (now: " + g.Now + ")"
			}
			add(what, sign, g.Ns, g.Verb)
			if g.Why != "" {
				why = append(why, note{"", cells.Clean(g.What + ": " + g.Why)})
			}
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	t.Caption = "What " + cells.Clean(a.Of) + " costs, what to try and what to avoid"
	if len(a.Trust) > 0 {
		t.Remark = cells.Clean(strings.Join(a.Trust, "; ")) + "."
	}
	b := &block{Tables: []*table{t}}
	b.addList("Why", why)
	return b
}

// firstRecord is the record that the title is of: the kind that says most about where
// the packets per second went, and the latest of that kind. It is nil when there is no
// record.
func firstRecord(records []*record.Saved) *record.Saved {
	if len(records) == 0 {
		return nil
	}
	kinds := []string{"run", "bench", "profile", "lab", "tax"}
	rank := func(s *record.Saved) int {
		if s.Kind == "compare" && conclusion.Of(s).Tells {
			return -1
		}
		if i := slices.Index(kinds, s.Kind); i >= 0 {
			return i
		}
		return len(kinds)
	}
	return slices.MinFunc(records, func(a, b *record.Saved) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.Time.Compare(a.Time))
	})
}

// about is when and on what a record was measured.
func about(s *record.Saved) []string {
	var out []string
	if !s.Time.IsZero() {
		out = append(out, s.Time.UTC().Format("2006-01-02 15:04 UTC"))
	}
	if s.Host.Kernel != "" {
		out = append(out, "Linux "+cells.Clean(s.Host.Kernel))
	}
	if s.Host.CPU != "" {
		out = append(out, cells.Clean(s.Host.CPU))
	}
	if s.Host.IndirectThunk != "" {
		out = append(out, "indirect calls: "+cells.Clean(s.Host.IndirectThunk))
	}
	return out
}

// banners warn of what changes the answer: what is missing from it. Other warnings stand
// beneath the figures that they are about.
func (v *viewer) banners() []note {
	var incomplete, refused, untold []string
	for _, s := range v.src.Records {
		if s.Incomplete {
			incomplete = append(incomplete, v.labels[s])
		}
		if p := s.Stages(); p != nil && p.CannotTell != "" && v.shows(s, profilePart) {
			untold = append(untold, v.labels[s]+": "+cells.Clean(p.CannotTell))
		}
		if s.Bench() == nil {
			continue
		}
		n, why := 0, ""
		for i := range s.Bench().Rows {
			if row := &s.Bench().Rows[i]; row.Refused != "" {
				n++
				why = cmp.Or(why, row.Refused)
			}
		}
		if n > 0 {
			refused = append(refused, fmt.Sprintf("%s of %d in %s: %s", cells.Plural(n, "row"), len(s.Bench().Rows),
				v.labels[s], cells.Clean(why)))
		}
	}
	var out []note
	if len(incomplete) > 0 {
		out = append(out, note{"Incomplete:", strings.Join(incomplete, ", ") + " stopped before the end."})
	}
	if len(untold) > 0 {
		out = append(out, note{"The stages are no answer:", strings.Join(untold, "; ") + "."})
	}
	if said := v.machineChanges(); said != "" {
		out = append(out, note{"The machine changed:", said})
	}
	if len(refused) > 0 {
		out = append(out, note{"No number:", strings.Join(refused, "; ") + "."})
	}
	return out
}
