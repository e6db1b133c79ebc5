package netlab

import (
	"fmt"

	"github.com/safchain/ethtool"

	"github.com/unthunk/unthunk/feature"
)

// XDPCounts are frames of a veth with one queue by what its XDP program said of them, as the driver counts them. It does
// so at the end of each poll. Tracepoints tell more, and cost every program of the machine.
type XDPCounts struct {
	// Seen are all; Redirected are those that xdp_do_redirect took, Sent those that XDP_TX sent back. Dropped are
	// verdicts of XDP_DROP, XDP_ABORTED or a number that is none, Failed are redirects and XDP_TX in vain.
	Seen, Redirected, Sent, Dropped, Failed uint64
}

// Passed are those that went to the network stack.
func (c XDPCounts) Passed() uint64 { return c.Seen - c.Redirected - c.Sent - c.Dropped - c.Failed }

// Less is what was counted since an earlier count.
func (c XDPCounts) Less(b XDPCounts) XDPCounts {
	return XDPCounts{
		c.Seen - b.Seen, c.Redirected - b.Redirected, c.Sent - b.Sent, c.Dropped - b.Dropped, c.Failed - b.Failed,
	}
}

// Plus is the sum of two counts.
func (c XDPCounts) Plus(b XDPCounts) XDPCounts {
	return XDPCounts{
		c.Seen + b.Seen, c.Redirected + b.Redirected, c.Sent + b.Sent, c.Dropped + b.Dropped, c.Failed + b.Failed,
	}
}

// CountXDP returns a function that reads the counts. Close ends it. Requires at least Linux 5.8.
func (d Device) CountXDP() (read func() (XDPCounts, error), close func(), err error) {
	var e *ethtool.Ethtool
	// A socket belongs to the namespace of the thread that opened it.
	if err := d.namespace.Do(func() (err error) { e, err = ethtool.NewEthtool(); return err }); err != nil {
		return nil, nil, fmt.Errorf("open ethtool: %w", err)
	}
	read = func() (XDPCounts, error) {
		stats, err := e.Stats(d.Name)
		if err != nil {
			return XDPCounts{}, fmt.Errorf("read statistics of %s: %w", d.Name, err)
		}
		const queue = "rx_queue_0_"
		if _, ok := stats[queue+"xdp_redirect"]; !ok {
			return XDPCounts{}, &feature.Missing{Feature: "XDP statistics of veth", Since: "5.8"}
		}
		return XDPCounts{
			Seen:       stats[queue+"xdp_packets"],
			Redirected: stats[queue+"xdp_redirect"],
			Sent:       stats[queue+"xdp_tx"],
			Dropped:    stats[queue+"xdp_drops"],
			Failed:     stats[queue+"drops"] + stats[queue+"xdp_tx_errors"],
		}, nil
	}
	return read, e.Close, nil
}
