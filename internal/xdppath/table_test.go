package xdppath

import (
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// strangers are the functions that a walk finds to hold indirect branches of a packet, a
// bulk or a poll and that the table of functions does not know, neither by their names
// nor by a pattern.
func strangers(inv *Inventory) (out []string) {
	for _, s := range inv.Sites {
		_, known := functions.Find(s.Function)
		known = known || functions.StageOf(s.Function) != "" || functions.Limit(s.Function) != ""
		seldom := s.Per == functions.PerRare || s.Per == functions.PerUnknown
		if !known && !seldom && !slices.Contains(out, s.Function) {
			out = append(out, s.Function)
		}
	}
	return out
}

// TestLiveKnown fails for a function of the core or of veth that the path reaches and that
// is not in the table: after a rename, or a new function of the kernel.
func TestLiveKnown(t *testing.T) {
	k, lab, ifindex := veth(t)
	inv := walkVeth(t, k, lab, ifindex)
	if unknown := strangers(inv); len(unknown) > 0 {
		t.Errorf("on the path, and not in the table: %q", unknown)
	}
}

// TestDebianKnown does the same for Debian's kernels with two drivers.
func TestDebianKnown(t *testing.T) {
	for _, series := range []string{"6.12", "6.1"} {
		for _, driver := range []string{"veth", "virtio_net"} {
			t.Run(series+" "+driver, func(t *testing.T) {
				k, err := kernel.OpenTree(t.Context(), guesttest.Kernel(t, series), driver)
				if err != nil {
					t.Fatal(err)
				}
				roots, err := DriverRoots(k, driver)
				if err != nil {
					t.Fatal(err)
				}
				inv, err := Walk(t.Context(), k, roots)
				if err != nil {
					t.Fatal(err)
				}
				if unknown := strangers(inv); len(unknown) > 0 {
					t.Errorf("on the path, and not in the table: %q", unknown)
				}
			})
		}
	}
}
