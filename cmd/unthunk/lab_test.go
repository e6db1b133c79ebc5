package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
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
	refuses(t, "lab", []refused{
		{"no kernel", nil, exitUsage, "lab needs a kernel"},
		{"experiment", []string{"debian:6.12-cloud", "--ab", "nonsense"}, exitUsage, `"nonsense"`},
		{"two command lines", []string{"debian:6.12-cloud", "--ab", "spectre_v2", "--append", "x"}, exitUsage, "--append"},
		{"bulk", []string{"debian:6.12-cloud", "--bulk", "0"}, exitUsage, "bulk 0"},
		{"limit", []string{"debian:6.12-cloud", "--limit", "1ms"}, exitUsage, "1ms"},
		{"run and JSON", []string{"debian:6.12-cloud", "--run", "check", "--json"}, exitUsage, "--run"},
		{"save nowhere", []string{"debian:6.12-cloud", "--save", filepath.Join(dir, "no", "x.json")}, exitFailed, "no such file"},
		{"no such file", []string{filepath.Join(dir, "none")}, exitFailed, "no such file"},
		{"empty folder", []string{dir}, exitFailed, "no boot/vmlinuz"},
		{"no kernel in it", []string{text}, exitFailed, "neither a bzImage nor a vmlinux"},
		{"package that is a device", []string{zero}, exitFailed, "not a regular file"},
		{"name", []string{"debian:6_12"}, exitFailed, "debian:VERSION"},
		{"suite", []string{"debian:bookwurm"}, exitFailed, "the suite is none of bullseye"},
		{"list of a kernel", []string{"debian:6.12", "--list", "debian"}, exitUsage, "--list"},
		{"list of another", []string{"--list", "fedora"}, exitUsage, `"fedora"`},
		{"list as JSON", []string{"--list", "debian", "--json"}, exitUsage, "--json"},
		{"configuration of a kernel", []string{"debian:6.12", "--config"}, exitUsage, "--config"},
	})
	if guest.Available(guest.AMD64) == nil {
		refuses(t, "lab", []refused{
			{"model", []string{"debian:6.12-cloud", "--cpu-model", "NoSuchCPU"}, exitUsage, `no CPU model "NoSuchCPU"`},
			{"near model", []string{"debian:6.12-cloud", "--cpu-model", "EPIC"}, exitUsage, "did you mean EPYC?"},
		})
		if !guest.KVM(t.Context(), guest.AMD64) {
			refuses(t, "lab", []refused{{"no KVM", []string{"debian:6.12-cloud", "--accel", "kvm"}, exitMissing, "KVM is missing"}})
		}
	}
	refuses(t, "lab-guest", []refused{{"not in a guest", nil, exitMissing, "a guest of lab"}})
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
