package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Program is an XDP program on a device.
type Program struct {
	ID uint32
	// Mode is "native", "generic" or "offloaded".
	Mode string
}

// WithPrograms is a device that has XDP programs: one in each mode at most.
type WithPrograms struct {
	Name     string
	Index    uint32
	Programs []Program
}

// modes are the attributes of IFLA_XDP that name a program, by mode (include/uapi/linux/if_link.h,
// Linux 4.19). IFLA_XDP_PROG_ID names none where a device has several.
var modes = map[uint16]string{
	5: "native",    // IFLA_XDP_DRV_PROG_ID
	6: "generic",   // IFLA_XDP_SKB_PROG_ID
	7: "offloaded", // IFLA_XDP_HW_PROG_ID
}

// skipStats asks for devices without their counters (RTEXT_FILTER_SKIP_STATS in
// include/uapi/linux/rtnetlink.h).
const skipStats = 1 << 3

// AllWithPrograms lists the devices of the calling thread's network namespace that have XDP
// programs, and says how many there are in all. The kernel tells anybody.
func AllWithPrograms() (all int, found []WithPrograms, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) { // a device came or went: the others are right
		return 0, nil, fmt.Errorf("list devices: %w", err)
	}
	for _, m := range messages {
		d, err := parseLink(m)
		if err != nil {
			return 0, nil, fmt.Errorf("list devices: %w", err)
		}
		if len(d.Programs) > 0 {
			found = append(found, d)
		}
	}
	return len(messages), found, nil
}

// Programs are the XDP programs on a device.
func (d Device) Programs() ([]Program, error) {
	_, all, err := AllWithPrograms()
	if i := slices.IndexFunc(all, func(w WithPrograms) bool { return w.Index == uint32(d.Index) }); i >= 0 {
		return all[i].Programs, err
	}
	return nil, err
}

// errLink says that a message of the kernel about a device is cut.
var errLink = errors.New("a message about a device is cut")

// parseLink reads a message RTM_NEWLINK: a device's number, name and XDP programs.
func parseLink(b []byte) (d WithPrograms, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return d, errLink
	}
	d.Index = binary.NativeEndian.Uint32(b[4:])
	err = attributes(b[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) error {
		switch kind {
		case unix.IFLA_IFNAME:
			name, _, _ := bytes.Cut(value, []byte{0})
			d.Name = string(name)
		case unix.IFLA_XDP:
			return attributes(value, func(kind uint16, value []byte) error {
				mode, ok := modes[kind]
				switch {
				case !ok:
					return nil
				case len(value) != 4, len(d.Programs) == len(modes): // one of each mode
					return errLink
				}
				d.Programs = append(d.Programs, Program{binary.NativeEndian.Uint32(value), mode})
				return nil
			})
		}
		return nil
	})
	return d, err
}

// attributes calls f for each netlink attribute in b: a length, a type, a value, filled up
// to four bytes (nla_for_each_attr in include/net/netlink.h).
func attributes(b []byte, f func(kind uint16, value []byte) error) error {
	const header, align, flags = 4, 4, unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
	for len(b) >= header {
		size := int(binary.NativeEndian.Uint16(b))
		if size < header || size > len(b) {
			return errLink
		}
		kind := binary.NativeEndian.Uint16(b[2:]) & (math.MaxUint16 ^ flags)
		if err := f(kind, b[header:size]); err != nil {
			return err
		}
		b = b[min((size+align-1)/align*align, len(b)):]
	}
	return nil
}
