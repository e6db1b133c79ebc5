package filter_test

import (
	"fmt"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/unthunk/unthunk/filter"
	"github.com/unthunk/unthunk/xsk"
)

// arp is the beginning of an ARP frame.
var arp = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, 0, 1}

func ExampleCompile() {
	program, err := filter.Compile("arp")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, ins := range program {
		fmt.Println(ins)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		fmt.Println(err)
		return
	}
	n, err := vm.Run(arp)
	fmt.Println(n > 0, err)
	// Output:
	// ldh [12]
	// jneq #2054,1
	// ja 1
	// ja 1
	// ret #262144
	// ret #0
	// true <nil>
}

func ExampleClaim() {
	program, err := filter.Compile("udp port 53")
	if err != nil {
		fmt.Println(err)
		return
	}
	claim, err := filter.Claim(program)
	if err != nil {
		fmt.Println(err)
		return
	}
	// xsk.Attach gives a device's frames to sockets; all others pass.
	options := xsk.ProgramOptions{Claim: claim}
	fmt.Println(len(options.Claim) > 0)
	// Output: true
}

// What Claim returns jumps to both labels, as xsk.ProgramOptions.Claim must.
func TestClaimJumps(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{"arp", "not arp", "tcp port 443 or udp port 53", "1 6 0 0 65535"} {
		program, err := filter.Compile(expression)
		if err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		claim, err := filter.Claim(program)
		if err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		references := claim.ReferenceOffsets()
		for _, label := range []string{xsk.ClaimLabel, xsk.PassLabel} {
			if len(references[label]) == 0 {
				t.Errorf("%s: no jump to %s", expression, label)
			}
		}
	}
	if _, err := filter.Compile("arp and"); err == nil {
		t.Error("half an expression compiles")
	}
}
