package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// A base of guests of arm64 judges kernels of arm64: exit codes, and what is unlike. A program's trace is refused before a
// guest is booted.
func TestGateARM64(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	testutil.SkipMissing(t, guest.Available(guest.ARM64))
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range []string{"debian:6.12-cloud-arm64", "debian:6.18-cloud-arm64", "debian:6.1-cloud-arm64"} {
		if _, err := guest.Resolve(t.Context(), cache, kernel); err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	program, base, of := filepath.Join(dir, "unthunk-arm64"), filepath.Join(dir, "base.json"), filepath.Join(dir, "amd64.json")
	if err := guest.BuildFor(t.Context(), guest.ARM64, testutil.Package("cmd/unthunk"), program); err != nil {
		t.Fatal(err)
	}
	if err := record.Save(of, recordtest.GateLab("debian:6.12-cloud")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		want string // on standard output or standard error
	}{
		{"gate --save " + base + " --bulk 16 --arch arm64 --guest-program " + program + " debian:6.12-cloud", exitDone, "bulk=16"},
		{"gate --base " + base + " --guest-program " + program + " debian:6.12-cloud", exitDone, "Within: 1 row of the base"},
		{"gate --base " + base + " --unlike config,compiler --guest-program " + program + " debian:6.18-cloud-arm64", exitBeyond,
			"Beyond: redirect-map/bulk=16 "},
		{"gate --base " + base + " --unlike config,compiler --guest-program " + program + " debian:6.1-cloud-arm64", exitCannotTell,
			"KALLSYMS_ALL"},
		{"gate --base " + base + " --arch amd64 debian:6.12-cloud", exitCannotTell, "guests of arm64, and --arch amd64 was asked for"},
		{"gate --base " + base + " " + of, exitCannotTell, "arch"},
		{"gate --base " + base + " --guest-program " + os.Args[0] + " debian:6.12-cloud", exitCannotTell, "guests of arm64 need one of"},
		{"lab debian:6.12-cloud --arch arm64 --guest-program " + program + " --prog " + samples + ":pass --packets udp4 --trace",
			exitMissing, "a trace of a guest of arm64 is missing"},
	} {
		code, stdout, stderr := unthunk(t, strings.Fields(test.args)...)
		said := strings.Join(strings.Fields(stdout+stderr), " ")
		if code != test.code || !strings.Contains(said, test.want) {
			t.Errorf("%s: exit code %d, want %d and %q: %s", test.args, code, test.code, test.want, said)
		}
	}
}

// Models are completed of the architecture that the flag or the kernel says.
func TestCompleteModels(t *testing.T) {
	testutil.SkipMissing(t, guest.Available(guest.AMD64))
	testutil.SkipMissing(t, guest.Available(guest.ARM64))
	for _, test := range []struct{ args, want, not string }{
		{"lab debian:6.12-cloud --cpu-model ", "EPYC", "neoverse-n1"},
		{"lab debian:6.12-cloud-arm64 --cpu-model ", "neoverse-n1", "EPYC"},
		{"lab --arch arm64 --cpu-model ", "neoverse-n1", "EPYC"},
		{"gate --arch amd64 --cpu-model ", "EPYC", "neoverse-n1"},
	} {
		_, stdout, _ := unthunk(t, append([]string{"__complete"}, strings.Split(test.args, " ")...)...)
		models := strings.Fields(stdout)
		if !slices.Contains(models, test.want) || slices.Contains(models, test.not) {
			t.Errorf("%s: %v", test.args, models)
		}
	}
}
