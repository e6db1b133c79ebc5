package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// guestProgram is unthunk for guests of another architecture.
func guestProgram(t *testing.T, arch string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "unthunk-"+arch)
	if err := guest.BuildFor(t.Context(), arch, testutil.Package("cmd/unthunk"), path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Guests of arm64 count the same in each boot, on another CPU model and without mitigations. A packet goes through the
// same indirect branches as on x86-64, and through one for each program, which there is a dispatcher for.
func TestLabARM64(t *testing.T) {
	const kernel = "debian:6.12-cloud-arm64"
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	testutil.SkipMissing(t, guest.Available(guest.ARM64))
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Resolve(t.Context(), cache, kernel); err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	program := guestProgram(t, guest.ARM64)
	plan := Plan{
		Kernels: []string{kernel}, Arch: guest.ARM64, GuestProgram: program, CPUs: []string{"", "neoverse-n1"},
		Appends: []string{"", "mitigations=off"}, Bulks: []int{1, 16}, Limit: 10 * time.Minute,
	}
	cells, err := Run(ctx, plan, program, nil)
	if err != nil {
		t.Fatal(err)
	}
	counts := make([]string, len(cells))
	for i, c := range cells {
		if c.Err != nil {
			t.Fatalf("%s: %v\n%s", c.Name(), c.Err, c.Console)
		}
		if c.Build.Arch != guest.ARM64 {
			t.Errorf("%s: build %+v", c.Name(), c.Build)
		}
		for _, b := range c.Bulks {
			sum := 0.0
			for _, s := range b.Sites {
				sum += s.PerPacket
				counts[i] += fmt.Sprintf("%d %s %s %s %g %d\n", b.Bulk, s.Function, s.Pointer, s.Target, s.PerPacket, s.Executed)
			}
			counts[i] += fmt.Sprintf("%d: %v instructions, %g indirect branches\n", b.Bulk, *b.Instructions, sum)
			if want := map[int]float64{1: 8, 16: 3.3125}[b.Bulk]; sum != want {
				t.Errorf("%s at bulk %d: %g indirect branches, want %g", c.Name(), b.Bulk, sum, want)
			}
		}
		if diff := cmp.Diff(counts[0], counts[i]); diff != "" {
			t.Errorf("%s counts otherwise than %s:\n%s", c.Name(), cells[0].Name(), diff)
		}
	}
	t.Log(counts[0])
	for _, want := range []string{
		"1 bq_xmit_all xdp_dev_bulk_queue.dev → net_device.netdev_ops → net_device_ops.ndo_xdp_xmit veth_ndo_xdp_xmit 2 1\n",
		"1 bpf_dispatcher_xdp_func argument bpf_func of bpf_dispatcher_xdp_func  3 1\n",
		"16 bpf_dispatcher_xdp_func argument bpf_func of bpf_dispatcher_xdp_func  3 1\n",
		"1 __napi_poll napi_struct.poll veth_poll 2 1\n",
	} {
		if !strings.Contains(counts[0], want) {
			t.Errorf("no %q", want)
		}
	}
}
