package xray

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/xdppath"
)

// DefaultDriver is the one whose path is read when nobody names another.
const DefaultDriver = "veth"

// Path is the redirect path of a device or of a driver.
type Path struct {
	*xdppath.Inventory
	// Title is one sentence: what the path is of, and which functions it begins at.
	Title string
	// Driver is that of the device, or the one that the path was asked for.
	Driver string

	kernel *kernel.Kernel
	reach  reach
	// paravirt is how many calls through pv_ops were left out.
	paravirt int
}

// Read reads the path of a device of the running kernel, or that of a driver. With
// neither it is that of a veth with an XDP program, which Read makes in a namespace of
// its own; of a kernel in files it is that of [DefaultDriver].
//
// It returns a [feature.Missing] without root where it makes the veth, and on a live
// kernel whose memory or types cannot be read.
func Read(ctx context.Context, k *kernel.Kernel, device, driver string) (*Path, error) {
	var (
		from *beginning
		err  error
	)
	switch {
	case !k.Live || driver != "":
		from, err = ofDriver(k, cmp.Or(driver, DefaultDriver))
	case device != "":
		from, err = ofDevice(k, device)
	default:
		from, err = ofOwnVeth(k, nil, "a veth with an XDP program")
	}
	if err != nil {
		return nil, err
	}
	return from.read(ctx, k)
}

// ReadProgram reads the path of a veth that Read makes, with an XDP program of the user's: what it calls is on the path
// too. Name is the program's.
func ReadProgram(ctx context.Context, k *kernel.Kernel, program *ebpf.Program, name string) (*Path, error) {
	from, err := ofOwnVeth(k, program, "a veth with the XDP program "+name)
	if err != nil {
		return nil, err
	}
	return from.read(ctx, k)
}

// beginning is where a path begins.
type beginning struct {
	// of is whose path it is, in words; owner the device or the driver that roots
	// are of.
	of, owner, driver string

	reach reach
	roots []xdppath.Root
	// closers take away what was made for the path, the last one first.
	closers []io.Closer
}

// read walks and closes.
func (b *beginning) read(ctx context.Context, k *kernel.Kernel) (*Path, error) {
	p, err := b.walk(ctx, k)
	return p, errors.Join(err, b.close())
}

func (b *beginning) close() (err error) {
	for _, c := range slices.Backward(b.closers) {
		err = errors.Join(err, c.Close())
	}
	return err
}

func ofDriver(k *kernel.Kernel, driver string) (*beginning, error) {
	roots, err := xdppath.DriverRoots(k, driver)
	b := &beginning{of: fmt.Sprintf("%s in %s", driver, k), owner: driver, driver: driver, roots: roots}
	if k.Live {
		b.reach = reachOf("/", "")
	}
	if driver == DefaultDriver {
		b.reach.dma = vethDMA
	}
	return b, err
}

func ofDevice(k *kernel.Kernel, name string) (*beginning, error) {
	dev, err := device.Named(name)
	if err != nil {
		return nil, err
	}
	roots, err := xdppath.LiveRoots(k, dev.Index)
	if err == nil && !slices.ContainsFunc(roots, func(r xdppath.Root) bool {
		return strings.HasPrefix(r.Why, "napi_struct.poll of "+name) ||
			strings.HasPrefix(r.Why, "net_device_ops.ndo_xdp_xmit of "+name)
	}) {
		return nil, &feature.Missing{
			Feature: "a redirect path of " + name,
			Help:    "it has no NAPI poll and no ndo_xdp_xmit, so native XDP_REDIRECT cannot pass it",
		}
	}
	driver := host.Driver(name)
	return &beginning{
		of: fmt.Sprintf("%s (%s)", name, driver), owner: name, driver: driver, roots: roots, reach: reachOf("/", name),
	}, err
}

// ofOwnVeth makes a veth with an XDP program: the given one, or one that does nothing when that is nil. of says what it
// is.
func ofOwnVeth(k *kernel.Kernel, program *ebpf.Program, of string) (*beginning, error) {
	b := &beginning{of: of, owner: "xray0", driver: DefaultDriver, reach: reach{dma: vethDMA}}
	if err := b.makeVeth(k, program); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *beginning) makeVeth(k *kernel.Kernel, program *ebpf.Program) error {
	cpu, err := rounds.CPU{}.Pick()
	if err != nil {
		return err
	}
	ns, err := netlab.New(cpu)
	if err != nil {
		return err
	}
	b.closers = append(b.closers, ns)
	veth, _, err := ns.VethPair(b.owner, "xray1")
	if err != nil {
		return err
	}
	if program == nil {
		if program, err = price.Load("nothing"); err != nil {
			return err
		}
		b.closers = append(b.closers, program)
	}
	if err := veth.Attach(program, link.XDPDriverMode); err != nil {
		return err
	}
	if err := k.Renew(); err != nil { // the program is younger than the symbols
		return err
	}
	return ns.Do(func() (err error) { b.roots, err = xdppath.LiveRoots(k, veth.Index); return err })
}

// walk follows the roots.
func (b *beginning) walk(ctx context.Context, k *kernel.Kernel) (*Path, error) {
	// The page pool and the DMA API are on the path of those that call them,
	// which they do directly.
	roots := slices.DeleteFunc(b.roots, func(r xdppath.Root) bool {
		return r.Stage == functions.StageDMA || r.Stage == functions.StagePagePool
	})
	found, err := xdppath.Walk(ctx, k, roots)
	if err != nil {
		return nil, err
	}
	p := &Path{
		Inventory: found, Title: "The path of " + b.of + begins(found.Roots, b.owner), Driver: b.driver,
		kernel: k, reach: b.reach,
	}
	if !k.Live {
		all := len(p.Sites)
		p.Sites = slices.DeleteFunc(p.Sites, paravirt)
		p.paravirt = all - len(p.Sites)
	}
	return p, nil
}

// begins ends the title: it names the functions of the owner that the path begins at.
func begins(roots []xdppath.Root, owner string) string {
	var names []string
	for _, r := range roots {
		// Queues that share a poll are counted behind the name.
		why, _, _ := strings.Cut(r.Why, " (")
		what, ok := strings.CutSuffix(why, " of "+owner)
		if !ok {
			continue
		}
		what = strings.TrimPrefix(what, "the ")
		if by, given := strings.CutPrefix(what, "given to "); given {
			what = "poll, given to " + by
		}
		names = append(names, fmt.Sprintf("%s is its %s", r.Function, what))
	}
	if len(names) == 0 {
		return "."
	}
	return ": " + strings.Join(names, ", ") + "."
}

// paravirt tells a call through pv_ops, which is not patched yet in a file.
func paravirt(s xdppath.Site) bool { return strings.HasPrefix(s.Pointer, "pv_ops") }
