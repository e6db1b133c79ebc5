package perf

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/midr"
)

func TestIndirectEvents(t *testing.T) {
	for _, test := range []struct {
		name, vendor          string
		family, model         int
		branches, mispredicts uint64
	}{
		{"Zen 2", "AuthenticAMD", 0x17, 0x31, 0, 0xca},
		{"Zen 3", "AuthenticAMD", 0x19, 0x01, 0xcc, 0xca},
		{"Zen 5", "AuthenticAMD", 0x1a, 0x02, 0xcc, 0xca},
		{"Bulldozer", "AuthenticAMD", 0x15, 0x02, 0, 0},
		{"Skylake", "GenuineIntel", 6, 0x55, 0, 0xe489},
		{"Arrow Lake", "GenuineIntel", 6, 0xc6, 0x80c4, 0x80c5},
		{"Panther Lake", "GenuineIntel", 6, 0xcc, 0x50c4, 0x50c5},
		{"Sierra Forest", "GenuineIntel", 6, 0xaf, 0xebc4, 0xebc5},
		{"Westmere", "GenuineIntel", 6, 0x2c, 0, 0},
		{"Nova Lake", "GenuineIntel", 18, 3, 0x50c4, 0x50c5},
		{"beside Nova Lake", "GenuineIntel", 18, 2, 0, 0},
		{"after Zen 6", "AuthenticAMD", 0x1b, 0x02, 0, 0},
		{"Ice Lake", "GenuineIntel", 6, 0x6a, 0x80c4, 0x80c5},
		{"Sapphire Rapids", "GenuineIntel", 6, 0x8f, 0x80c4, 0x80c5},
		{"another", "another", 6, 0x8f, 0, 0},
	} {
		branches, mispredicts := indirectEvents(test.vendor, test.family, test.model)
		if branches != test.branches || mispredicts != test.mispredicts {
			t.Errorf("%s: %#x, %#x", test.name, branches, mispredicts)
		}
	}
}

// Of arm64 only CPUs that leave returns out have events.
func TestIndirectEventsARM64(t *testing.T) {
	for _, test := range []struct {
		name                  string
		id                    midr.ID
		branches, mispredicts uint64
	}{
		{"Neoverse N1", midr.ID{Implementer: 0x41, Variant: 3, Part: 0xd0c, Revision: 1}, 0, 0},
		{"Neoverse V2", midr.ID{Implementer: 0x41, Part: 0xd4f}, 0, 0},
		{"Neoverse N3", midr.ID{Implementer: 0x41, Part: 0xd8e, Revision: 1}, 0x810c, 0x8117},
		{"Neoverse V3AE", midr.ID{Implementer: 0x41, Part: 0xd83}, 0x810c, 0x8117},
		{"Neoverse V3", midr.ID{Implementer: 0x41, Part: 0xd84}, 0x810c, 0x8117},
		{"Ampere-1", midr.ID{Implementer: 0xc0, Part: 0xac3}, 0, 0},
		{"Ampere-1A", midr.ID{Implementer: 0xc0, Part: 0xac4}, 0x810c, 0x8117},
		{"another's d84", midr.ID{Implementer: 0x6d, Part: 0xd84}, 0, 0},
		{"QEMU's max", midr.ID{Part: 0x51}, 0, 0},
	} {
		branches, mispredicts := indirectOfARM64(test.id)
		if branches != test.branches || mispredicts != test.mispredicts {
			t.Errorf("%s: %#x, %#x", test.name, branches, mispredicts)
		}
	}
}

// A CPU that has no event for indirect branches alone counts what it executes, on wrong paths too, under names that say so.
func TestBranchesOfARM64(t *testing.T) {
	speculated := []string{"indirect-speculated 0x7a", "returns-speculated 0x79", "mispredicts-retired 0x22"}
	for _, test := range []struct {
		name              string
		implementer, part uint16
		want              []string
	}{
		{"Neoverse N1", 0x41, 0xd0c, speculated},
		{"Neoverse E1", 0x41, 0xd4a, speculated},
		{"Neoverse V1", 0x41, 0xd40, speculated},
		{"Neoverse N2", 0x41, 0xd49, speculated},
		{"Neoverse V2", 0x41, 0xd4f, speculated},
		{"Ampere-1", 0xc0, 0xac3, speculated},
		{"Neoverse V3", 0x41, 0xd84, []string{"indirect-branches 0x810c", "indirect-mispredicts 0x8117"}},
		{"Cortex-A72", 0x41, 0xd08, nil},
		{"another's d0c", 0x6d, 0xd0c, nil},
	} {
		var got []string
		for _, e := range branchesOfARM64(midr.ID{Implementer: test.implementer, Variant: 3, Part: test.part, Revision: 1}) {
			got = append(got, fmt.Sprintf("%s %#x", e.Name, e.Config))
			if e.Type != unix.PERF_TYPE_RAW {
				t.Errorf("%s: %s is of type %d", test.name, e.Name, e.Type)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	if events := retired(0, 0xe489); len(events) != 1 || events[0].Name != "indirect-mispredicts" {
		t.Errorf("%+v, want mispredicts alone", events)
	}
}
