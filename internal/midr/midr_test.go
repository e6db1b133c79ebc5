package midr

import "testing"

func TestParse(t *testing.T) {
	const n1 = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\n" +
		"CPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\nprocessor\t: 1\n"
	for _, test := range []struct {
		name, text, want string
		ok               bool
	}{
		{"n1", n1, "Arm Neoverse N1", true},
		{"max", "CPU implementer\t: 0x00\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0x051\nCPU revision\t: 0\n",
			"emulated (QEMU's max)", true},
		{"unknown", "CPU implementer\t: 0x41\nCPU variant\t: 0x0\nCPU part\t: 0xfff\nCPU revision\t: 0\n", "", true},
		{"x86-64", "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t: 85\n", "", false},
		{"cut off", "CPU implementer\t: 0x41\nCPU architecture: 8\n", "", false},
		{"out of order", "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "", false},
		{"no number", "CPU implementer\t: Arm\n", "", false},
		{"too large", "CPU implementer\t: 0x41000\n", "", false},
	} {
		id, ok := Parse(test.text)
		if ok != test.ok || ok && id.Name() != test.want {
			t.Errorf("%s: %+v, %v, %q", test.name, id, ok, id.Name())
		}
	}
	if id, _ := Parse(n1); id != (ID{0x41, 3, 0xd0c, 1}) || id.String() != "Arm Neoverse N1 r3p1" {
		t.Errorf("%+v", id)
	}
	if got := (ID{0x41, 1, 0xfff, 0}).String(); got != "implementer 0x41 part 0xfff r1p0" {
		t.Errorf("%q", got)
	}
}

func TestHistoryLoop(t *testing.T) {
	for id, want := range map[ID]int{
		{0x41, 3, 0xd0c, 1}: 24, {0x41, 0, 0xd4f, 0}: 132, {0x41, 0, 0xd40, 1}: 32, {0x41, 0, 0xd08, 3}: 8, {0x41, 0, 0xd4d, 0}: 38,
		{0xc0, 0, 0xac3, 0}: 11, {0xc0, 0, 0xac4, 0}: 0, {0x41, 0, 0xd03, 4}: 0, {0x43, 0, 0xd0c, 0}: 0,
	} {
		if got := id.HistoryLoop(); got != want {
			t.Errorf("%v: %d, want %d", id, got, want)
		}
	}
}
