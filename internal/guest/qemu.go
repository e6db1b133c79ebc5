package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/feature"
)

const qemuName = "qemu-system-x86_64"

// QEMU is an emulator. The zero value is the one in PATH.
type QEMU struct {
	// root is the folder its packages are unpacked in, empty for the machine's own.
	root string
}

// FindQEMU returns a QEMU that emulates a model of [NIC]: this machine's, or, where that has
// none, the one of Debian's backports, which apt downloads once and which is kept
// unpacked in dir. It returns a [feature.Missing] where there is neither.
func FindQEMU(ctx context.Context, dir, model string) (QEMU, error) {
	if err := Available(); err != nil {
		return QEMU{}, err
	}
	device, _, _ := strings.Cut(models[model], ",")
	var own QEMU
	if own.emulates(ctx, device) {
		return own, nil
	}
	q := QEMU{root: filepath.Join(dir, "qemu")}
	if _, err := os.Stat(q.path()); errors.Is(err, fs.ErrNotExist) {
		if err := q.download(ctx, dir); err != nil {
			return QEMU{}, &feature.Missing{
				Feature: device + " in QEMU",
				Help:    "install QEMU 8 or newer (Debian 12: apt install -t bookworm-backports qemu-system-x86)",
				Err:     err,
			}
		}
	}
	if !q.emulates(ctx, device) {
		return QEMU{}, &feature.Missing{Feature: device + " in QEMU", Help: "install a newer QEMU"}
	}
	return q, nil
}

func (q QEMU) path() string {
	if q.root == "" {
		return qemuName
	}
	return filepath.Join(q.root, "usr", "bin", qemuName)
}

// command is QEMU with args. One that is unpacked finds its firmware beside itself,
// and its libraries and modules by the environment.
func (q QEMU) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, q.path(), args...)
	if q.root != "" {
		lib := filepath.Join(q.root, "usr", "lib", "x86_64-linux-gnu")
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+lib, "QEMU_MODULE_DIR="+filepath.Join(lib, "qemu"))
	}
	return cmd
}

// emulates tells whether QEMU knows a device.
func (q QEMU) emulates(ctx context.Context, device string) bool {
	out, err := q.command(ctx, "-machine", "none", "-device", "help").Output()
	return err == nil && strings.Contains(string(out), fmt.Sprintf("name %q", device))
}

// download unpacks QEMU of Debian 12's backports, with what it needs and this machine
// lacks, into q.root.
func (q QEMU) download(ctx context.Context, dir string) error {
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	a, err := newApt(ctx, filepath.Join(dir, "apt-qemu"), "bookworm", "bookworm-backports")
	if err != nil {
		return err
	}
	if a == nil {
		return errors.New("apt knows no Debian source")
	}
	temp, err := os.MkdirTemp(dir, "unpack-")
	if err != nil {
		return fmt.Errorf("unpack QEMU: %w", err)
	}
	defer os.RemoveAll(temp)
	debs := filepath.Join(temp, "debs", "partial")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return fmt.Errorf("unpack QEMU: %w", err)
	}
	// Nothing is installed: the lock of those who do is not needed.
	args := append(slices.Clone(a.options), "-y", "-o", "Debug::NoLocking=1", "-o", "Dir::Cache::archives="+filepath.Dir(debs),
		"--download-only", "--no-install-recommends", "-t", "bookworm-backports", "install", "qemu-system-x86")
	if _, err := output(ctx, "apt-get", args...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(debs), "*.deb"))
	if err != nil || len(files) == 0 {
		return errors.New("download QEMU: no package came")
	}
	root := filepath.Join(temp, "root")
	for _, f := range files {
		if _, err := output(ctx, "dpkg-deb", "-x", f, root); err != nil {
			return err
		}
	}
	if err := os.Rename(root, q.root); err != nil {
		return fmt.Errorf("unpack QEMU: %w", err)
	}
	return nil
}

// KVM tells whether QEMU can run guests on this machine's CPU. A machine may have
// /dev/kvm and refuse what QEMU asks of it, as virtual ones do: it is tried, without a
// kernel.
func KVM(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var own QEMU
	cmd := own.command(ctx, "-nodefaults", "-display", "none", "-machine", "q35,accel=kvm", "-cpu", "max", "-S", "-qmp", "stdio")
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"quit"}`)
	return cmd.Run() == nil
}

// CPUModels are the names of the CPUs that this machine's QEMU emulates. It returns a
// [feature.Missing] when there is no QEMU.
func CPUModels(ctx context.Context) ([]string, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	var own QEMU
	out, err := own.command(ctx, "-cpu", "help").Output()
	if err != nil {
		return nil, fmt.Errorf("list CPU models of QEMU: %w", err)
	}
	list, _, _ := strings.Cut(string(out), "\n\n") // flags follow
	var models []string
	for line := range strings.Lines(list) {
		fields := strings.Fields(strings.TrimPrefix(line, "x86 ")) // newer versions have no "x86"
		if len(fields) > 0 && !strings.HasSuffix(line, ":\n") {
			models = append(models, fields[0])
		}
	}
	return models, nil
}

// Available returns a [feature.Missing] when there is no QEMU.
func Available() error {
	if _, err := exec.LookPath(qemuName); err != nil {
		return &feature.Missing{Feature: qemuName, Help: "install qemu-system-x86"}
	}
	return nil
}
