package host

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/midr"
	"github.com/unthunk/unthunk/internal/virtual"
)

func (m *machine) cpu(f *Fingerprint) Finding {
	const name = "cpu"
	info, err := m.read("proc/cpuinfo")
	if err != nil {
		return unseen(name, err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		key, value, ok := strings.Cut(line, ":")
		key = strings.TrimSpace(key)
		if !ok {
			continue
		}
		if key == "processor" {
			f.CPUs++
		}
		if _, seen := fields[key]; !seen {
			fields[key] = strings.TrimSpace(value)
		}
	}
	f.CPU = fields["model name"]
	if family := fields["cpu family"]; family != "" {
		f.CPU = strings.TrimSpace(fmt.Sprintf("%s, family %s model %s stepping %s", f.CPU, family, fields["model"], fields["stepping"]))
	}
	f.Microcode = fields["microcode"]
	row := Finding{
		Name: name, Level: LevelOK,
		Means: "the kernel chose its mitigations by this family, model and microcode",
	}
	if id, ok := midr.Parse(info); ok {
		f.CPU = id.String()
		row.Means = "the kernel chose its mitigations by this implementer, part and revision (MIDR), and by what firmware says"
	}
	found := f.CPU
	switch f.Microcode {
	case "":
	case "0xffffffff":
		found += ", microcode hidden by the hypervisor"
	default:
		found += ", microcode " + f.Microcode
	}
	row.Found = fmt.Sprintf("%s, %d CPUs online", found, f.CPUs)
	return row
}

func (m *machine) virtual(f *Fingerprint) Finding {
	const name = "virtual-machine"
	f.Virtual = "none"
	var signature string
	if m.live {
		signature = virtual.Signature()
	}
	if virtual.Emulated(m.fsys, signature) { // arm64 has no register for it
		signature = virtual.TCG
	}
	flagged := slices.Contains(m.flags(), "hypervisor")
	if !flagged && signature == "" {
		return Finding{Name: name, Found: "no", Level: LevelOK}
	}
	f.Virtual = hypervisorName(signature)
	if f.Virtual == "" {
		if t := m.get("sys/hypervisor/type"); t != "" {
			f.Virtual = t
		} else {
			f.Virtual = "unknown"
		}
	}
	found := "yes, " + f.Virtual
	product := strings.TrimSpace(m.get("sys/class/dmi/id/sys_vendor") + " " + m.get("sys/class/dmi/id/product_name"))
	if product != "" {
		found += " (" + product + ")"
	}
	if f.Emulated() {
		return Finding{
			Name: name, Found: found, Level: LevelWarn,
			Means: "the CPU is software: times and rates are those of the emulator, and say nothing of hardware",
			Do:    "count instructions (unthunk lab, gate); measure where the CPU is hardware, or with KVM",
		}
	}
	return Finding{
		Name: name, Found: found, Level: LevelNote,
		Means: "rates change with what other guests do, the hypervisor decides which CPU features the kernel's mitigations " +
			"see, and hardware counters are often missing",
		Do: "compare only interleaved runs; measure absolute rates on bare metal",
	}
}

// flags are the features the kernel uses of the first CPU.
func (m *machine) flags() []string {
	for line := range strings.Lines(m.get("proc/cpuinfo")) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "flags" {
			return strings.Fields(value)
		}
	}
	return nil
}

// virtualTCG is the name of QEMU's emulator in [Fingerprint.Virtual].
const virtualTCG = "QEMU TCG"

// Emulated tells whether the CPU is software: its times are none of hardware.
func (f Fingerprint) Emulated() bool { return f.Virtual == virtualTCG }

// hypervisorName gives the usual name for a CPUID signature.
func hypervisorName(signature string) string {
	switch signature {
	case "KVMKVMKVM":
		return "KVM"
	case "Microsoft Hv":
		return "Hyper-V"
	case "VMwareVMware":
		return "VMware"
	case "XenVMMXenVMM":
		return "Xen"
	case virtual.TCG:
		return virtualTCG
	case "VBoxVBoxVBox":
		return "VirtualBox"
	}
	// Some repeat a short signature to fill the twelve bytes: "bhyve bhyve ".
	if words := strings.Fields(signature); len(words) > 1 && len(slices.Compact(slices.Clone(words))) == 1 {
		return words[0]
	}
	return signature
}

func (m *machine) smt(f *Fingerprint) Finding {
	const name = "smt"
	const dir = "sys/devices/system/cpu/smt/"
	active, err := m.read(dir + "active")
	if err != nil {
		return unseen(name, err)
	}
	f.SMT = m.get(dir + "control")
	row := Finding{Name: name, Found: f.SMT, Level: LevelOK}
	if active != "1" {
		if f.SMT == "on" {
			row.Found = "no siblings online"
		}
		row.Means = "no other thread shares the core's execution units and predictors"
		if f.Virtual != "" && f.Virtual != "none" {
			row.Means = "none that this VM can see; the hypervisor may still run two virtual CPUs on one core"
		}
		return row
	}
	row.Found += ", siblings online"
	row.Level = LevelNote
	row.Means = "a busy sibling takes up to half of the measured core"
	row.Do = "keep the sibling of the measured core idle (/sys/devices/system/cpu/cpuN/topology/thread_siblings_list)"
	return row
}

func (m *machine) governor(f *Fingerprint) Finding {
	const name = "cpufreq-governor"
	const dir = "sys/devices/system/cpu"
	count := make(map[string]int)
	driver := ""
	for _, cpu := range m.list(dir) {
		if _, err := strconv.Atoi(strings.TrimPrefix(cpu, "cpu")); err != nil || !strings.HasPrefix(cpu, "cpu") {
			continue
		}
		if g := m.get(path.Join(dir, cpu, "cpufreq/scaling_governor")); g != "" {
			count[g]++
			driver = m.get(path.Join(dir, cpu, "cpufreq/scaling_driver"))
		}
	}
	if len(count) == 0 {
		f.Governor = "none"
		row := Finding{Name: name, Found: "none: the kernel has no cpufreq driver", Level: LevelNote,
			Means: "firmware or the hypervisor sets the clock and does not tell, so a slower round may be a slower clock"}
		return row
	}
	var names []string
	for g := range count {
		names = append(names, g)
	}
	slices.Sort(names)
	f.Governor = strings.Join(names, ", ")
	row := Finding{Name: name, Found: f.Governor, Level: LevelOK, Means: "the clock does not wait for load"}
	if driver != "" {
		row.Found += " (" + driver + ")"
	}
	if f.Governor != "performance" {
		row.Level = LevelWarn
		row.Means = "the clock follows load, so short rounds start slow and ns per packet move with it"
		row.Do = "cpupower frequency-set -g performance, while measuring"
	}
	return row
}

// ticks are the first line of /proc/stat, in USER_HZ.
type ticks struct{ total, steal uint64 }

func (m *machine) ticks() (ticks, error) {
	s, err := m.read("proc/stat")
	if err != nil {
		return ticks{}, err
	}
	line, _, _ := strings.Cut(s, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return ticks{}, fmt.Errorf("parse /proc/stat: no steal time in %q", line)
	}
	var t ticks
	// user nice system idle iowait irq softirq steal; guest time is in user.
	for i, field := range fields[1:9] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return ticks{}, fmt.Errorf("parse /proc/stat: %w", err)
		}
		t.total += n
		if i == 7 {
			t.steal = n
		}
	}
	return t, nil
}

// steal watches how much time the hypervisor takes away right now.
func (m *machine) steal(ctx context.Context) (Finding, error) {
	const name = "steal-time"
	before, err := m.ticks()
	if err != nil {
		return unseen(name, err), nil
	}
	window := m.opts.StealWindow
	if window == 0 {
		window = 200 * time.Millisecond
	}
	select {
	case <-ctx.Done():
		return Finding{}, fmt.Errorf("watch steal time: %w", ctx.Err())
	case <-time.After(window):
	}
	after, err := m.ticks()
	if err != nil {
		return unseen(name, err), nil
	}
	var now float64
	if total := after.total - before.total; total > 0 && after.steal >= before.steal {
		now = 100 * float64(after.steal-before.steal) / float64(total)
	}
	var since float64
	if after.total > 0 {
		since = 100 * float64(after.steal) / float64(after.total)
	}
	row := Finding{Name: name, Level: LevelOK, Means: "nobody takes the CPUs away at the moment",
		Found: fmt.Sprintf("%.1f %% in the last %d ms, %.1f %% since boot", now, window.Milliseconds(), since)}
	if now >= 1 {
		row.Level = LevelWarn
		row.Means = "the hypervisor runs others on these CPUs: rates read low, and differ from round to round"
		row.Do = "measure when it is quiet, or on CPUs of your own"
	}
	return row, nil
}
