package gate_test

import (
	"os"
	"testing"

	"github.com/unthunk/unthunk/gate"
	"github.com/unthunk/unthunk/prog"
)

// A test that holds a load balancer to its number of instructions.
func ExampleRun() {
	TestBalancer := func(t *testing.T) {
		file, err := os.Open("testdata/p.pcap")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		packets, err := prog.ReadPackets(file, 1000)
		if err != nil {
			t.Fatal(err)
		}
		lb := gate.Program{Object: "lb.o", Maps: map[string]string{"backends": "testdata/backends.json"}}
		got := gate.Run(t, "debian:6.12-cloud", lb, packets, gate.Options{})
		if tx := got.Row("verdict/tx"); tx == nil || tx.Instructions > 412 {
			t.Errorf("a packet that is sent on takes %+v, want at most 412 instructions", tx)
		}
	}
	_ = TestBalancer
}
