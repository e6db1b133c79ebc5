package xray

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/xdppath"
)

// reach is what of a path cannot run in this setup, and why. A field is empty when it may,
// or when that is not known.
type reach struct {
	// dma is about all branches of the stage dma, iommu about those of an IOMMU alone.
	dma, iommu string
}

// vethDMA is why no DMA branch runs for a veth.
const vethDMA = "a veth maps no memory for DMA"

// reachOf is that of a device of this machine: a device without a bus device behind it, as
// a veth is, maps no memory. root is the machine's root directory. An empty device is one
// that is not known.
func reachOf(root, device string) reach {
	var r reach
	net := filepath.Join(root, "sys/class/net")
	if _, err := os.Stat(filepath.Join(net, device)); device != "" && err == nil {
		if _, err := os.Stat(filepath.Join(net, device, "device")); os.IsNotExist(err) {
			r.dma = device + " maps no memory for DMA"
		}
	}
	// The folder is there, empty, when the kernel has the code and the machine no IOMMU.
	if groups, err := os.ReadDir(filepath.Join(root, "sys/kernel/iommu_groups")); err == nil && len(groups) == 0 {
		r.iommu = "this machine uses no IOMMU"
	}
	return r
}

// cannot says why a site cannot run, empty when it may.
func (r reach) cannot(s xdppath.Site) string {
	switch {
	case s.Stage != functions.StageDMA:
		return ""
	case r.dma != "":
		return r.dma
	case strings.Contains(s.Function, "iommu") || strings.HasPrefix(s.Pointer, "iommu_"):
		return r.iommu
	}
	return ""
}
