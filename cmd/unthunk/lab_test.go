package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestLabRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(t.TempDir(), "vmlinuz-0.0")
	if err := os.WriteFile(text, []byte("no kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	zero := filepath.Join(dir, "zero.deb")
	if err := os.Symlink("/dev/zero", zero); err != nil {
		t.Fatal(err)
	}
	image := arm64Image(t)
	refuses(t, "lab", []refused{
		{"no kernel", nil, exitUsage, "lab needs a kernel"},
		{"experiment", []string{"debian:6.12-cloud", "--ab", "nonsense"}, exitUsage, `"nonsense"`},
		{"two command lines", []string{"debian:6.12-cloud", "--ab", "spectre_v2", "--append", "x"}, exitUsage, "--append"},
		{"bulk", []string{"debian:6.12-cloud", "--bulk", "0"}, exitUsage, "bulk 0"},
		{"limit", []string{"debian:6.12-cloud", "--limit", "1ms"}, exitUsage, "1ms"},
		{"run and JSON", []string{"debian:6.12-cloud", "--run", "check", "--json"}, exitUsage, "--run"},
		{"save nowhere", []string{"debian:6.12-cloud", "--save", filepath.Join(dir, "no", "x.json")}, exitFailed, "no such file"},
		{"no such file", []string{filepath.Join(dir, "none")}, exitFailed, "a kernel is a tree, "},
		{"empty folder", []string{dir}, exitFailed, "no boot/vmlinuz"},
		{"no kernel in it", []string{text}, exitFailed, "neither a bzImage nor a vmlinux"},
		{"package that is a device", []string{zero}, exitFailed, "not a regular file"},
		{"name", []string{"debian:6_12"}, exitFailed, "debian:VERSION"},
		{"suite", []string{"debian:bookwurm"}, exitFailed, "the suite is none of bullseye"},
		{"list of a kernel", []string{"debian:6.12", "--list", "debian"}, exitUsage, "--list"},
		{"list of another", []string{"--list", "fedora"}, exitUsage, `"fedora"`},
		{"list as JSON", []string{"--list", "debian", "--json"}, exitUsage, "--json"},
		{"list of another architecture", []string{"--list", "debian", "--arch", "riscv64"}, exitUsage, `"riscv64" is not amd64 or arm64`},
		{"architecture with KVM", []string{"debian:6.12-cloud", "--arch", "arm46", "--accel", "kvm"}, exitUsage, "did you mean arm64?"},
		{"retpolines by name", []string{"debian:6.12-cloud-arm64", "--ab", "spectre_v2", "--accel", "tcg"}, exitUsage, "arm64 has no retpolines"},
		{"retpolines of one", []string{"debian:6.12-amd64", "debian:6.12-arm64", "--ab", "spectre_v2", "--accel", "tcg"}, exitUsage,
			"arm64 has no retpolines"},
		{"retpolines of an Image", []string{image, "--ab", "spectre_v2", "--accel", "tcg"}, exitUsage, "arm64 has no retpolines"},
		{"resume of nothing", []string{"debian:all-cloud", "--resume"}, exitUsage, "name it by --save"},
		{"resume of a run", []string{"debian:all-cloud", "--resume", "--run", "check"}, exitUsage, "leave --resume out"},
		{"resume of a program", []string{"debian:all-cloud", "--resume", "--save", "x.json", "--prog", "lb.o"}, exitUsage, "leave --prog"},
		{"configuration of a kernel", []string{"debian:6.12", "--config"}, exitUsage, "--config"},
	})
	if guest.Available(guest.AMD64) == nil {
		refuses(t, "lab", []refused{
			{"model", []string{"debian:6.12-cloud", "--cpu-model", "NoSuchCPU"}, exitUsage, `no CPU model "NoSuchCPU"`},
			{"near model", []string{"debian:6.12-cloud", "--cpu-model", "EPIC"}, exitUsage, "did you mean EPYC?"},
		})
		if !guest.KVM(t.Context(), guest.AMD64) {
			refuses(t, "lab", []refused{{"no KVM", []string{"debian:6.12-cloud", "--accel", "kvm"}, exitMissing,
				"KVM for guests of amd64 is missing"}})
		}
	}
	if guest.Available(guest.ARM64) == nil {
		refuses(t, "lab", []refused{
			{"model of x86-64", []string{image, "--cpu-model", "EPYC"}, exitUsage, `no CPU model "EPYC" of arm64`},
			{"model of one", []string{"debian:6.12-amd64", "debian:6.12-arm64", "--cpu-model", "cortex-a72"}, exitUsage, `"cortex-a72" of amd64`},
		})
		if !guest.KVM(t.Context(), guest.ARM64) {
			refuses(t, "lab", []refused{{"no KVM of arm64", []string{"debian:6.12-cloud-arm64", "--accel", "kvm"}, exitMissing,
				"KVM for guests of arm64 is missing"}})
		}
	}
	refuses(t, "lab-guest", []refused{{"not in a guest", nil, exitMissing, "a guest of lab"}})
}

// arm64Image is a file that says of itself that it is a kernel of arm64.
func arm64Image(t *testing.T) (path string) {
	t.Helper()
	b := make([]byte, 0x80)
	copy(b[0x38:], "ARM\x64")
	path = filepath.Join(t.TempDir(), "Image")
	if err := os.WriteFile(path, append(b, "Linux version 6.12.1-made (me@here) (gcc 12.2.0) #7 SMP Mon\n\x00"...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Guests are of the architectures that their kernels say, unless one is asked for.
func TestGuestArches(t *testing.T) {
	image := arm64Image(t)
	own := (&matrixFlags{}).guestArch()
	for _, test := range []struct {
		arch    string
		kernels []string
		want    []string
	}{
		{"", []string{"debian:6.12-cloud", "none", "a.deb"}, []string{own}},
		{"", []string{"debian:6.12-cloud-arm64"}, []string{guest.ARM64}},
		{"", []string{image, "debian:6.12-amd64", image}, []string{guest.ARM64, guest.AMD64}},
		{guest.AMD64, []string{image}, []string{guest.AMD64}},
	} {
		f := matrixFlags{arch: test.arch}
		if err := f.checkArch(); err != nil {
			t.Errorf("architecture %q: %v", test.arch, err)
		}
		if got, err := f.guestArches(t.Context(), test.kernels); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%q of %q: %q, %v, want %q", test.kernels, test.arch, got, err, test.want)
		}
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if got, err := (&matrixFlags{}).guestArches(stopped, []string{image}); !errors.Is(err, context.Canceled) {
		t.Errorf("a run that was stopped: %q, %v", got, err)
	}
}

// A base of guests of arm64, which have no trace, gets one only where it was asked for.
func TestGateTraces(t *testing.T) {
	for _, test := range []struct {
		kernel             string
		trace, given, want bool
	}{
		{"debian:6.12-amd64", true, false, true},
		{"debian:6.12-amd64", false, true, false},
		{"debian:6.12-arm64", true, false, false},
		{"debian:6.12-arm64", true, true, true},
	} {
		f := gateFlags{trace: test.trace, traceGiven: test.given}
		if got, err := f.traces(t.Context(), test.kernel); err != nil || got != test.want {
			t.Errorf("%+v: %v, %v", test, got, err)
		}
	}
}

// A record without an estimate says why: a run that was stopped has the rights.
func TestLabPrice(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, test := range []struct {
		ctx  context.Context
		want string
	}{
		{stopped, "no estimate in ns: the run was stopped"},
		{t.Context(), "no estimate in ns: CAP_SYS_ADMIN and CAP_NET_ADMIN is missing: root has lost it"},
	} {
		err := testutil.Capable(t, func() error {
			price, warnings := labPrice(test.ctx, std{out: io.Discard, err: io.Discard})
			if price != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0].Text, test.want) {
				t.Errorf("price %v, %v, want %q", price, warnings, test.want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A guest that never began, as in a run that was stopped, has no number: no price is asked for.
func TestPriceForNone(t *testing.T) {
	t.Parallel()
	silent := std{out: io.Discard, err: io.Discard}
	price, warnings := priceFor(t.Context(), silent, host.Fingerprint{}, []lab.CellResult{{}, {Err: errors.New("no boot")}})
	if price != nil || len(warnings) > 0 {
		t.Errorf("price %v, %v", price, warnings)
	}
}

// A machine whose kernel has no retpolines has no price of one: nothing is measured.
func TestPriceOfAnotherThunk(t *testing.T) {
	t.Parallel()
	counted := []lab.CellResult{{Measurement: &lab.Measurement{
		Build: &record.LabBuild{Arch: runtime.GOARCH}, Bulks: []lab.BulkCount{{Sent: 1}},
	}}}
	price, warnings := priceFor(t.Context(), std{out: io.Discard, err: io.Discard}, host.Fingerprint{IndirectThunk: "ITS thunk"}, counted)
	const want = "no estimate in ns: the price is of an indirect call by ITS thunk, and those of guests are retpolines; lab as root on"
	if price != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0].Text, want) ||
		runtime.GOARCH == "amd64" && !strings.Contains(warnings[0].Text, "unthunk tax --pair user") {
		t.Errorf("price %v, %v, want %s", price, warnings, want)
	}
}

// Without a guest that counted there is nothing to estimate: no price is measured.
func TestLabWithoutGuest(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	modules := filepath.Join(dir, "lib/modules/6.12.1-made")
	err := errors.Join(os.MkdirAll(modules, 0o755), os.Mkdir(filepath.Join(dir, "boot"), 0o755),
		os.WriteFile(filepath.Join(dir, "boot/vmlinuz-6.12.1-made"), testutil.BzImage("6.12.1-made", "no kernel"), 0o600),
		os.WriteFile(filepath.Join(modules, "modules.builtin"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "lab.json")
	code, _, stderr := unthunk(t, "lab", dir, "--bulk", "16", "--save", file)
	skipMissing(t, code, stderr)
	if code != exitFailed || !strings.Contains(stderr, "find module veth: file does not exist") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	saved, err := record.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if l := saved.Lab(); l.Price != nil || len(l.Warnings) > 0 || len(l.Rows) != 1 || l.Rows[0].Refused == "" {
		t.Errorf("price %v, warnings %v, rows %+v", l.Price, l.Warnings, l.Rows)
	}
}
