package virtual

import (
	"testing"
	"testing/fstest"
)

// A CPU is software by its own word, that of its hypervisor, or by QEMU's board and a PMU that counts cycles and no cache: not by one
// of the two.
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
		signature     string
		want          bool
	}{
		{"max", max, nil, "", true},
		{"a model, device tree", n1,
			map[string]string{tree: "linux,dummy-virt\x00", events + "cpu_cycles": "", events + "stall_backend": ""}, "", true},
		{"a model, DMI", n1, map[string]string{dmi: "QEMU\n", events + "cpu_cycles": ""}, "", true},
		{"KVM", n1, map[string]string{tree: "linux,dummy-virt\x00", events + "cpu_cycles": "", events + "br_mis_pred": ""}, "", false},
		{"KVM, a filter of events", n1, map[string]string{dmi: "QEMU\n", events + "cpu_cycles": "", events + "l1d_cache": ""}, "", false},
		{"KVM without a PMU", n1, map[string]string{tree: "linux,dummy-virt\x00"}, "", false},
		{"another board", n1, map[string]string{dmi: "Amazon EC2\n", events + "cpu_cycles": ""}, "", false},
		{"x86-64, QEMU's emulator", "vendor_id\t: AuthenticAMD\n", nil, "TCGTCGTCGTCG", true},
		{"x86-64, KVM", "vendor_id\t: AuthenticAMD\n", nil, "KVMKVMKVM", false},
		{"x86-64", "vendor_id\t: GenuineIntel\n", map[string]string{dmi: "QEMU\n", events + "cpu_cycles": ""}, "", false},
	} {
		root := fstest.MapFS{"proc/cpuinfo": {Data: []byte(test.cpuinfo)}}
		for path, text := range test.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := Emulated(root, test.signature); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	if Emulated(fstest.MapFS{}, "") {
		t.Error("emulated without /proc")
	}
}
