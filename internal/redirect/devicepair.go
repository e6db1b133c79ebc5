package redirect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
)

// DevicePair is a run on the user's own devices under the user's own traffic.
type DevicePair struct {
	// In is what frames come in by. Out is what they are redirected to; other scenarios have none.
	In, Out string
	// Scenario is one of [DeviceScenarios]; "" is [Map].
	Scenario  Scenario
	Operation Operation
	Mode      Mode
	// Tracepoints counts in half of each round what only tracepoints tell: calls of ndo_xdp_xmit, and why redirects
	// fail. Each call of ndo_xdp_xmit on the machine takes longer then, whoever makes it.
	Tracepoints bool
	rounds.Schedule
}

// DeviceScenarios lists what can be measured on real devices.
func DeviceScenarios() []Scenario { return []Scenario{Map, TX, Drop, Pass} }

func (d DevicePair) withDefaults() DevicePair {
	d.Scenario, d.Mode = cmp.Or(d.Scenario, Map), cmp.Or(d.Mode, Native)
	d.Schedule = d.Schedule.Or(rounds.Schedule{Rounds: DefaultRounds, Duration: DefaultDuration})
	return d
}

// Validate returns an error in one line when the run cannot be meant.
func (d DevicePair) Validate() error {
	d = d.withDefaults()
	switch {
	case !slices.Contains(DeviceScenarios(), d.Scenario):
		return fmt.Errorf("scenario %q is not one of those that real devices can run: %s", d.Scenario, names(DeviceScenarios()))
	case d.In == "":
		return errors.New("a run on real devices needs the one that frames come in by")
	case d.Scenario == Map && d.Out == "":
		return fmt.Errorf("a redirect needs both devices, the one that frames come in by and the one that they go out by; "+
			"%s, %s and %s need the first alone", TX, Drop, Pass)
	case d.Scenario != Map && d.Out != "":
		return fmt.Errorf("%s does not redirect: it has no device that frames go out by", d.Scenario)
	case d.In == d.Out:
		return fmt.Errorf("%s is named twice: frames must go out by another device than they came in by", d.In)
	}
	return Plan{Mode: d.Mode, Schedule: d.Schedule}.Validate()
}

// Name is the name of the run's row.
func (d DevicePair) Name() string {
	in, out := d.names()
	name := fmt.Sprintf("%s/in=%s", cmp.Or(d.Scenario, Map), in)
	if out != "" {
		name += "/out=" + out
	}
	return name
}

// names are those of the devices as a record has them: the kernel takes nearly each byte.
func (d DevicePair) names() (in, out string) { return record.Name(d.In), record.Name(d.Out) }

// program is the name of the program under test.
func (d DevicePair) program() string { return "device_" + d.Scenario.program() }

// AttachedPair are devices whose frames go the way of a scenario.
type AttachedPair struct {
	// In and Out are their indexes; Out is 0 where frames are not redirected.
	In, Out int

	devices  []device.Device
	programs *chain.Programs
	links    []link.Link // that of In first
	netns    uint32
	network  *netlink.Handle // of the devices' network namespace
	// generic redirects pass no tracepoint when they leave.
	generic bool
}

// Attach makes every frame that In receives go the way of the scenario, until closed. It must run on a thread in the
// devices' network namespace. In native mode Out is given a program that lets everything pass. Nothing else about the
// devices is changed; the programs end with this process however that ends.
//
// It returns a [feature.Missing] without root, BTF or live frames, or when the driver has no native XDP. Requires at
// least Linux 5.18.
func (d DevicePair) Attach(ctx context.Context) (p *AttachedPair, err error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	d = d.withDefaults()
	if err := probe(ctx, unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON); err != nil {
		return nil, err
	}
	p = &AttachedPair{generic: d.Mode == Generic}
	if err := p.find(d.In, d.Out); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.network, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return p, fmt.Errorf("open netlink socket: %w", err)
	}
	p.programs, err = chain.Load(chain.Config{
		Program: d.program(), Operation: d.Operation.op, Spins: d.Operation.spins,
		Queues: max(1, p.devices[0].Queues),
	})
	if err != nil {
		return p, err
	}
	if p.Out != 0 {
		if err := p.programs.AddPort(0, p.Out, nil); err != nil {
			return p, err
		}
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return p, fmt.Errorf("stat network namespace: %w", err)
	}
	p.netns = uint32(ns.Ino)
	if err := p.attach(); err != nil {
		return p, err
	}
	if err := device.AwaitUp(ctx, p.indexes()...); err != nil {
		return p, err
	}
	return p, p.checkTakesRedirects()
}

// find finds the devices; the name of the second may be empty.
func (p *AttachedPair) find(names ...string) error {
	for _, name := range names {
		if name == "" {
			continue
		}
		dev, err := device.Find(name)
		if err != nil {
			return err
		}
		if err := dev.CheckUp(); err != nil {
			return err
		}
		if len(p.devices) > 0 && p.devices[0].Index == dev.Index {
			return fmt.Errorf("%s and %s are one device: frames must go out by another than they came in by",
				p.devices[0].Name, name)
		}
		p.devices = append(p.devices, dev)
	}
	p.In = p.devices[0].Index
	if len(p.devices) > 1 {
		p.Out = p.devices[1].Index
	}
	return nil
}

func (p *AttachedPair) indexes() (list []int) {
	for _, d := range p.devices {
		list = append(list, d.Index)
	}
	return list
}

func (p *AttachedPair) attach() error {
	in := p.devices[0]
	if p.generic {
		l, err := in.AttachGeneric(p.programs.Tested)
		if err == nil {
			p.links = append(p.links, l)
		}
		return err
	}
	l, err := in.AttachNative(p.programs.Tested, "--mode generic")
	if err != nil {
		return err
	}
	p.links = append(p.links, l)
	if p.Out == 0 {
		return nil
	}
	if l, err = p.devices[1].AttachPass(); l != nil {
		p.links = append(p.links, l)
	}
	return err
}

// checkTakesRedirects returns an error with the cure when Out says that it takes no redirected frames: each redirect
// would fail with EOPNOTSUPP (dev_map_enqueue in kernel/bpf/devmap.c, since Linux 6.3). What it does not say is not
// checked.
func (p *AttachedPair) checkTakesRedirects() error {
	if p.Out == 0 || p.generic {
		return nil
	}
	can, err := host.Features(p.Out)
	if err != nil || can&host.XDPNdoXmit != 0 {
		return nil
	}
	out := p.devices[1].Name
	if peer, ok := p.devices[1].Peer(); ok {
		return fmt.Errorf("%s takes no redirected frames: its peer %s has no XDP program and no GRO: ethtool -K %s gro on",
			out, peer, peer)
	}
	return fmt.Errorf("%s takes no redirected frames (its XDP features are %s): a veth does when its peer has an XDP "+
		"program or GRO (ethtool -K PEER gro on), many NICs when they have queues for it (ethtool -L)", out, can)
}

// CheckPresent returns an error when one of the devices went away. What is counted and timed
// from then on is not theirs.
func (p *AttachedPair) CheckPresent() error {
	for _, d := range p.devices {
		if err := d.CheckPresent(p.network); err != nil {
			return err
		}
	}
	return nil
}

// Handled is how many frames the program has seen so far, by CPU.
func (p *AttachedPair) Handled() ([]uint64, error) {
	counts, err := p.programs.QueueCounts()
	cpus, errCPUs := ebpf.PossibleCPU()
	if err := errors.Join(err, errCPUs); err != nil {
		return nil, err
	}
	perCPU := make([]uint64, cpus)
	for _, c := range counts {
		perCPU[c.CPU] += c.Frames
	}
	return perCPU, nil
}

// CallsPerPacket counts calls for d, by tracepoint programs: polls are those of In. All are 0 when nothing arrived. It
// fails when frames do not leave by Out.
func (p *AttachedPair) CallsPerPacket(ctx context.Context, d time.Duration) (CallsPerPacket, error) {
	o, err := observe.New(observe.Config{Netns: p.netns, From: p.In, Polled: p.In})
	if err != nil {
		return CallsPerPacket{}, err
	}
	stopped := pause(ctx, d)
	seen, err := o.Seen()
	if err = errors.Join(err, o.Close(), stopped); err != nil {
		return CallsPerPacket{}, err
	}
	if tried := seen.Redirects + seen.Errors; tried > 0 && seen.Errors+seen.Drops > tried/1000 {
		return CallsPerPacket{}, fmt.Errorf(
			"%w: of %d frames that came, %d could not be redirected and %d were refused by the device they were to leave by",
			rounds.ErrDisagree, tried, seen.Errors, seen.Drops)
	}
	if seen.Redirects == 0 {
		return CallsPerPacket{}, nil
	}
	return perPacket(seen, seen.Redirects), nil
}

// Close detaches the programs.
func (p *AttachedPair) Close() error {
	var errs []error
	for _, l := range slices.Backward(p.links) {
		errs = append(errs, l.Close())
	}
	p.links = nil
	if p.programs != nil {
		errs = append(errs, p.programs.Close())
	}
	if p.network != nil {
		p.network.Close()
	}
	return errors.Join(errs...)
}
