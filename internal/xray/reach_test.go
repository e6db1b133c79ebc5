package xray

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/xdppath"
)

func TestReach(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, dir := range []string{"sys/class/net/eth0/device", "sys/class/net/veth0", "sys/kernel/iommu_groups"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	behind := t.TempDir()
	for _, dir := range []string{"sys/class/net/eth0/device", "sys/kernel/iommu_groups/0"} {
		if err := os.MkdirAll(filepath.Join(behind, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	unmap := xdppath.Site{Function: "__iommu_unmap", Pointer: "iommu_domain_ops.unmap_pages", Stage: functions.StageDMA}
	ops := xdppath.Site{Function: "dma_unmap_phys", Pointer: "dma_map_ops.unmap_phys", Stage: functions.StageDMA}
	poll := xdppath.Site{Function: "__napi_poll", Pointer: "napi_struct.poll", Stage: functions.StageReceive}
	for _, test := range []struct {
		name   string
		reach  reach
		site   xdppath.Site
		cannot string
	}{
		{"veth, IOMMU", reachOf(root, "veth0"), unmap, "veth0 maps no memory for DMA"},
		{"veth, DMA", reachOf(root, "veth0"), ops, "veth0 maps no memory for DMA"},
		{"veth, poll", reachOf(root, "veth0"), poll, ""},
		{"NIC without IOMMU", reachOf(root, "eth0"), unmap, "this machine uses no IOMMU"},
		{"NIC without IOMMU, DMA", reachOf(root, "eth0"), ops, ""},
		{"NIC with IOMMU", reachOf(behind, "eth0"), unmap, ""},
		{"driver", reachOf(root, ""), unmap, "this machine uses no IOMMU"},
		{"unknown device", reachOf(behind, "gone"), ops, ""},
		{"unknown machine", reachOf(t.TempDir(), "eth0"), unmap, ""},
	} {
		if got := test.reach.cannot(test.site); got != test.cannot {
			t.Errorf("%s: %q, want %q", test.name, got, test.cannot)
		}
	}
}
