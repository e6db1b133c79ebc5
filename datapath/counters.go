package datapath

// Counters are a port's, in frames except for those of bytes. At the end of every
// poll
//
//	Received + TakenOver = Forwarded + HandedOver + DroppedByProgram + DroppedNoPort + DroppedNoRoom + DroppedRefused
//	Forwarded = Onward.Transmitted + Onward.Unsent + Onward.Lost + Onward.InFlight
//	Accepted = Transmitted + Unsent + Lost + InFlight
//
// hold exactly for each port, and the sum of Forwarded is the sum of Accepted. They hold at each
// worker, and for the sums of all; HandedOver - TakenOver are then on their way between two.
//
// Onward says of each input what became of its frames, also where several inputs share an output.
//
// The verb forward has them as drops, by these names: DroppedByProgram verdict, DroppedNoPort output-gone, DroppedNoRoom
// no-room, DroppedRefused not-sendable, Onward.Unsent link-down, Onward.Lost lost-with-output. What the kernel dropped before, which is
// not Received, is in [xsk.Statistics]: RXDropped is kernel-rx, RXRingFull rx-ring-full.
type Counters struct {
	// As an input.
	Received, ReceivedBytes uint64
	// Forwarded were accepted by an output, and Onward is what became of them.
	Forwarded uint64
	Onward    Outcome
	// HandedOver were given to the worker that has the output, which counts them as TakenOver
	// from this input.
	HandedOver, TakenOver uint64
	// DroppedByProgram: the program said so. DroppedNoPort: it named a port that
	// is not there, or is lost. DroppedNoRoom: the output had none left, as when its link is set down
	// for long.
	// DroppedRefused: the output can never send such a frame, or it came in more
	// than [MaxParts] parts.
	DroppedByProgram, DroppedNoPort, DroppedNoRoom, DroppedRefused uint64
	// Batches in which the frames came. Received/Batches is the batch fill.
	Batches uint64
	// Bad descriptors came out of the port's rings: outside of the UMEM, or in
	// chunks that it did not have. They are no frames. So are frames that it says it
	// did not send, beyond those that it took.
	Bad uint64

	// As an output.
	// Accepted frames of all inputs were taken by the port, and Outcome is what became of them.
	Accepted, AcceptedBytes uint64
	Outcome

	// Losses is how often the port was lost. LinkDowns is how often the link of an AF_XDP
	// port was found down after it had been up; what is shorter than some polls is not seen.
	Losses, LinkDowns uint64
}

// Outcome is what became of frames that an output accepted.
type Outcome struct {
	// Transmitted frames have left the UMEM: their chunks came back. Unsent come
	// back without having been sent: the link had no carrier. How many is exact; which, and so of which input, may be unsure, see
	// [xsk.Socket.Dropped]. Lost were with the output when it was. InFlight are with it, and while its link is set down they wait.
	Transmitted, Unsent, Lost, InFlight uint64
	// Bulks in which frames were handed over. In Onward a bulk counts for each device that it has frames of ([Config].Devices), once:
	// at the port of the device whose frames are the first in it.
	Bulks uint64
}

// frames are all of them.
func (o Outcome) frames() uint64 { return o.Transmitted + o.Unsent + o.Lost + o.InFlight }

func (o *Outcome) add(p Outcome) {
	o.Transmitted += p.Transmitted
	o.Unsent += p.Unsent
	o.Lost += p.Lost
	o.InFlight += p.InFlight
	o.Bulks += p.Bulks
}

// Dropped is the sum of what was received and not forwarded.
func (c Counters) Dropped() uint64 {
	return c.DroppedByProgram + c.DroppedNoPort + c.DroppedNoRoom + c.DroppedRefused
}

// Balanced says whether every frame is accounted for.
func (c Counters) Balanced() bool {
	return c.Received+c.TakenOver == c.Forwarded+c.HandedOver+c.Dropped() &&
		c.Forwarded == c.Onward.frames() && c.Accepted == c.Outcome.frames()
}

// Add sums counters of ports, or of workers.
func (c *Counters) Add(o Counters) {
	c.Received += o.Received
	c.ReceivedBytes += o.ReceivedBytes
	c.Forwarded += o.Forwarded
	c.Onward.add(o.Onward)
	c.HandedOver += o.HandedOver
	c.TakenOver += o.TakenOver
	c.DroppedByProgram += o.DroppedByProgram
	c.DroppedNoPort += o.DroppedNoPort
	c.DroppedNoRoom += o.DroppedNoRoom
	c.DroppedRefused += o.DroppedRefused
	c.Batches += o.Batches
	c.Bad += o.Bad
	c.Accepted += o.Accepted
	c.AcceptedBytes += o.AcceptedBytes
	c.Outcome.add(o.Outcome)
	c.Losses += o.Losses
	c.LinkDowns += o.LinkDowns
}
