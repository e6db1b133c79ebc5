package lab

import (
	"os"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// A worker that forwards without copies has no DMA map, sync and copy a packet behind a strict
// IOMMU; one with copies has both, and a redirect in the kernel the map.
func TestWorkers(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	cells, err := Run(t.Context(), Plan{
		Kernels: []string{"debian:7.3"}, NICs: []string{"igb", "virtio-no-indirect"}, DMAs: []DMA{IOMMUStrict}, Bulks: []int{64},
		Scenarios: append([]string{DefaultScenario}, WireScenarios()...), Limit: 4 * DefaultLimit,
	}, unthunk(t), nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cells {
		t.Run(c.NIC, func(t *testing.T) {
			testutil.SkipMissing(t, c.Err)
			if c.Err != nil {
				t.Fatalf("%v; console:\n%s", c.Err, c.Console)
			}
			// What is mapped and copied a packet; a probe in another's interrupt is left out now and then.
			for i, want := range []struct{ mapped, copied float64 }{{1, 0}, {1, 2}, {0, 0}} {
				b := &c.Bulks[i]
				if b.Refused != "" {
					t.Errorf("%s: %s", b.Scenario, b.Refused)
					continue
				}
				if b.Sent == 0 || b.Sent != b.Redirected || b.Sent != b.Received {
					t.Errorf("%s: %d sent, %d redirected, %d received", b.Scenario, b.Sent, b.Redirected, b.Received)
				}
				var syncs, copied float64
				for _, part := range b.parts() {
					d := b.dma(part)
					syncs, copied = syncs+d.Sync, copied+*d.Copy
				}
				mapped, _ := b.mapped()
				t.Logf("%s: %v maps, %v syncs, %v copies a packet", b.Scenario, mapped, syncs, copied)
				for what, n := range map[string][2]float64{"maps": {mapped, want.mapped}, "copies": {copied, want.copied}, "syncs": {syncs, 0}} {
					if n[0] > n[1]+0.05 || n[0] < 0.9*n[1] {
						t.Errorf("%s: %v %s a packet, want %v", b.Scenario, n[0], what, n[1])
					}
				}
			}
		})
	}
}
