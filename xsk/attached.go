package xsk

import (
	"fmt"

	"github.com/cilium/ebpf/link"
)

// Attached says whether the program is still on its device. It goes with the device, and
// somebody else can take it off (bpftool link detach) or put another in its place; ip link set
// dev … xdp off cannot: the kernel refuses that while a link holds the program. After that Close
// it and [Attach] again: sockets and rings are as they were.
func (p *Program) Attached() (bool, error) {
	if p.link == nil {
		return false, nil
	}
	info, err := p.link.Info()
	if err != nil {
		return false, fmt.Errorf("read link of XDP program: %w", err)
	}
	return attachedTo(info) && info.Program == p.id, nil
}

// attachedTo says whether a link is to a device: one that was detached is to none.
func attachedTo(info *link.Info) bool {
	xdp := info.XDP()
	return xdp == nil || xdp.Ifindex != 0
}
