package recordtest

import (
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
)

// GateLab is what a gate counts on a kernel, at bulk 1 and 16.
func GateLab(kernel string) *record.Lab {
	l := &record.Lab{Differences: []record.LabDifference{}}
	l.Head = record.Head{Schema: record.Schema, Kind: "lab", Run: kernel, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Host: host.Fingerprint{Kernel: "6.18"}}
	l.Warnings = []record.Warning{}
	for _, bulk := range []string{"1", "16"} {
		instructions, calls := 2936.859375, 5.0
		if bulk == "16" {
			instructions, calls = 1183.734375, 0.3125
		}
		l.Rows = append(l.Rows, record.LabRow{
			Name: kernel + "/bulk=" + bulk, Release: "6.12.117", Thunk: "retpoline", Window: 128, Stamp: 4,
			Labels:       map[string]string{"kernel": kernel, "cpu": "", "append": "", "nic": "veth", "dma": "", "bulk": bulk},
			Instructions: &instructions, CallsPerPacket: &calls,
			Sites: []record.LabSite{{Function: "__napi_poll", Offset: 0x26, Kind: "thunk", Stage: "receive", Target: "veth_poll",
				Executed: 4, PerPacket: calls}},
			Functions: []record.LabFunction{{Function: "bq_xmit_all", PerPacket: 2}},
			Build: &record.LabBuild{Compiler: "gcc 12.2.0", Config: strings.Repeat("0123456789abcdef", 4), CommandLine: "console=ttyS0",
				CPU: "max", QEMU: "7.2.22", Unthunk: "0123456789abcdef"},
		})
	}
	return l
}
