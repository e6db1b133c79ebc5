package observe

import (
	"fmt"
	"syscall"
)

// Failure is what tracepoints saw of failing redirects, and what helps; empty when none
// failed.
func (s Seen) Failure() string {
	switch {
	case s.Errors > 0:
		return fmt.Sprintf("xdp_do_redirect failed %d times: %v%s", s.Errors, s.Error, cure(s.Error))
	case s.Drops > 0 && s.XmitError != 0:
		return fmt.Sprintf("ndo_xdp_xmit refused %d frames: %v%s", s.Drops, s.XmitError, cure(s.XmitError))
	case s.Drops > 0:
		return fmt.Sprintf("ndo_xdp_xmit refused %d frames", s.Drops)
	}
	return ""
}

// cure is what helps against an error of a redirect, after a colon; empty when that is not
// known.
func cure(err syscall.Errno) string {
	switch err {
	case syscall.EOPNOTSUPP, syscall.ENXIO:
		// dev_map_enqueue returns EOPNOTSUPP for a device without NETDEV_XDP_ACT_NDO_XMIT (Linux
		// 6.3), veth_xdp_xmit ENXIO or EOPNOTSUPP when its peer has no NAPI.
		return ": the device that frames leave by does not take them. A veth does when its peer has GRO on " +
			"(ethtool -K PEER gro on) or an XDP program, many NICs when they have an XDP program"
	case syscall.ENETDOWN:
		return ": the device that frames leave by is down (ip link set DEV up)"
	}
	return ""
}
