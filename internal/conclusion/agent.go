package conclusion

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// agentHeadline says what a machine pays, or why that is not known.
func agentHeadline(a *record.Agent) Headline {
	h := Headline{Text: strings.Join([]string{AgentMachine(a), AgentPaths(a), AgentPrograms(a)}, "\n")}
	hop := agentRedirect(a, record.AnswerBulk)
	thunk := a.Price("callback/loop")
	switch {
	case hop != nil && thunk != nil && thunk.Price != nil:
		h.Title = fmt.Sprintf("A redirect costs %s ns a packet in bulks of 16, an indirect call %s", stat.Number(hop.Median),
			thunk.Price.Cost(stat.Number))
	case hop != nil:
		h.Title = fmt.Sprintf("A redirect costs %s ns a packet in bulks of 16", stat.Number(hop.Median))
	case len(a.Refused) > 0:
		h.Title = fmt.Sprintf("Not measured (%s): %s", a.Refused[len(a.Refused)-1].Reason, a.Refused[len(a.Refused)-1].Text)
	default:
		h.Title = "Not measured"
	}
	return h
}

// agentRedirect is the redirect alone at a bulk, nil where it was not measured.
func agentRedirect(a *record.Agent, bulk string) *stat.Quantity {
	for i := range a.Redirect {
		if a.Redirect[i].Labels["bulk"] == bulk {
			return a.Redirect[i].Hop
		}
	}
	return nil
}

// AgentMachine says what makes calls dear or cheap on a machine.
func AgentMachine(a *record.Agent) string {
	seen := func(s string) string {
		if s == "" {
			return "not seen"
		}
		return s
	}
	drivers := "no network hardware is up"
	if len(a.Machine.Drivers) > 0 {
		drivers = "drivers " + strings.Join(a.Machine.Drivers, ", ")
	}
	return fmt.Sprintf("Indirect calls: %s; returns: %s; IOMMU: %s; %s.", seen(a.Host.IndirectThunk), seen(a.Host.ReturnThunk),
		seen(a.Machine.IOMMU), drivers)
}

// AgentPaths says how many indirect branches there are on the redirect paths; empty when none was read.
func AgentPaths(a *record.Agent) string {
	var all []string
	for _, p := range a.Paths {
		var kinds []string
		for _, kind := range slices.Sorted(maps.Keys(p.Kinds)) {
			kinds = append(kinds, fmt.Sprintf("%d %s", p.Kinds[kind], kind))
		}
		var counts []string
		for _, c := range []struct {
			all   int
			maybe *int
			per   string
		}{{p.PerPacket, p.PacketMaybe, "packet"}, {p.PerBulk, p.BulkMaybe, "bulk"}, {p.PerPoll, p.PollMaybe, "poll"}} {
			if c.maybe == nil {
				counts = append(counts, fmt.Sprintf("at most %d a %s", c.all, c.per))
				continue
			}
			if n := c.all - *c.maybe; n > 0 || *c.maybe == 0 {
				counts = append(counts, fmt.Sprintf("%d a %s", n, c.per))
			}
			if *c.maybe > 0 {
				counts = append(counts, fmt.Sprintf("%d a %s?", *c.maybe, c.per))
			}
		}
		all = append(all, fmt.Sprintf("Redirect path of %s, indirect branches: %s (%s); %s a packet in bulks of %s.", p.Device,
			strings.Join(counts, ", "), strings.Join(kinds, ", "), between(p.Branches()), record.AnswerBulk))
	}
	return strings.Join(all, " ")
}

// between is a count, or from which to which it is.
func between(least, most float64) string {
	switch {
	case least == most:
		return trimmed(most)
	case least == 0:
		return "at most " + trimmed(most)
	}
	return trimmed(least) + " to " + trimmed(most)
}

// AgentPrograms says which XDP programs devices run, and what is in their code.
func AgentPrograms(a *record.Agent) string {
	on, outside, indirect, tails, changes := 0, 0, 0, 0, 0
	for _, p := range a.Programs {
		if len(p.Attached) > 0 {
			on++
			if p.Dispatcher == record.OutOfDispatcher {
				outside++
			}
		}
	}
	for _, c := range a.Code {
		indirect, tails, changes = indirect+c.Indirect, tails+c.TailCalls, changes+c.Changes
	}
	if on == 0 {
		return "No device runs an XDP program."
	}
	said := fmt.Sprintf("%s on devices, %d outside the BPF dispatcher", many(on, "XDP program"), outside)
	if len(a.Code) > 0 {
		said += fmt.Sprintf("; in their code %s, %d of them tail calls; %s to make: unthunk prog xray",
			many(indirect, "indirect branch"), tails, many(changes, "change"))
	}
	return said + "."
}

// AgentCalls says what a row of agent prices, in few words; empty for rows that it does not know.
func AgentCalls(row string) string {
	return map[string]string{
		"control":        "nothing: two loads of one program",
		"callback/loop":  "an indirect call: of bpf_loop's callback",
		"map-lookup/lpm": "an indirect call: of a map's lookup",
		"direct-call":    "a direct call and its return",
	}[row]
}

// AgentFindings says how many findings of check warn.
func AgentFindings(a *record.Agent) string {
	count := make(map[host.Level]int)
	for _, f := range a.Findings {
		count[f.Level]++
	}
	return fmt.Sprintf("check: %s, %s, %d not seen.", many(count[host.LevelWarn], "warning"), many(count[host.LevelNote], "note"),
		count[host.LevelUnknown])
}

// AgentCost says what a run took.
func AgentCost(a *record.Agent) string {
	c := &a.Cost
	said := fmt.Sprintf("The run took %.1f s, %.2f s of CPU time and %d MiB", c.Seconds, c.CPUSeconds, c.PeakBytes>>20)
	if c.CPU != nil {
		what := "it measured for"
		if a.Measured == nil {
			what = "the try to measure took"
		}
		said += fmt.Sprintf("; %s %.1f s on CPU %d", what, c.MeasureSeconds, *c.CPU)
	}
	entries := fmt.Sprintf("%d entries", c.Slots)
	if c.Slots == 1 {
		entries = "1 entry"
	}
	return said + fmt.Sprintf("; at most %s of the BPF dispatcher.", entries)
}
