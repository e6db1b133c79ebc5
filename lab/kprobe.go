package lab

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tracing is where tracefs is mounted, in guests by /init.
const tracing = "/sys/kernel/tracing"

// probe counts how often an instruction is executed.
type probe struct {
	// place is "function+16".
	place string
	// register is the one that holds an indirect branch's target there, as kprobe
	// events call it, "%ax"; empty where there is none to tell apart.
	register string
}

// registers are those of indirect thunks, as kprobe events call them.
var registers = map[string]string{
	"rax": "%ax", "rbx": "%bx", "rcx": "%cx", "rdx": "%dx", "rsi": "%si", "rdi": "%di", "rbp": "%bp",
	"r8": "%r8", "r9": "%r9", "r10": "%r10", "r11": "%r11", "r12": "%r12", "r13": "%r13", "r14": "%r14", "r15": "%r15",
}

// kprobes count by kprobe events with histograms of targets
// (Documentation/trace/kprobetrace.rst and histogram.rst of Linux).
type kprobes struct {
	probes []probe
	// refused are places that cannot be probed.
	refused []string
}

// group is the name of all events made here.
const group = "unthunk"

func event(i int) string { return fmt.Sprintf("s%d", i) }

// newKprobes places the counters and starts them. Those the kernel refuses, as the
// code of entry paths, are left out. Requires CONFIG_KPROBE_EVENTS and
// CONFIG_HIST_TRIGGERS.
func newKprobes(probes []probe) (*kprobes, error) {
	k := &kprobes{}
	f, err := os.OpenFile(filepath.Join(tracing, "kprobe_events"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("open kprobe events: %w", err)
	}
	defer f.Close()
	for _, p := range probes {
		target := p.register
		if target == "" {
			target = "%ip"
		}
		if _, err := fmt.Fprintf(f, "p:%s/%s %s target=%s:x64\n", group, event(len(k.probes)), p.place, target); err != nil {
			k.refused = append(k.refused, p.place)
			continue
		}
		k.probes = append(k.probes, p)
	}
	for i := range k.probes {
		trigger := filepath.Join(tracing, "events", group, event(i), "trigger")
		if err := os.WriteFile(trigger, []byte("hist:keys=target.hex"), 0); err != nil {
			return nil, errors.Join(fmt.Errorf("count at %s: %w", k.probes[i].place, err), k.close())
		}
	}
	if len(k.probes) == 0 {
		return nil, errors.New("no kprobe could be placed")
	}
	return k, nil
}

// target is a place and what was branched to there, 0 when nothing is told apart.
type target struct {
	place string
	addr  uint64
}

// hits reads how often each place was executed since it was placed.
func (k *kprobes) hits() (map[target]uint64, error) {
	out := make(map[target]uint64)
	for i, p := range k.probes {
		text, err := os.ReadFile(filepath.Join(tracing, "events", group, event(i), "hist"))
		if err != nil {
			return nil, fmt.Errorf("read histogram of %s: %w", p.place, err)
		}
		for addr, n := range parseHist(string(text)) {
			if p.register == "" {
				addr = 0
			}
			out[target{p.place, addr}] += n
		}
	}
	return out, nil
}

// parseHist reads the lines "{ target: ffffffff81a0b1c0 } hitcount: 5120".
func parseHist(text string) map[uint64]uint64 {
	out := make(map[uint64]uint64)
	for line := range strings.Lines(text) {
		key, count, ok := strings.Cut(line, "} hitcount:")
		_, key, ok2 := strings.Cut(key, "{ target:")
		if !ok || !ok2 {
			continue
		}
		addr, err := strconv.ParseUint(strings.TrimSpace(key), 16, 64)
		n, err2 := strconv.ParseUint(strings.TrimSpace(count), 10, 64)
		if err == nil && err2 == nil {
			out[addr] += n
		}
	}
	return out
}

// since is what was counted between an earlier reading and this one.
func since(now, old map[target]uint64) map[target]uint64 {
	out := maps.Clone(now)
	for t, n := range old {
		if out[t] -= n; out[t] == 0 {
			delete(out, t)
		}
	}
	return out
}

// close takes all counters away.
func (k *kprobes) close() error {
	var errs []error
	for i := range k.probes {
		trigger := filepath.Join(tracing, "events", group, event(i), "trigger")
		errs = append(errs, os.WriteFile(trigger, []byte("!hist:keys=target.hex"), 0))
	}
	if err := os.WriteFile(filepath.Join(tracing, "kprobe_events"), nil, 0); err != nil { // O_TRUNC clears
		errs = append(errs, fmt.Errorf("take kprobe events away: %w", err))
	}
	return errors.Join(errs...)
}
