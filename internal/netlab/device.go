package netlab

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// Device is a network device of a namespace.
type Device struct {
	Name string
	// Index is the device's index in its namespace.
	Index int

	namespace *Namespace
}

// VethPair makes two connected devices with one queue each and sets them up. It returns a [feature.Missing] when the
// kernel has no veth.
func (n *Namespace) VethPair(nameA, nameB string) (a, b Device, err error) {
	return n.vethPair(0, nameA, nameB, 1)
}

// VethQueues is VethPair with as many receive and transmit queues at each end.
func (n *Namespace) VethQueues(nameA, nameB string, queues int) (a, b Device, err error) {
	return n.vethPair(0, nameA, nameB, queues)
}

// VethPairAt is VethPair with the index that the first device has, which no other may have; with 0 the kernel picks it.
func (n *Namespace) VethPairAt(index int, nameA, nameB string) (a, b Device, err error) {
	return n.vethPair(index, nameA, nameB, 1)
}

func (n *Namespace) vethPair(index int, nameA, nameB string, queues int) (a, b Device, err error) {
	err = n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Index = index
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = nameA, queues, queues
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerNumTxQueues: uint32(queues), PeerNumRxQueues: uint32(queues)}
		if err := netlink.LinkAdd(veth); err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) {
				return &feature.Missing{Feature: "veth", Config: "CONFIG_VETH", Help: "modprobe veth", Err: err}
			}
			return fmt.Errorf("add veth %s: %w", nameA, err)
		}
		if a, err = n.up(nameA); err == nil {
			b, err = n.up(nameB)
		}
		return err
	})
	return a, b, err
}

// up sets a device up. It must run on the namespace's thread.
func (n *Namespace) up(name string) (Device, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return Device{}, fmt.Errorf("find %s: %w", name, err)
	}
	if n.withoutAddresses {
		if err := netlink.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
			return Device{}, fmt.Errorf("take IPv6 address from %s: %w", name, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return Device{}, fmt.Errorf("set %s up: %w", name, err)
	}
	return Device{Name: name, Index: l.Attrs().Index, namespace: n}, nil
}

// Take moves a device of this thread's network namespace here and sets it up, to receive frames for any address. When
// the namespace ends, the kernel moves hardware back to the first one.
func (n *Namespace) Take(name string) (Device, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return Device{}, fmt.Errorf("find %s: %w", name, err)
	}
	var here *os.File
	if err := n.Do(func() (err error) {
		here, err = os.Open("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		return Device{}, fmt.Errorf("open network namespace: %w", err)
	}
	defer here.Close()
	if err := netlink.LinkSetNsFd(l, int(here.Fd())); err != nil {
		return Device{}, fmt.Errorf("move %s: %w", name, err)
	}
	var d Device
	err = n.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if err := netlink.SetPromiscOn(l); err != nil {
			return fmt.Errorf("set %s promiscuous: %w", name, err)
		}
		d, err = n.up(name)
		return err
	})
	return d, err
}

// Attach attaches an XDP program to the device until the namespace is closed. Requires at least Linux 5.9.
func (d Device) Attach(p *ebpf.Program, flags link.XDPAttachFlags) error {
	return d.namespace.Do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: d.Index, Flags: flags})
		if err != nil {
			return fmt.Errorf("attach XDP program to %s: %w", d.Name, err)
		}
		d.namespace.links[d.Index] = l
		return nil
	})
}

// Attached tells whether Attach attached a program that is still there.
func (d Device) Attached() (is bool) {
	_ = d.namespace.Do(func() error { // a closed one has none
		_, is = d.namespace.links[d.Index]
		return nil
	})
	return is
}

// Detach detaches what Attach attached.
func (d Device) Detach() error {
	return d.namespace.Do(func() error {
		l, ok := d.namespace.links[d.Index]
		if !ok {
			return fmt.Errorf("detach XDP program: there is none on %s", d.Name)
		}
		delete(d.namespace.links, d.Index)
		if err := l.Close(); err != nil {
			return fmt.Errorf("detach XDP program from %s: %w", d.Name, err)
		}
		return nil
	})
}

// SetMTU sets the device's MTU in bytes. A veth with an XDP program takes what fits into a page with it.
func (d Device) SetMTU(bytes int) error {
	return d.namespace.Do(func() error {
		l, err := netlink.LinkByIndex(d.Index)
		if err == nil {
			err = netlink.LinkSetMTU(l, bytes)
		}
		if err != nil {
			return fmt.Errorf("set MTU of %s: %w", d.Name, err)
		}
		return nil
	})
}

// EndStack makes a program of type [ebpf.SchedCLS] take what the device hands to the network stack, before any protocol,
// in place of an earlier one.
// It returns a [feature.Missing] when the kernel has no such filters.
func (d Device) EndStack(p *ebpf.Program) error {
	return d.namespace.Do(func() error {
		qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: d.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		}}
		filter := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: d.Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1,
			},
			Fd: p.FD(), Name: "end", DirectAction: true,
		}
		err := netlink.QdiscAdd(qdisc)
		if errors.Is(err, unix.EEXIST) { // that of an earlier program
			err = nil
		}
		if err == nil {
			err = netlink.FilterReplace(filter)
		}
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
			return &feature.Missing{
				Feature: "BPF filters at ingress", Config: "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF", Err: err,
			}
		}
		if err != nil {
			return fmt.Errorf("attach filter to %s: %w", d.Name, err)
		}
		return nil
	})
}

// EnableGRO turns generic receive offload on. It gives a veth without an XDP program a NAPI, so that it can receive
// redirected frames.
func (d Device) EnableGRO() error {
	return d.namespace.Do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return fmt.Errorf("open ethtool: %w", err)
		}
		defer e.Close()
		if err := e.Change(d.Name, map[string]bool{"rx-gro": true}); err != nil {
			return fmt.Errorf("turn on GRO of %s: %w", d.Name, err)
		}
		return nil
	})
}

// StackDrops returns how many frames the network stack has dropped on the device because no protocol wanted them
// (rx_dropped).
func (d Device) StackDrops() (frames uint64, err error) {
	err = d.namespace.Do(func() error {
		l, err := netlink.LinkByIndex(d.Index)
		if err != nil {
			return fmt.Errorf("read statistics of %s: %w", d.Name, err)
		}
		frames = l.Attrs().Statistics.RxDropped
		return nil
	})
	return frames, err
}
