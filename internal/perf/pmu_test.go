package perf

import "testing"

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
