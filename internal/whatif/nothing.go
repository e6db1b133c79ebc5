package whatif

import "github.com/unthunk/unthunk/internal/release"

// nothing is why a change would change nothing with a driver in a setup; empty where it would.
func (u *use) nothing(change string) string {
	switch change {
	case BulkReturn:
		return u.nothingReturned()
	case KeepRX:
		return u.nothingReceived()
	case KeepTX, GatherTX:
		return u.nothingSent()
	}
	switch {
	case release.AtLeast(u.driver.Release, skipsSyncs):
		return "Linux 6.10 and later do that"
	case u.syncs.High == 0:
		return u.by("it makes no sync")
	case u.needsSync():
		return "each sync copies through a bounce buffer"
	}
	return ""
}

// by says what a reason is from.
func (u *use) by(why string) string {
	if u.counted != nil {
		return why + ", as counted"
	}
	return why + " in its code"
}

// xdp_return_frame_bulk returns frames of a page pool together, and each other one by itself (net/core/xdp.c).
func (u *use) nothingReturned() string {
	switch {
	case u.driver.Xmit == "":
		return "it has no ndo_xdp_xmit"
	case u.returns.High == 0 && u.driver.Return == "bulk":
		return "it returns frames in bulk"
	case u.returns.High == 0:
		return "it returns no frame by xdp_return_frame"
	case !u.driver.PagePool:
		return "its frames are of no page pool, and only such return together"
	}
	return ""
}

func (u *use) nothingReceived() string {
	switch {
	case u.rx.maps.High > 0:
		return ""
	case u.counted != nil:
		return u.by("it maps no page for a packet that it receives")
	case !u.driver.DMA:
		return "it calls no DMA API"
	case u.driver.PagePool && !u.driver.MapsPool:
		return "its page pool keeps pages mapped"
	}
	return u.by("it maps nothing to receive")
}

func (u *use) nothingSent() string {
	switch {
	case u.tx.maps.High > 0:
		return ""
	case u.driver.Xmit == "":
		return "it has no ndo_xdp_xmit"
	case u.counted == nil && u.driver.Transmit.Gathers > 0:
		return "it maps lists"
	}
	return u.by("it maps nothing to send")
}
