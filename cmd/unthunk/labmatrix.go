package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/unthunk/unthunk/internal/lab"
)

// matrixFlags say which guests lab and gate boot, and what is counted in each.
type matrixFlags struct {
	appends, cpus, nics, dmas, scenarios []string
	bulks                                []int
	limit                                time.Duration
}

func (f *matrixFlags) add(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.appends, "append", nil, "kernel command line; once for each guest that is wanted")
	fl.StringSliceVar(&f.cpus, "cpu-model", nil, "QEMU CPU models, by which kernels choose mitigations")
	fl.StringSliceVar(&f.nics, "nic", []string{lab.Veth}, "what frames go through: veth, virtio, vmxnet3, igb")
	fl.StringSliceVar(&f.dmas, "dma", []string{string(lab.Direct)},
		"how the memory of NICs is mapped: direct, swiotlb, iommu-lazy, iommu-strict, iommu-pt")
	fl.IntSliceVar(&f.bulks, "bulk", []int{1, 16, 64}, "frames a batch, 1 to 256")
	addScenarios(fl, &f.scenarios)
	fl.DurationVar(&f.limit, "limit", lab.DefaultLimit, "what one guest may take")
}
