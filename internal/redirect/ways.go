package redirect

// Scenarios that only guests count, see [BuildExact]. Each has the program under test of another one, and something else
// before it or behind it.
const (
	Egress  Scenario = "redirect-map-egress" // redirect-map; the devmap's entry has a program
	CPUPass Scenario = "redirect-cpu-pass"   // redirect-cpu; the program there passes to the network stack
	CPUGRO  Scenario = "redirect-cpu-gro"    // the same, with GRO
	SendXSK Scenario = "xsk-tx"              // an AF_XDP socket sends in copy mode; dropped by the device's peer

	// A packet socket sends, so that the program under test meets an skb.
	SKBMap  Scenario = "skb-redirect-map"
	SKBTX   Scenario = "skb-tx"
	SKBDrop Scenario = "skb-drop"
	SKBPass Scenario = "skb-pass"

	// It sends more than a page, which XDP sees in fragments.
	FragsMap  Scenario = "frags-redirect-map"
	FragsTX   Scenario = "frags-tx"
	FragsDrop Scenario = "frags-drop"

	// A worker in user space forwards, over wires, with the kernel's copies of frames and without.
	ForwardCopy     Scenario = "forward-copy"
	ForwardZeroCopy Scenario = "forward-zero-copy"
)

// origin is where the packets of a scenario come from.
type origin int

const (
	liveFrames   origin = iota
	packetSocket        // of family AF_PACKET
	xdpSocket           // of family AF_XDP
)

// way is what a scenario that only guests count has of another one, and where its packets come from.
type way struct {
	of     Scenario
	origin origin
	frags  bool
}

var ways = map[Scenario]way{
	Egress:  {of: Map},
	CPUPass: {of: CPU},
	CPUGRO:  {of: CPU},
	SendXSK: {Drop, xdpSocket, false},
	SKBMap:  {Map, packetSocket, false}, SKBTX: {TX, packetSocket, false},
	SKBDrop: {Drop, packetSocket, false}, SKBPass: {Pass, packetSocket, false},
	ForwardCopy: {of: XSK}, ForwardZeroCopy: {of: XSK},
	FragsMap: {Map, packetSocket, true}, FragsTX: {TX, packetSocket, true}, FragsDrop: {Drop, packetSocket, true},
}

// verdict is the scenario whose program under test it has.
func (s Scenario) verdict() Scenario {
	if w, ok := ways[s]; ok {
		return w.of
	}
	return s
}

// ByPacketSocket tells whether a packet socket sends.
func (s Scenario) ByPacketSocket() bool { return ways[s].origin == packetSocket }

// ByCPUThread tells whether the thread of a cpumap handles frames: what the scheduler does is counted with them.
func (s Scenario) ByCPUThread() bool { return s.verdict() == CPU }

// intoStack tells whether frames are TCP segments that a program of a cpumap passes to the network stack.
func (s Scenario) intoStack() bool { return s == CPUPass || s == CPUGRO }

// onceEach tells whether each frame meets the generator, the program under test and the sink once, and no other program.
// What the BPF dispatcher takes for all three together then does not depend on the order of their addresses.
func (s Scenario) onceEach() bool {
	switch s {
	case Map, MapHash, Plain, TX:
		return true
	}
	return false
}

// Sizes of packets in fragments, in bytes. A veth makes fragments of a page of them.
const (
	fragsSize = 6000
	fragsMTU  = 9000
)

// segmentBytes is how much each TCP segment carries: frames of [DefaultSize].
const segmentBytes = 6

// segments is how many TCP segments follow one another before the first comes again: the shortest window holds whole
// rounds of them.
const segments = 64
