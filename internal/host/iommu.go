package host

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// iommu tells how DMA addresses are made.
func (m *machine) iommu() []Finding {
	params := strings.Fields(m.get("proc/cmdline"))
	units := m.list("sys/class/iommu")
	groups := make(map[string]int)
	hidden := 0
	for _, group := range m.list("sys/kernel/iommu_groups") {
		kind, err := m.read("sys/kernel/iommu_groups/" + group + "/type")
		if err != nil {
			hidden++
			continue
		}
		groups[kind]++
	}
	row := Finding{Name: "iommu", Level: LevelOK}
	var kinds []string
	translated := 0
	for kind, n := range groups {
		kinds = append(kinds, fmt.Sprintf("%d %s", n, kind))
		if kind != "identity" {
			translated += n
		}
	}
	slices.Sort(kinds)
	switch {
	case len(units) == 0 && len(groups) == 0 && hidden == 0:
		row.Found = "none"
		row.Means = "a DMA address is a physical one: mapping a page is a few instructions"
	case translated > 0:
		row.Found = fmt.Sprintf("%d units, groups: %s", len(units), strings.Join(kinds, ", "))
		row.Level = LevelWarn
		row.Means = "DMA is translated: every map and unmap on the path edits page tables, and strict mode (type DMA, " +
			"without FQ) flushes the IOTLB each time"
		row.Do = "boot with iommu=pt, or at least iommu.strict=0"
	case hidden > 0:
		row.Found = fmt.Sprintf("%d units, the type of %d groups needs root", len(units), hidden)
		row.Level = LevelUnknown
	default:
		row.Found = fmt.Sprintf("%d units, groups: %s", len(units), strings.Join(kinds, ", "))
		row.Means = "DMA is passed through, as cheap as without an IOMMU"
	}
	return []Finding{row, m.swiotlb(params)}
}

// swiotlb tells whether frames are copied to reach devices.
func (m *machine) swiotlb(params []string) Finding {
	row := Finding{Name: "swiotlb", Level: LevelOK}
	set := ""
	for _, p := range params {
		if p == "--" {
			break
		}
		if strings.HasPrefix(p, "swiotlb=") {
			set = p
		}
	}
	slabs, err := m.read("sys/kernel/debug/swiotlb/io_tlb_nslabs")
	n, _ := strconv.ParseUint(slabs, 10, 64)
	used := m.get("sys/kernel/debug/swiotlb/io_tlb_used")
	options := strings.Split(strings.TrimPrefix(set, "swiotlb="), ",")
	switch {
	case slices.Contains(options, "force"):
		row.Found = "forced (" + set + ")"
		row.Level = LevelWarn
		row.Means = "every frame is copied through a bounce buffer on its way in and out"
		row.Do = "boot without swiotlb=force, unless the machine is a confidential VM"
	case slices.Contains(options, "noforce"):
		row.Found = "off (" + set + ")"
		row.Means = "no frame is ever bounced"
	case err != nil:
		// Debugfs is for root, and may not be mounted.
		return unseen(row.Name, err)
	case n == 0:
		row.Found = "no buffer"
		row.Means = "no frame is ever bounced"
	default:
		// A slab is 2 KiB (IO_TLB_SHIFT).
		row.Found = fmt.Sprintf("a buffer of %d MiB, %s of %d slabs in use", n>>9, used, n)
		row.Means = "frames are bounced only for devices that cannot reach all memory"
		if used != "" && used != "0" {
			row.Level = LevelNote
			row.Means = "something is bounced right now: if it is the NIC's, every frame is copied"
		}
	}
	return row
}
