package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/pkgfile"
	"github.com/unthunk/unthunk/internal/privilege"
)

// QEMU is an emulator. The zero value is this machine's own of x86-64: for root one that only root
// can change.
type QEMU struct {
	arch string // empty for amd64
	// root is the folder its packages are unpacked in, empty for the machine's own.
	root string
}

// For is the same emulator of guests of an architecture.
func (q QEMU) For(arch string) QEMU {
	q.arch = arch
	return q
}

// name is the emulator's program.
func (q QEMU) name() string { return architectures[cmp.Or(q.arch, AMD64)].qemu }

// FindQEMU returns a QEMU that emulates a model of [NIC]: this machine's, or, where that has
// none, the one of Debian's backports, which apt downloads once and which is kept
// unpacked in dir. It returns a [feature.Missing] where there is neither.
func FindQEMU(ctx context.Context, dir, model string) (QEMU, error) {
	if err := Available(AMD64); err != nil {
		return QEMU{}, err
	}
	device, _, _ := strings.Cut(models[model], ",")
	var own QEMU
	if own.emulates(ctx, device) {
		return own, nil
	}
	c := cached{filepath.Join(dir, "qemu")}
	err := c.verify(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return QEMU{}, err
	}
	if err != nil {
		if err := downloadQEMU(ctx, c); err != nil {
			return QEMU{}, &feature.Missing{
				Feature: device + " in QEMU",
				Help:    "install QEMU 8 or newer (Debian 12: apt install -t bookworm-backports qemu-system-x86)",
				Err:     err,
			}
		}
	}
	q := QEMU{root: c.root()}
	if !q.emulates(ctx, device) {
		return QEMU{}, &feature.Missing{Feature: device + " in QEMU", Help: "install a newer QEMU"}
	}
	return q, nil
}

// command is QEMU with args, run as [unprivileged]. One that is unpacked finds its firmware
// beside itself, and its libraries and modules by the environment.
func (q QEMU) command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	args = append([]string{"-sandbox", sandbox}, args...)
	var cmd *exec.Cmd
	if q.root == "" {
		own, err := command(ctx, q.name(), args...)
		if err != nil {
			return nil, err
		}
		cmd = own
	} else {
		if err := privilege.Withhold(); err != nil {
			return nil, err
		}
		lib := filepath.Join(q.root, "usr", "lib", "x86_64-linux-gnu")
		cmd = prepared(ctx, filepath.Join(q.root, "usr", "bin", q.name()), args...)
		cmd.Env = append(environment(), "LD_LIBRARY_PATH="+lib, "QEMU_MODULE_DIR="+filepath.Join(lib, "qemu"))
	}
	cmd.Dir = "/"
	// The guest must not outlive this process, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: unprivileged()}
	return cmd, nil
}

// sandbox is what QEMU may not do: start programs, get rights, change priorities and
// affinities, use system calls that no emulation needs.
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// nobody is the user and group that QEMU runs as when this is root: a foreign kernel that
// breaks out of it can read what everybody can, and write nothing.
const nobody = 65534

// unprivileged are the rights that QEMU runs with, nil to keep those of this process.
func unprivileged() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	c := &syscall.Credential{Uid: nobody, Gid: nobody}
	// KVM is for a group in Debian, for everybody in Fedora.
	if info, err := os.Stat("/dev/kvm"); err == nil && info.Mode()&0o060 == 0o060 {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Gid != 0 {
			c.Groups = []uint32{stat.Gid}
		}
	}
	return c
}

// maxAnswer is the most that QEMU may say of itself, in bytes: the CPUs of x86 are some 20 000.
const maxAnswer = 1 << 20

// answer runs QEMU, which says something of itself and ends, and returns its standard output. What is behind [maxAnswer] is an error.
func answer(ctx context.Context, cmd *exec.Cmd) (string, error) {
	out := memory.NewBuffer(ctx, maxAnswer)
	cmd.Stdout = out
	err := runProgram(ctx, cmd)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if out.Err() != nil {
		return "", out.Err() // QEMU ended by a pipe that nobody reads
	}
	var text strings.Builder
	_, _ = out.WriteTo(&text)
	return text.String(), err
}

// emulates tells whether QEMU knows a device. It is asked for that one: for a list of all it loads all of
// its modules, and one of another QEMU's in the system's folder ends it.
func (q QEMU) emulates(ctx context.Context, device string) bool {
	cmd, err := q.command(ctx, "-machine", "none", "-device", device+",help")
	if err != nil {
		return false
	}
	out, err := answer(ctx, cmd)
	return err == nil && strings.Contains(out, device+" options:")
}

// Version is that of an emulator: "7.2.22".
func (q QEMU) Version(ctx context.Context) (string, error) {
	cmd, err := q.command(ctx, "--version")
	if err != nil {
		return "", err
	}
	out, err := answer(ctx, cmd)
	if err != nil {
		return "", fmt.Errorf("ask QEMU for its version: %w", err)
	}
	// "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", and a line of copyright
	fields := strings.Fields(strings.TrimPrefix(out, "QEMU emulator version "))
	if len(fields) == 0 || fields[0] == "QEMU" || len(fields[0]) > 40 {
		return "", fmt.Errorf("ask QEMU for its version: %.40q", out)
	}
	return fields[0], nil
}

// downloadQEMU unpacks QEMU of Debian 12's backports, with what it needs and this machine
// lacks, into a folder of the cache.
func downloadQEMU(ctx context.Context, c cached) error {
	if _, err := program("apt-get"); err != nil {
		return err
	}
	dir := filepath.Dir(c.dir)
	if err := openCache(ctx, dir); err != nil {
		return err
	}
	a, err := newApt(ctx, filepath.Join(dir, "apt-qemu"), AMD64, "bookworm", "bookworm-backports")
	if err != nil {
		return err
	}
	if a == nil {
		return errors.New("apt knows no Debian source")
	}
	return c.fill(ctx, func(debs string) ([]pkgfile.Package, error) {
		if err := os.Mkdir(filepath.Join(debs, "partial"), 0o755); err != nil {
			return nil, fmt.Errorf("unpack QEMU: %w", err)
		}
		// Nothing is installed: the lock of those who do is not needed.
		args := append(slices.Clone(a.options), "-y", "-o", "Debug::NoLocking=1", "-o", "Dir::Cache::archives="+debs,
			"--download-only", "--no-install-recommends", "-t", "bookworm-backports", "install", "qemu-system-x86")
		if _, err := output(ctx, "apt-get", args...); err != nil {
			return nil, err
		}
		paths, err := filepath.Glob(filepath.Join(debs, "*.deb"))
		if err != nil || len(paths) == 0 {
			return nil, errors.New("download QEMU: no package came")
		}
		return files(paths), nil
	}, func(root string) error {
		_, err := os.Stat(filepath.Join(root, "usr", "bin", QEMU{}.name()))
		return err
	})
}

// KVM tells whether QEMU can run guests of an architecture on this machine's CPU. A machine may have
// /dev/kvm and refuse what QEMU asks of it, as virtual ones do: it is tried, without a
// kernel.
func KVM(ctx context.Context, arch string) bool {
	if arch != runtime.GOARCH {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	own := QEMU{arch: arch}
	board, _, _ := strings.Cut(architectures[arch].board, ",")
	cmd, err := own.command(ctx, "-nodefaults", "-display", "none", "-machine", board+",accel=kvm", "-cpu", "max", "-S", "-qmp", "stdio")
	if err != nil {
		return false
	}
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"quit"}`)
	return runProgram(ctx, cmd) == nil
}

// CPUModels are the names of the CPUs of an architecture that this machine's QEMU emulates. It returns a
// [feature.Missing] when there is no QEMU.
func CPUModels(ctx context.Context, arch string) ([]string, error) {
	if err := Available(arch); err != nil {
		return nil, err
	}
	own := QEMU{arch: arch}
	cmd, err := own.command(ctx, "-cpu", "help")
	if err != nil {
		return nil, err
	}
	out, err := answer(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("list CPU models of QEMU: %w", err)
	}
	list, _, _ := strings.Cut(out, "\n\n") // flags follow
	var models []string
	for line := range strings.Lines(list) {
		fields := strings.Fields(strings.TrimPrefix(line, "x86 ")) // newer versions have no "x86"
		if len(fields) > 0 && !strings.HasSuffix(line, ":\n") {
			models = append(models, fields[0])
		}
	}
	return models, nil
}

// Available returns a [feature.Missing] when no guest of an architecture can be booted: there is no QEMU for it.
func Available(arch string) error {
	a, ok := architectures[arch]
	if !ok {
		return &feature.Missing{Feature: "a guest of " + arch, Help: "guests are of " + strings.Join(Arches(), " and ")}
	}
	if _, err := program(a.qemu); err != nil {
		return &feature.Missing{Feature: a.qemu, Help: "install " + a.pkg}
	}
	return nil
}
