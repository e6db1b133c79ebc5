package xdppath

import (
	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// Root is a function that a walk starts at.
type Root struct {
	Function string
	Addr     uint64
	Stage    functions.Stage
	Per      functions.Per
	// Why it is a root: "napi_struct.poll of veth0".
	Why string

	// objects are the kernel's objects that the root is of.
	objects []codeflow.Object
}

// Site is one indirect branch.
type Site struct {
	// Function is the symbol that it is in, Addr its address, Offset its
	// distance from the symbol in bytes.
	Function     string
	Addr, Offset uint64
	// Entry is the address of the function that it is code of, which has another name
	// when Function is a cold part.
	Entry uint64
	Kind  branch.SiteKind
	// Jump is set for a tail call or a switch.
	Jump bool
	// Thunk is the symbol that it goes through; empty when there is no thunk or
	// the thunk has no symbol.
	Thunk string
	// Register is that of its target; empty when the target comes from memory.
	Register string
	// Check is how CFI tests the target, CheckLen how many bytes of code that has in
	// front of the branch.
	Check    branch.Check
	CheckLen uint64
	// Instructions is how many run up to the first of what is called, those of the check and
	// of the thunk among them; 0 when they cannot be read. Preamble is how many more run in
	// front of the called function, for FineIBT: 0 without, and when the target is not known.
	Instructions, Preamble int
	Stage                  functions.Stage
	// Pointer is the chain of struct members that the target is read from:
	// "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit". Empty when
	// Confidence is Unknown.
	Pointer    string
	Confidence codeflow.Confidence
	// Targets are the functions that the pointer holds now, by name, for
	// the device that the roots are of. Live only.
	Targets []string
	Per     functions.Per
	// Always is set when every way from a root that takes no rare branch goes
	// through here, as often as Per says.
	Always bool
	// Via are the functions from a root to this one, itself included.
	Via []string
}

// Function is one function of the path.
type Function struct {
	Name       string
	Addr, Size uint64 // Size in bytes, padding included
	Stage      functions.Stage
	Per        functions.Per
	// Partial is why it was not decoded or not followed to its end; empty
	// when it was.
	Partial string
	// Callees are the addresses of functions that it calls or jumps to directly.
	Callees []uint64
}

// Inventory is what a walk found. Roots are in the order they were given;
// the rest is sorted by stage, name and address.
type Inventory struct {
	Roots     []Root
	Functions []Function
	Sites     []Site
	// Returns are those of all decoded functions together.
	Returns branch.Returns
}
