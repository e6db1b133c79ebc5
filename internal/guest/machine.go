package guest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/memory"
)

// Machine is a guest to boot. Kernel and Init are required.
type Machine struct {
	QEMU   QEMU
	Kernel Kernel
	// Init is the built package lab/init on this machine.
	Init string
	// CPU is the QEMU model; empty is all that can be emulated. Kernels choose their
	// mitigations by it: EPYC gets the return thunk against Retbleed,
	// Skylake-Server and Icelake-Server the ITS thunks.
	CPU string
	// CPUs is how many the guest has; 0 is one. An igb has a queue for each. [Machine.Exact] takes one alone.
	CPUs int
	// KVM runs the guest on this machine's CPU, of which it sees all when CPU is empty.
	// It is not [Machine.Exact].
	KVM bool
	// Append is added to the kernel's command line.
	Append string
	// Exact makes the guest's clock count instructions, one ns each, from a
	// beginning that is always the same: two boots take the same way, and the
	// time stamp counter reads instructions executed.
	Exact bool
	// NICs are the guest's network interfaces. They have no way out of it.
	NICs []NIC
	// IOMMU adds Intel's; the kernel uses it when its command line says so.
	IOMMU bool
	// Modules are loaded before the commands run, with what they depend on.
	Modules []string
	// Extra are modules that are loaded too where the kernel has them.
	Extra []string
	// Needs are parts of [Config] that the commands need. What a kernel's configuration lacks of
	// them, where that is known, is a [Lacking] before the guest is booted.
	Needs []string
	// Files are put into the guest with mode 0755: the path there → the
	// path here.
	Files map[string]string
	// Data is put into the guest too: the path there → what is in it.
	Data map[string][]byte
	// MaxResults is the most that the commands may write in all, in bytes; 0 is 32 MiB.
	MaxResults int64
	// Debug, when set, is called before the guest executes anything, and beside it from its
	// first [gdb.Client.Continue] on. An error other than [gdb.ErrEnded] ends the guest. When
	// the guest ends, what Debug waits for fails.
	Debug func(*Debugger) error
}

// NIC is a network interface of a guest.
type NIC struct {
	// Model is virtio, virtio-no-indirect, vmxnet3 or igb.
	Model string
	MAC   string
	// Options are QEMU's of the device, on top of those of its model: "iommu_platform=off".
	Options string
	// Wire connects it to those with the same number.
	Wire int
}

// models are the devices of NICs, with the options that let a driver run XDP and, of
// virtio, that make it use the DMA API as other NICs do.
var models = map[string]string{
	"virtio": virtio,
	// The host offers no tables of descriptors, each of which the driver allocates and maps for a frame that it sends.
	"virtio-no-indirect": virtio + ",indirect_desc=off",
	"vmxnet3":            "vmxnet3",
	"igb":                "igb",
}

const virtio = "virtio-net-pci,disable-legacy=on,iommu_platform=on,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"

// nicModules are the kernel modules that drive a model.
var nicModules = map[string][]string{
	"virtio": {"virtio_pci", "virtio_net"}, "virtio-no-indirect": {"virtio_pci", "virtio_net"}, "vmxnet3": {"vmxnet3"}, "igb": {"igb"},
}

// commandLine is the kernel's command line.
func (m *Machine) commandLine(a architecture) string {
	// A panic reboots at once, which -no-reboot turns into an exit.
	line := "console=" + a.console + " loglevel=4 panic=-1"
	if m.Exact {
		// The self-test of a source of random numbers takes 130 million instructions.
		line += " nokaslr cryptomgr.notests=1" + a.exact + " initcall_blacklist=jent_mod_init"
	} else {
		line += a.timed
	}
	return strings.TrimSpace(line + " " + m.Append)
}

// model is QEMU's -cpu.
func (m *Machine) model(a architecture) string {
	model := cmp.Or(m.CPU, "max")
	if model == "max" && !m.KVM {
		model += a.signing
	}
	if m.Exact {
		model += a.counter
	}
	return model
}

// devices are the arguments for NICs and the IOMMU, which must come first.
func (m *Machine) devices() (args []string) {
	if m.IOMMU {
		args = append(args, "-device", "intel-iommu,intremap=off")
	}
	for i, nic := range m.NICs {
		id := fmt.Sprintf("nic%d", i)
		args = append(args,
			"-netdev", fmt.Sprintf("hubport,id=%s,hubid=%d", id, nic.Wire),
			// igb claims the slot after its own.
			"-device", fmt.Sprintf("%s,netdev=%s,mac=%s,addr=%#x", strings.TrimSuffix(models[nic.Model]+","+nic.Options, ","),
				id, nic.MAC, 4+2*i))
	}
	return args
}

// Report is what came out of a guest.
type Report struct {
	Results []Result
	// Console is what the kernel and /init printed, and QEMU before them.
	Console string
	// absent are options that are needed and not in the kernel's configuration, which may be why
	// a command failed.
	absent   []string
	absentBy string
}

// checkArch returns an error when the first program is of another architecture than the kernel, or a device is
// none of its guests'.
func (m *Machine) checkArch(arch string) error {
	if arch == ARM64 && (len(m.NICs) > 0 || m.IOMMU) {
		return &feature.Missing{Feature: "a NIC in guests of " + arch, Help: "they have veth"}
	}
	if err := CheckProgram(m.Init, arch); err != nil {
		return fmt.Errorf("boot guest %s: %w", m.Kernel.Release, err)
	}
	return nil
}

// Build builds a Go package as a static binary for guests of this machine's architecture.
func Build(ctx context.Context, pkg, binary string) error {
	return BuildFor(ctx, runtime.GOARCH, pkg, binary)
}

// BuildFor is [Build] for guests of an architecture.
func BuildFor(ctx context.Context, arch, pkg, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, bytes.TrimSpace(out))
	}
	return nil
}

// Run boots the guest, runs the commands one after the other and waits until
// it has powered off. It returns an error when the guest ended before all
// commands did; the report then holds what came out until there.
func (m *Machine) Run(ctx context.Context, commands ...Command) (Report, error) {
	arch := cmp.Or(m.Kernel.Arch, AMD64)
	if err := Available(arch); err != nil {
		return Report{}, err
	}
	if err := m.checkArch(arch); err != nil {
		return Report{}, err
	}
	a := architectures[arch]
	if m.Exact && m.CPUs > 1 {
		return Report{}, fmt.Errorf("boot guest %s: instructions are counted on one CPU, not on %d", m.Kernel.Release, m.CPUs)
	}
	if err := m.Kernel.check(append([]string{PartBoot}, m.Needs...)...); err != nil {
		return Report{}, err
	}
	// Files without names: nothing is left, however this process ends.
	var files [4]*os.File
	for i := range files {
		f, err := nameless()
		if err != nil {
			return Report{}, fmt.Errorf("boot guest: %w", err)
		}
		defer f.Close()
		files[i] = f
	}
	initrd, console, results, image := files[0], files[1], files[2], files[3]
	if err := m.writeInitrd(ctx, initrd, commands); err != nil {
		return Report{}, fmt.Errorf("write initramfs: %w", err)
	}
	if err := copyImage(ctx, image, m.Kernel.Image, m.Exact); err != nil {
		return Report{}, fmt.Errorf("boot guest: %w", err)
	}
	accel := "tcg"
	if m.KVM {
		accel = "kvm"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", a.board + ",accel=" + accel, "-cpu", m.model(a), "-m", "512", "-smp", strconv.Itoa(max(m.CPUs, 1)),
		"-serial", "file:" + inherited(1),
		"-kernel", inherited(3), "-initrd", inherited(0),
	}
	if m.Exact {
		// One instruction a nanosecond.
		args = append(args, "-icount", "shift=0,sleep=off", "-seed", "1", "-rtc", "base=2026-01-01T00:00:00,clock=vm")
	}
	if arch == ARM64 {
		args = append(args, "-chardev", "file,id=results,path="+inherited(2), "-device", "pci-serial,chardev=results,addr=2")
	} else {
		args = append(args, "-serial", "file:"+inherited(2))
	}
	args = append(args, m.devices()...)
	debugger, err := m.newDebugger(len(files))
	if err != nil {
		return Report{}, fmt.Errorf("boot guest: %w", err)
	}
	if debugger != nil {
		defer debugger.close()
		args = append(args, debugger.args...)
	}
	args = append(args, "-append", m.commandLine(a))
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	most := cmp.Or(m.MaxResults, int64(MaxResults))
	go watch(ctx, stop, map[*os.File]int64{console: maxConsole, results: most})
	qemu, err := m.QEMU.For(arch).command(ctx, args...)
	if err != nil {
		return Report{}, fmt.Errorf("boot guest: %w", err)
	}
	qemu.ExtraFiles = files[:]
	qemu.WaitDelay = unwantedTime // what it said is no result, and who stops a run waits for its end
	out := &messages{said: memory.NewHead(maxMessages), stop: stop}
	qemu.Stdout, qemu.Stderr = out, out
	runtime.LockOSThread() // the signal of Pdeathsig comes when the thread ends that started it
	defer runtime.UnlockOSThread()
	runErr := debugger.run(qemu, m.Debug, stop)

	r := Report{absent: m.Kernel.which("", m.Needs...), absentBy: "by " + m.Kernel.Config}
	text, err := io.ReadAll(io.NewSectionReader(console, 0, maxConsole))
	if err != nil && runErr == nil {
		return r, fmt.Errorf("read console: %w", err)
	}
	r.Console = string(text)
	if said := out.said.String(); said != "" {
		// Before what the guest printed: its last words are at the end.
		r.Console = "QEMU: " + said + r.Console
	}
	if r.Results, err = readResults(io.NewSectionReader(results, 0, most), commands); err != nil && runErr == nil {
		return r, err
	}
	switch {
	case ctx.Err() != nil:
		return r, m.Kernel.explain(r.Console, fmt.Errorf("boot guest %s: %w", m.Kernel.Release, context.Cause(ctx)))
	case runErr != nil:
		return r, fmt.Errorf("boot guest %s: %w: %s", m.Kernel.Release, runErr, bytes.TrimSpace(out.said.Bytes()))
	case len(r.Results) != len(commands):
		err := fmt.Errorf("guest %s ended after %d of %d commands", m.Kernel.Release, len(r.Results), len(commands))
		return r, m.Kernel.explain(r.Console, err)
	}
	return r, nil
}

// ErrKVM is the error of a guest that this machine's KVM cannot execute, though QEMU can begin to.
var ErrKVM = errors.New("KVM of this machine cannot execute it")

// messages are what QEMU says. Where the CPU cannot go on QEMU says so, and waits without end for who would look at it.
type messages struct {
	said *memory.Head
	stop context.CancelCauseFunc
}

// Write ends the guest when QEMU has stopped it (kvm_cpu_exec in QEMU's accel/kvm/kvm-all.c).
func (m *messages) Write(p []byte) (int, error) {
	n, err := m.said.Write(p)
	for _, said := range []string{"KVM internal error", "error: kvm run failed"} {
		if bytes.Contains(m.said.Bytes(), []byte(said)) {
			m.stop(fmt.Errorf("%w: QEMU says %q", ErrKVM, said))
		}
	}
	return n, err
}

// Limits on what a guest and QEMU may write, in bytes: tests of a package write 100 KB.
const (
	maxConsole  = 4 << 20
	MaxResults  = 32 << 20
	maxMessages = 64 << 10
)

// watch ends a guest that writes more than it may into one of files, until ctx ends.
func watch(ctx context.Context, stop context.CancelCauseFunc, files map[*os.File]int64) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for f, limit := range files {
			if info, err := f.Stat(); err == nil && info.Size() > limit {
				stop(fmt.Errorf("it wrote more than %d MiB", limit>>20))
			}
		}
	}
}

// nameless is a file in the folder for temporary ones that has no name any more. QEMU can
// open it again.
func nameless() (*os.File, error) {
	f, err := os.CreateTemp("", "unthunk-guest-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	if c := unprivileged(); c != nil {
		if err := f.Chown(int(c.Uid), int(c.Gid)); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// inherited is the path by which a child opens its i-th extra file.
func inherited(i int) string { return fmt.Sprintf("/proc/self/fd/%d", 3+i) }

// writeInitrd writes the initramfs.
func (m *Machine) writeInitrd(ctx context.Context, f io.Writer, commands []Command) error {
	job := Job{Commands: commands}
	a := &archive{w: f}
	inGuest := func(name string) string { return ModuleDir + "/" + name + ".ko" }
	wanted := slices.Clone(m.Modules)
	for _, nic := range m.NICs {
		wanted = append(wanted, nicModules[nic.Model]...)
	}
	extra, err := m.Kernel.having(ctx, m.Extra)
	if err != nil {
		return err
	}
	wanted = append(wanted, extra...)
	order, err := m.Kernel.modules(ctx, func(name string, data []byte) error {
		a.file(inGuest(name), data)
		return a.err
	}, wanted...)
	if err != nil {
		return err
	}
	for _, name := range order {
		job.Modules = append(job.Modules, inGuest(name))
	}
	b, err := json.Marshal(job)
	if err != nil {
		return err
	}
	a.file(JobFile, b)
	files := map[string]string{"/init": m.Init}
	maps.Copy(files, m.Files)
	for _, there := range slices.Sorted(maps.Keys(files)) {
		a.copy(ctx, there, files[there])
	}
	for _, there := range slices.Sorted(maps.Keys(m.Data)) {
		a.file(there, m.Data[there])
	}
	// /dev/console, which the kernel opens for /init, is in the initramfs
	// that is built into it.
	return a.close()
}

// readResults reads how commands ended, one value for each in their order. An error comes
// with the values before it.
func readResults(f io.Reader, commands []Command) ([]Result, error) {
	var rs []Result
	for d := json.NewDecoder(f); d.More(); {
		if len(rs) == len(commands) {
			return rs, fmt.Errorf("read results: more than %d", len(rs))
		}
		r := Result{Args: commands[len(rs)].Args}
		if err := d.Decode(&r); err != nil {
			return rs, fmt.Errorf("read results: %w", err)
		}
		rs = append(rs, r)
	}
	return rs, nil
}
