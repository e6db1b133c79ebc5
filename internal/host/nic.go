package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// Driver names the driver of a network interface in the caller's network
// namespace: "virtio_net", "veth". It is empty when there is none.
func Driver(dev string) string {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return ""
	}
	defer e.Close()
	info, err := e.DriverInfo(dev)
	if err != nil {
		return ""
	}
	return info.Driver
}

// nics makes rows of every interface of this namespace but loopback.
func (m *machine) nics(f *Fingerprint) []Finding {
	const dir = "sys/class/net"
	var rows []Finding
	var eth *ethtool.Ethtool
	if m.live {
		if e, err := ethtool.NewEthtool(); err == nil {
			eth = e
			defer eth.Close()
		}
	}
	f.Drivers = make(map[string]string)
	for _, dev := range m.list(dir) {
		at := path.Join(dir, dev)
		index, err := strconv.Atoi(m.get(path.Join(at, "ifindex")))
		// bonding_masters is a plain file; 772 is ARPHRD_LOOPBACK.
		if err != nil || m.get(path.Join(at, "type")) == "772" {
			continue
		}
		driver := m.base(path.Join(at, "device/driver"))
		if eth != nil {
			if info, err := eth.DriverInfo(dev); err == nil && info.Driver != "" {
				driver = info.Driver
			}
		}
		if driver != "" {
			f.Drivers[dev] = driver
		}
		physical := m.exists(path.Join(at, "device"))
		rows = append(rows, m.nicRow(at, dev, driver, physical))
		// Virtual devices of no driver have neither rings nor native XDP.
		if driver == "" && !physical || !m.live {
			continue
		}
		if x, err := Features(index); err != nil {
			rows = append(rows, unseen("nic-"+dev+"-xdp", err))
		} else if x != 0 || physical {
			rows = append(rows, featureRow("nic-"+dev+"-xdp", x))
		}
		if eth != nil {
			if row, ok := ringRow(eth, "nic-"+dev+"-rings", dev, physical); ok {
				rows = append(rows, row)
			}
			if row, ok := m.coalescing(eth, dev); ok && physical {
				rows = append(rows, row)
			}
		}
	}
	if len(f.Drivers) == 0 {
		rows = append(rows, Finding{Name: "nics", Found: "no network interface with a driver", Level: LevelNote,
			Means: "only the veth chain can be measured here"})
	}
	return rows
}

func (m *machine) nicRow(at, dev, driver string, physical bool) Finding {
	row := Finding{Name: "nic-" + dev, Level: LevelOK}
	var parts []string
	if driver == "" {
		parts = append(parts, "no driver")
	} else {
		parts = append(parts, driver)
	}
	if !physical {
		parts = append(parts, "virtual")
	}
	if state := m.get(path.Join(at, "operstate")); state != "" && state != "unknown" {
		parts = append(parts, state)
	}
	if speed, err := strconv.Atoi(m.get(path.Join(at, "speed"))); err == nil && speed > 0 {
		parts = append(parts, fmt.Sprintf("%g Gbit/s", float64(speed)/1000))
	}
	if mtu := m.get(path.Join(at, "mtu")); mtu != "" {
		parts = append(parts, "MTU "+mtu)
	}
	if node, err := strconv.Atoi(m.get(path.Join(at, "device/numa_node"))); err == nil && node >= 0 {
		parts = append(parts, fmt.Sprintf("NUMA node %d", node))
	}
	if kind := m.get(path.Join(at, "device/iommu_group/type")); kind != "" {
		parts = append(parts, "IOMMU "+kind)
		if kind != "identity" {
			row.Level = LevelNote
			row.Means = "its DMA is translated: mapping and syncing cost more per packet than with identity"
			row.Do = "boot with iommu=pt where policy allows it"
		}
	}
	row.Found = strings.Join(parts, ", ")
	return row
}

// XDPFeatures are the bits of enum netdev_xdp_act.
type XDPFeatures uint64

// Bits of [XDPFeatures], in the order of include/uapi/linux/netdev.h.
const (
	XDPBasic       XDPFeatures = 1 << iota // DROP, PASS, TX, ABORTED
	XDPRedirect                            // REDIRECT out of this device
	XDPNdoXmit                             // frames redirected into it
	XDPXskZerocopy                         // AF_XDP without a copy
	XDPHWOffload                           // programs run on the NIC
	XDPRxSG                                // multi-buffer frames in
	XDPNdoXmitSG                           // multi-buffer frames redirected in
)

// String is the names of the bits, as in Documentation/netlink/specs/netdev.yaml.
func (x XDPFeatures) String() string {
	if x == 0 {
		return "none"
	}
	var out []string
	for i, name := range []string{"basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg"} {
		if x&(1<<i) != 0 {
			out = append(out, name)
			x &^= 1 << i
		}
	}
	if x != 0 {
		out = append(out, fmt.Sprintf("%#x", uint64(x)))
	}
	return strings.Join(out, ", ")
}

// Features asks the netdev netlink family what XDP can do on an interface of
// the caller's network namespace. It needs no root. It returns a
// [feature.Missing] where the kernel has no such family.
//
// Requires at least Linux 6.3.
func Features(ifindex int) (XDPFeatures, error) {
	// Of include/uapi/linux/netdev.h.
	const (
		cmdDevGet    = 1
		attrIfindex  = 1
		attrFeatures = 3
	)
	family, err := netlink.GenlFamilyGet("netdev")
	if errors.Is(err, unix.ENOENT) {
		return 0, &feature.Missing{Feature: "the netdev netlink family", Since: "6.3", Err: err}
	}
	if err != nil {
		return 0, fmt.Errorf("find netdev netlink family: %w", err)
	}
	// One interface a request: the answers to a dump lack NLM_F_MULTI, so
	// the library would stop after the first.
	request := nl.NewNetlinkRequest(int(family.ID), 0)
	request.AddData(genlHeader{cmdDevGet, 1, 0, 0})
	request.AddData(nl.NewRtAttr(attrIfindex, nl.Uint32Attr(uint32(ifindex))))
	messages, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, fmt.Errorf("get XDP features: %w", err)
	}
	for _, message := range messages {
		if len(message) < len(genlHeader{}) {
			break
		}
		attrs, err := nl.ParseRouteAttr(message[len(genlHeader{}):])
		if err != nil {
			return 0, fmt.Errorf("get XDP features: %w", err)
		}
		for _, a := range attrs {
			if a.Attr.Type == attrFeatures && len(a.Value) >= 8 {
				return XDPFeatures(binary.NativeEndian.Uint64(a.Value)), nil
			}
		}
	}
	return 0, errors.New("get XDP features: not in the answer")
}

// genlHeader is struct genlmsghdr: command, version, two reserved bytes. The
// kernel refuses requests in which those are not 0; nl.Genlmsg does not set
// them.
type genlHeader [4]byte

func (h genlHeader) Len() int          { return len(h) }
func (h genlHeader) Serialize() []byte { return h[:] }

func featureRow(name string, x XDPFeatures) Finding {
	row := Finding{Name: name, Found: x.String(), Level: LevelOK}
	switch {
	case x == 0:
		row.Level = LevelNote
		row.Means = "no native XDP: programs run in generic mode, after an skb was made"
	case x&XDPRedirect == 0:
		row.Level = LevelNote
		row.Means = "it cannot redirect what it receives"
	case x&XDPNdoXmit == 0:
		row.Level = LevelNote
		row.Means = "it redirects what it receives; frames redirected into it are dropped as it is now"
		row.Do = "many drivers turn ndo-xmit on when an XDP program is attached (veth: to the peer) or queues are free: " +
			"attach one before measuring"
	default:
		row.Means = "it redirects, and takes redirected frames"
	}
	if x != 0 && x&XDPXskZerocopy == 0 {
		row.Means += "; AF_XDP copies every packet"
	}
	return row
}

// ringRow is false when the driver reports neither rings nor channels.
func ringRow(e *ethtool.Ethtool, name, dev string, physical bool) (Finding, bool) {
	row := Finding{Name: name, Level: LevelOK}
	var parts []string
	if r, err := e.GetRing(dev); err == nil && r.RxMaxPending+r.TxMaxPending > 0 {
		parts = append(parts, fmt.Sprintf("rx %d of %d, tx %d of %d", r.RxPending, r.RxMaxPending, r.TxPending, r.TxMaxPending))
		if r.TxPending < 256 || r.RxPending < 256 {
			row.Level = LevelNote
			row.Means = "fewer than 256 descriptors: bursts are dropped before NAPI gets to them"
			row.Do = "ethtool -G " + dev + " rx 1024 tx 1024"
		}
	}
	if c, err := e.GetChannels(dev); err == nil && c.MaxCombined+c.MaxRx+c.MaxTx > 0 {
		var kinds []string
		for _, k := range []struct {
			name     string
			now, max uint32
		}{{"combined", c.CombinedCount, c.MaxCombined}, {"rx", c.RxCount, c.MaxRx}, {"tx", c.TxCount, c.MaxTx}} {
			if k.max > 0 {
				kinds = append(kinds, fmt.Sprintf("%s %d of %d", k.name, k.now, k.max))
			}
		}
		parts = append(parts, "channels "+strings.Join(kinds, ", "))
		if physical && row.Means == "" {
			row.Means = "each receive channel redirects on a core of its own; most drivers want a spare transmit queue per core for XDP"
		}
	}
	row.Found = strings.Join(parts, "; ")
	return row, len(parts) > 0
}
