package xray

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/xdppath"
)

// Host is the machine that the path was read on.
func (p *Path) Host() host.Fingerprint { return kernelHost(p.kernel) }

// kernelHost is the machine that a kernel runs on. Of a kernel in files it is nothing but
// the kernel's release, as nothing of this machine is in it.
func kernelHost(k *kernel.Kernel) host.Fingerprint {
	if !k.Live {
		return host.Fingerprint{Kernel: k.Release}
	}
	return host.Identify(host.Options{Kernel: k})
}

// Record adds the path to a record that has its host.
func (p *Path) Record(doc *record.Document[record.SiteRow]) {
	if p.paravirt > 0 {
		doc.Warnings = append(doc.Warnings, record.Warning{Text: fmt.Sprintf(
			"%d calls through pv_ops are left out: the kernel patches them to direct code when it boots", p.paravirt)})
	}
	doc.Rows = rows(p.Sites, p.reach)
	for _, f := range p.Functions {
		if f.Partial != "" {
			doc.Partial = append(doc.Partial, record.PartialFunction{Name: f.Name, Why: f.Partial})
		}
	}
	if p.kernel.Live { // in a file thunks are not patched yet
		doc.Code = thunks(p.kernel, p.Sites, doc.Host.ReturnThunk)
	}
}

// rows are those of sites. A row is named by the function and by what the site calls:
// the second one of a name ends in #2.
func rows(sites []xdppath.Site, reach reach) []record.SiteRow {
	out := []record.SiteRow{}
	seen := make(map[string]int)
	for _, s := range sites {
		row := record.SiteRow{
			Function: s.Function, Offset: s.Offset, Kind: string(s.Kind), Jump: s.Jump, Thunk: s.Thunk,
			Check: string(s.Check), Instructions: s.Instructions, Loads: s.Check.Loads(), Preamble: s.Preamble,
			Stage: string(s.Stage), Confidence: string(s.Confidence), Targets: s.Targets,
			Per: string(s.Per), Always: s.Always, Via: s.Via, CannotRun: reach.cannot(s),
		}
		pointer := "unknown"
		if s.Pointer != "" {
			row.Pointer = &s.Pointer
			steps := strings.Split(s.Pointer, " → ")
			pointer = steps[len(steps)-1]
		}
		row.Name = s.Function + "/" + pointer
		seen[row.Name]++
		if n := seen[row.Name]; n > 1 {
			row.Name += fmt.Sprintf("#%d", n)
		}
		out = append(out, row)
	}
	return out
}
