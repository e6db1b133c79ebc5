package agent

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// neutral are the names that devices get in place of their own, which may hold an address of hardware.
type neutral map[string]string

// of is the name that a device gets.
func (n neutral) of(device string) string {
	if device == "" {
		return ""
	}
	if _, ok := n[device]; !ok {
		n[device] = fmt.Sprintf("dev%d", len(n))
	}
	return n[device]
}

// scrubber returns what replaces, in a text, the names of devices and that of the host.
func (n neutral) scrubber(host string) func(string) string {
	var words []string
	for device := range n {
		words = append(words, regexp.QuoteMeta(device))
	}
	// Longest first: eth1 begins eth1.100.
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	if host != "" {
		words = append(words, regexp.QuoteMeta(host))
	}
	if len(words) == 0 {
		return func(s string) string { return s }
	}
	any := regexp.MustCompile(`\b(?:` + strings.Join(words, "|") + `)\b`)
	return func(s string) string {
		return any.ReplaceAllStringFunc(s, func(word string) string {
			if name, ok := n[word]; ok {
				return name
			}
			return "host"
		})
	}
}

// anonymize takes from a record what names the machine, its devices or who runs programs there. Devices are the names of
// those of the machine.
func anonymize(doc *record.Agent, devices []string, host string) {
	names := make(neutral)
	for _, device := range devices {
		names.of(device)
	}
	doc.Machine.Name = ""
	for i := range doc.Programs {
		p := &doc.Programs[i]
		p.Pins, p.Holders, p.Tracers = nil, nil, nil
		for k := range p.Attached {
			a := &p.Attached[k]
			a.Device, a.Namespace, a.Where = names.of(a.Device), 0, ""
		}
	}
	scrub := names.scrubber(host)
	for i := range doc.Findings {
		f := &doc.Findings[i]
		f.Name, f.Found, f.Means, f.Do = scrub(f.Name), scrub(f.Found), scrub(f.Means), scrub(f.Do)
	}
	for i := range doc.Refused {
		doc.Refused[i].Text = scrub(doc.Refused[i].Text)
	}
	for i := range doc.Warnings {
		doc.Warnings[i].Text = scrub(doc.Warnings[i].Text)
	}
}
