package cells

import (
	"fmt"
	"strconv"

	"github.com/unthunk/unthunk/internal/record"
)

// shownBehaviors is how many ways to come out otherwise are shown.
const shownBehaviors = 8

// Behaviors say in a line each how packets come out of two programs otherwise, the ways of most packets first.
func Behaviors(d *record.ProgDiff) []string {
	out := behaviors(d)
	if d.RedirectsUnseen != "" {
		out = append(out, Clean("Where redirects go was NOT compared: "+d.RedirectsUnseen+"."))
	}
	return out
}

// NothingSteady tells whether something of each packet varies by itself, so that none is known to come out alike or otherwise.
func NothingSteady(d *record.ProgDiff) bool {
	return d.Behaviors != nil && len(d.Behaviors) == 0 && d.Unsteady > 0 && d.Unsteady >= d.Packets.Kept
}

func behaviors(d *record.ProgDiff) []string {
	switch {
	case d.Behaviors == nil:
		return []string{"Whether packets come out otherwise is not known: the old side is a saved record."}
	case NothingSteady(d):
		return []string{fmt.Sprintf("Whether packets come out otherwise is NOT known: of all %d something changes from run to run by itself, "+
			"and a packet of which it does is not compared.", d.Packets.Kept)}
	case len(d.Behaviors) == 0 && d.Unsteady > 0:
		return []string{fmt.Sprintf("No packet is known to come out otherwise. Of %d of %d something changes from run to run by itself: "+
			"it is not compared.", d.Unsteady, d.Packets.Kept)}
	case len(d.Behaviors) == 0 && d.Redirected > 0:
		return []string{"All packets come out of both alike: verdict, length, bytes, and where redirects go."}
	case len(d.Behaviors) == 0:
		return []string{"All packets come out of both alike: verdict, length and bytes."}
	}
	packets := 0
	for _, b := range d.Behaviors {
		packets += b.Packets
	}
	out := []string{fmt.Sprintf("BEHAVIOR CHANGED: %s of %d come out otherwise.", Plural(packets, "packet"), d.Packets.Kept)}
	if d.Unsteady > 0 {
		out[0] += fmt.Sprintf(" Of %d more something changes from run to run by itself: it is not compared.", d.Unsteady)
	}
	for i, b := range d.Behaviors {
		if i == shownBehaviors {
			out = append(out, fmt.Sprintf("  and %d other ways", len(d.Behaviors)-i))
			break
		}
		how := "other bytes"
		switch b.What {
		case "bytes":
			if b.Old != "" {
				how = "bytes " + b.Old + " → " + b.New
			}
		case "verdict":
			how = b.Old + " → " + b.New
		case "length":
			how = b.Old + " → " + b.New + " bytes"
			if _, err := strconv.Atoi(b.New); err != nil {
				how = b.Old + " bytes → " + b.New
			}
		case "target":
			how = "redirect to " + b.Old + " → " + b.New
		}
		out = append(out, Clean(fmt.Sprintf("  %s: %s, first packet %d", Plural(b.Packets, "packet"), how, b.First)))
	}
	return out
}

// CallChanges say which calls came and went.
func CallChanges(d *record.ProgDiff) []string {
	if d.Calls == nil {
		return nil
	}
	if len(d.Calls) == 0 {
		switch most := max(d.OldProgram.Programs, d.NewProgram.Programs); {
		case most > 1:
			return []string{"Both call and look up the same, also in the programs that they reach by tail calls."}
		case most == 0: // a record of an older version
			return []string{"Both call and look up the same: the entry programs, not what they reach by tail calls."}
		}
		return []string{"Both call and look up the same."}
	}
	var came, went []string
	for _, c := range d.Calls {
		text, more := Clean(c.Name), c.New-c.Old
		if more > 1 || more < -1 {
			text += fmt.Sprintf(" ×%d", max(more, -more))
		}
		if more > 0 {
			came = append(came, text)
		} else {
			went = append(went, text)
		}
	}
	var out []string
	if len(came) > 0 {
		out = append(out, "Calls that came: "+Join(", ", came...)+".")
	}
	if len(went) > 0 {
		out = append(out, "Calls that went: "+Join(", ", went...)+".")
	}
	return out
}
