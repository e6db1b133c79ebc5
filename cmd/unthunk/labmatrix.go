package main

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/record"
)

// matrixFlags say which guests lab and gate boot, and what is counted in each.
type matrixFlags struct {
	appends, cpus, nics, dmas, scenarios []string
	bulks                                []int
	limit                                time.Duration
	arch, guestProgram                   string
}

// kernels are names of kernels for guests of the architecture that was asked for.
func (f *matrixFlags) kernels(names ...string) []string {
	var out []string
	for _, name := range names {
		out = append(out, guest.ArchName(name, f.arch))
	}
	return out
}

// guestArch is that of guests whose kernels do not say theirs.
func (f *matrixFlags) guestArch() string {
	if f.arch == "" && slices.Contains(guest.Arches(), runtime.GOARCH) {
		return runtime.GOARCH
	}
	return cmp.Or(f.arch, guest.AMD64)
}

// guestArches are those of the guests of kernels, each once, as far as they are known before packages are unpacked.
func (f *matrixFlags) guestArches(ctx context.Context, kernels []string) (arches []string, err error) {
	if f.arch != "" {
		return []string{f.arch}, nil
	}
	for _, kernel := range kernels {
		arch, err := guest.ArchOf(ctx, kernel)
		if err != nil {
			return nil, err
		}
		if arch = cmp.Or(arch, f.guestArch()); !slices.Contains(arches, arch) {
			arches = append(arches, arch)
		}
	}
	return arches, nil
}

// checkArch refuses an architecture that no guest has.
func (f *matrixFlags) checkArch() error {
	if f.arch == "" {
		return nil
	}
	if err := guest.CheckArch(f.arch); err != nil {
		return unknownValue(err, []string{f.arch}, guest.Arches())
	}
	return nil
}

func (f *matrixFlags) add(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.appends, "append", nil, "kernel command line; once for each guest that is wanted")
	fl.StringSliceVar(&f.cpus, "cpu-model", nil, "QEMU CPU models, by which kernels choose mitigations")
	fl.StringSliceVar(&f.nics, "nic", []string{lab.Veth}, "what frames go through: "+strings.Join(lab.NICs(), ", "))
	fl.StringSliceVar(&f.dmas, "dma", []string{string(lab.Direct)},
		"how the memory of NICs is mapped: "+strings.Join(record.DMASetups(), ", "))
	fl.IntSliceVar(&f.bulks, "bulk", []int{1, 16, 64}, "frames a batch, 1 to 256")
	addScenarios(fl, &f.scenarios)
	fl.StringVar(&f.arch, "arch", "", "the architecture of the guests, amd64 or arm64; without it that of each kernel")
	fl.StringVar(&f.guestProgram, "guest-program", "",
		"unthunk for guests of another architecture than this machine's, in `FILE`; without it unthunk-ARCH beside this one")
	fl.DurationVar(&f.limit, "limit", lab.DefaultLimit, "what one guest may take")
}
