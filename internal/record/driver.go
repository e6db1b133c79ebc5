package record

import "strings"

// DriverRow is one row of `drivers`: what a driver with native XDP does for a
// redirected packet, as its code shows.
type DriverRow struct {
	// Name is the module's: "ixgbe". Release is its kernel's.
	Name    string `json:"name"`
	Release string `json:"release"`
	// Xmit is its ndo_xdp_xmit, empty when it has none and so cannot be
	// redirected to; Polls are its NAPI polls.
	Xmit  string   `json:"xmit,omitempty"`
	Polls []string `json:"polls"`
	// PagePool is set when it uses one. That keeps pages mapped, unless MapsPool is
	// set: a function then maps what it takes from the pool.
	PagePool bool `json:"page-pool"`
	MapsPool bool `json:"maps-pool"`
	// DMA is set when it calls the DMA API at all.
	DMA bool `json:"dma"`
	// Return is how frames are returned: "bulk", "each", or "own" when it
	// calls neither xdp_return_frame_bulk nor xdp_return_frame.
	Return string `json:"return"`
	// Poll counts what the polls reach, Receive what of that neither ndo_xdp_xmit
	// nor the completion of transmissions reaches, Transmit what ndo_xdp_xmit does.
	Poll     DriverCalls `json:"poll"`
	Receive  DriverCalls `json:"receive"`
	Transmit DriverCalls `json:"transmit"`
	// Partial are functions that could not be read.
	Partial []string `json:"partial,omitempty"`
}

// DriverCalls are places in code that call what a packet pays for, in a number of
// functions.
type DriverCalls struct {
	Functions int `json:"functions"`
	// Indirect branches.
	Indirect int `json:"indirect"`
	// Maps and Unmaps of single buffers for DMA, Gathers of lists of them,
	// Syncs of one that stays mapped.
	Maps    int `json:"maps"`
	Unmaps  int `json:"unmaps"`
	Gathers int `json:"gathers"`
	Syncs   int `json:"syncs"`
}

// Left lists what the plan of 2018 has left for this driver to do, in its order.
// Empty is a driver that has done all that is known to be of use.
func (r *DriverRow) Left() []string {
	var left []string
	if r.Xmit == "" {
		left = append(left, "ndo_xdp_xmit")
	}
	if r.Return == "each" {
		left = append(left, "bulk return")
	}
	if r.Receive.Maps > 0 && (!r.PagePool || r.MapsPool) {
		left = append(left, "keep RX mapped")
	}
	if r.Transmit.Maps > 0 && r.Transmit.Gathers == 0 {
		left = append(left, "gather TX maps")
	}
	if r.Poll.Indirect+r.Transmit.Indirect > 0 {
		left = append(left, "indirect calls")
	}
	return left
}

// LeftText is Left in words.
func (r *DriverRow) LeftText() string { return strings.Join(r.Left(), ", ") }
