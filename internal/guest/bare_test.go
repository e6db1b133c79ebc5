package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A kernel by itself, without modules and without its configuration, boots; what it lacks then
// is told by what fails in the guest.
func TestBare(t *testing.T) {
	needGuests(t)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	m := newMachine(ctx, t, "6.12")
	b, err := os.ReadFile(m.Kernel.Image)
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "bzImage")
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
	release := m.Kernel.Release
	if m.Kernel, err = Resolve(ctx, t.TempDir(), image); err != nil {
		t.Fatal(err)
	}
	if m.Kernel.Release != release || m.Kernel.Modules != "" || m.Kernel.Config != "" {
		t.Errorf("%+v, want release %s and no more", m.Kernel, release)
	}
	m.Exact, m.Needs = true, []string{PartCount}
	rs := run(ctx, t, m, unthunk("version"), unthunk("bench", "--quick"))
	wantExit(t, rs[0], 0)
	if rs[1].Exit == 0 || !slices.Equal(rs[1].Lacks, []string{"CONFIG_VETH"}) || len(rs[0].Lacks) > 0 {
		t.Errorf("exit code %d, lacks %q and %q: %s", rs[1].Exit, rs[1].Lacks, rs[0].Lacks, rs[1].Stderr)
	}
	err = Report{Results: rs}.Lacks(errors.New("it failed"))
	if err == nil || !strings.Contains(err.Error(), "the kernel lacks CONFIG_VETH (by what failed in the guest)") {
		t.Error(err)
	}
	// What says that it is a module, and where there is none, ends before a boot.
	if err := os.WriteFile(filepath.Join(filepath.Dir(image), "config-"+release),
		[]byte(strings.Replace(Config(), "CONFIG_VETH=y", "CONFIG_VETH=m", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if m.Kernel, err = Resolve(ctx, t.TempDir(), image); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err = m.Run(ctx, unthunk("version")); err == nil || !strings.Contains(err.Error(), "it is a module (CONFIG_VETH=m)") ||
		time.Since(begun) > time.Minute {
		t.Error(err)
	}
}
