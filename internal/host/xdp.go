package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/clock"
	"github.com/unthunk/unthunk/internal/kernel"
)

// Names of findings that say what a redirect meets on this machine now.
const (
	ObserversFinding  = "xdp-observers"
	DispatcherFinding = "xdp-dispatcher"
)

// Observer is a program that is attached to a tracepoint of XDP.
type Observer struct {
	Tracepoint, Program string
	// ID is the program's number, Link that of the link which attaches it.
	ID   ebpf.ProgramID
	Link link.ID
}

// observers lists the programs that BPF links attach to the tracepoints of XDP. Programs
// that are attached to a perf event without a link are not among them.
func observers(ctx context.Context) (found []Observer, err error) {
	err = Links(ctx, func(info *link.Info) {
		if o, ok := ObserverOf(info); ok {
			found = append(found, o)
		}
	})
	return found, err
}

// Links calls f for each BPF link of the machine. Requires CAP_SYS_ADMIN, and Linux 5.8.
func Links(ctx context.Context, f func(*link.Info)) error {
	const tries = 100
	var it link.Iterator
	for range tries {
		for it.Next() {
			if info, err := it.Link.Info(); err == nil { // else it has just been detached
				f(info)
			}
			if err := ctx.Err(); err != nil {
				it.Close()
				return err
			}
		}
		if !errors.Is(it.Err(), unix.EAGAIN) {
			break
		}
		// A link that is being attached has a number already, and cannot be opened yet
		// (bpf_link_by_id in kernel/bpf/syscall.c).
		it = link.Iterator{ID: it.ID}
		time.Sleep(time.Millisecond)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("list BPF links: %w", err)
	}
	return nil
}

// ObserverOf is the observer that a link attaches; false for a link to anything else. Links
// to perf events tell their tracepoint since Linux 6.6.
func ObserverOf(info *link.Info) (Observer, bool) {
	tracepoint := tracepointOf(info)
	if !strings.HasPrefix(tracepoint, "xdp_") {
		return Observer{}, false
	}
	return Observer{tracepoint, programName(info.Program), info.Program, info.ID}, true
}

// tracepointOf is the tracepoint that a link is attached to; empty when it is none, and
// for links to perf events before Linux 6.6, which does not tell.
func tracepointOf(info *link.Info) string {
	if raw := info.RawTracepoint(); raw != nil {
		return raw.Name
	}
	if event := info.PerfEvent(); event != nil && event.Tracepoint() != nil {
		return path.Base(event.Tracepoint().Tracepoint)
	}
	return ""
}

// programName is the name of a loaded program; empty when it has none.
func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer p.Close()
	about, err := kernel.AboutProgram(p)
	if err != nil {
		return ""
	}
	return about.Name
}

// observersRow says who observes the redirect path.
func observersRow(found []Observer, err error) Finding {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return unseenf(ObserversFinding, "listing BPF links needs root")
	case err != nil:
		return unseen(ObserversFinding, err)
	case len(found) == 0:
		return Finding{Name: ObserversFinding, Found: "none attached", Level: LevelOK,
			Means: "no packet pays for a program at a tracepoint of XDP; programs at perf events without a BPF link are not seen"}
	}
	var names []string
	level := LevelNote
	for _, o := range found {
		names = append(names, strings.TrimSpace(o.Program+" at "+o.Tracepoint))
		if o.Tracepoint == "xdp_redirect" || o.Tracepoint == "xdp_devmap_xmit" {
			level = LevelWarn
		}
	}
	slices.Sort(names)
	row := Finding{Name: ObserversFinding, Level: level, Found: strings.Join(names, ", "),
		Means: "they run when a redirect fails, or on another path"}
	if level == LevelWarn {
		row.Means = "every redirected packet or bulk calls them, the second one and later ones through thunks"
		row.Do = "detach what observes XDP: bpftool link list shows the processes that hold the links"
	}
	return row
}

// dispatcherRow says how many slots of the BPF dispatcher are taken.
func dispatcherRow(programs int, err error) Finding {
	switch {
	case errors.Is(err, kernel.ErrNoDispatcher):
		return Finding{Name: DispatcherFinding, Found: "none: " + err.Error(), Level: LevelNote,
			Means: "every XDP program is called indirectly"}
	case err != nil:
		return unseen(DispatcherFinding, err)
	}
	row := Finding{Name: DispatcherFinding, Level: LevelOK,
		Found: fmt.Sprintf("%d of %d dispatcher slots taken", programs, kernel.DispatcherSlots),
		Means: "an XDP program that has a slot is called directly"}
	if programs >= kernel.DispatcherSlots {
		row.Level = LevelWarn
		row.Means = "a program that is attached now finds no slot: it is called indirectly for as long as it is attached"
		row.Do = "detach XDP programs that are not needed, then attach the one that matters again"
	}
	return row
}

// coreClock is what the core runs at now: the fastest of some readings, as what interrupts
// one makes it slower.
func coreClock() Finding {
	const name, readings = "core-clock", 50
	fastest := 0.0
	for range readings {
		fastest = max(fastest, clock.Core())
	}
	if fastest == 0 {
		return unseenf(name, "only that of x86-64 is measured")
	}
	return Finding{Name: name, Found: fmt.Sprintf("%.2f GHz", fastest/1e9), Level: LevelOK,
		Means: "what a core ran at a moment ago, boost included"}
}

// coalescing is false when a driver does not tell how it moderates interrupts.
func (m *machine) coalescing(e *ethtool.Ethtool, dev string) (Finding, bool) {
	c, err := e.GetCoalesce(dev)
	if err != nil {
		return Finding{}, false
	}
	attached := false
	if l, err := netlink.LinkByName(dev); err == nil && l.Attrs().Xdp != nil {
		attached = l.Attrs().Xdp.Attached
	}
	at := path.Join("sys/class/net", dev)
	return coalescingRow(dev, c, m.get(path.Join(at, "gro_flush_timeout")), m.get(path.Join(at, "napi_defer_hard_irqs")), attached), true
}

// coalescingRow says whether a device raises an interrupt for each frame. What to do is said
// of one that has an XDP program: others do not redirect.
func coalescingRow(dev string, c ethtool.Coalesce, flush, deferred string, attached bool) Finding {
	row := Finding{Name: "nic-" + dev + "-coalescing", Level: LevelOK,
		Found: fmt.Sprintf("rx-usecs %d, rx-frames %d", c.RxCoalesceUsecs, c.RxMaxCoalescedFrames)}
	if c.UseAdaptiveRxCoalesce != 0 {
		row.Found += ", adaptive"
	}
	polled := flush != "" && flush != "0" && deferred != "" && deferred != "0"
	if polled {
		row.Found += ", polls deferred"
	}
	if c.RxCoalesceUsecs > 0 || c.UseAdaptiveRxCoalesce != 0 || polled {
		row.Means = "a poll finds several frames, so that one call serves them"
		return row
	}
	row.Level = LevelNote
	row.Means = "each frame raises an interrupt: unless traffic is dense, a poll finds one frame, and nothing is bulked"
	if attached {
		row.Do = fmt.Sprintf("ethtool -C %s rx-usecs 16: more frames a poll, so that one call serves them; where the driver "+
			"refuses, napi_defer_hard_irqs and gro_flush_timeout in /sys/class/net/%s do the same", dev, dev)
	}
	return row
}
