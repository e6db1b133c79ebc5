package midr

import (
	"testing"
	"testing/fstest"
)

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

// A CPU is software by its own word, or by QEMU's board and a PMU that counts cycles and no cache: not by one of the two.
func TestEmulated(t *testing.T) {
	const (
		n1     = "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0c\nCPU revision\t: 1\n"
		max    = "CPU implementer\t: 0x00\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0x051\nCPU revision\t: 0\n"
		events = "sys/bus/event_source/devices/armv8_pmuv3/events/"
		tree   = "proc/device-tree/compatible"
		dmi    = "sys/class/dmi/id/sys_vendor"
	)
	for _, test := range []struct {
		name, cpuinfo string
		files         map[string]string
		want          bool
	}{
		{"max", max, nil, true},
		{"a model, device tree", n1,
			map[string]string{tree: "linux,dummy-virt\x00", events + "cpu_cycles": "", events + "stall_backend": ""}, true},
		{"a model, DMI", n1, map[string]string{dmi: "QEMU\n", events + "cpu_cycles": ""}, true},
		{"KVM", n1, map[string]string{tree: "linux,dummy-virt\x00", events + "cpu_cycles": "", events + "br_mis_pred": ""}, false},
		{"KVM, a filter of events", n1, map[string]string{dmi: "QEMU\n", events + "cpu_cycles": "", events + "l1d_cache": ""}, false},
		{"KVM without a PMU", n1, map[string]string{tree: "linux,dummy-virt\x00"}, false},
		{"another board", n1, map[string]string{dmi: "Amazon EC2\n", events + "cpu_cycles": ""}, false},
		{"x86-64", "vendor_id\t: GenuineIntel\n", map[string]string{dmi: "QEMU\n", events + "cpu_cycles": ""}, false},
	} {
		root := fstest.MapFS{"proc/cpuinfo": {Data: []byte(test.cpuinfo)}}
		for path, text := range test.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := Emulated(root); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	if Emulated(fstest.MapFS{}) {
		t.Error("emulated without /proc")
	}
}
