package forward

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/xsk"
)

// defaultFrames is how many chunks each queue of a device has: its fill ring and
// TX ring, twice.
const defaultFrames = 8192

// ring is the length of all rings in entries, but for fill rings of queues that have fewer chunks.
const ring = 2048

// copyChunk is the size of chunks in copy mode, in bytes: half of what zero copy needs, and
// kinder to caches.
const copyChunk = 2048

// afxdp is a forwarder in user space.
type afxdp struct {
	config  Config
	umem    *xsk.UMEM
	path    *datapath.Datapath
	devices []queuedDevice
	route   []route // by input port
	ports   []portOf
	multi   bool

	mu       sync.Mutex
	programs map[int]*xsk.Program // by device; not those lost
	passed   map[int]uint64       // by device, of programs that are closed
	lost     map[int]bool         // devices that are to be found again
	away     map[int]bool         // devices that were lost and have not got their program again
	down     chan int             // devices that were lost
	kernel   []xsk.Statistics     // by port, as last read
	past     []xsk.Statistics     // by port, of sockets that are closed
	sockets  []*xsk.Socket        // by port, nil while lost
	outlets  []*datapath.XSK      // by port, of these sockets
	objects  map[int]*object      // by device
	mode     xsk.Mode             // of all sockets, once they are open

	recovering []sync.Mutex // by device: held while it is taken back
}

// portOf says which queue of which device a port is.
type portOf struct{ device, queue int }

// route is where frames of an input go.
type route struct {
	to        datapath.Action
	direction int // -1 when it is no input
}

func openAFXDP(ctx context.Context, c Config) (f *afxdp, err error) {
	f = &afxdp{
		config: c, programs: make(map[int]*xsk.Program), passed: make(map[int]uint64), lost: make(map[int]bool),
		away: make(map[int]bool), objects: make(map[int]*object), down: make(chan int, 64),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
			f = nil
		}
	}()
	var numbers map[string]int
	if f.devices, numbers, err = c.devices(); err != nil {
		return f, err
	}
	if err := xsk.RaiseMemlock(); err != nil {
		c.Warn(err.Error())
	}
	for i, d := range f.devices {
		for q := range d.queues {
			f.ports = append(f.ports, portOf{i, q})
		}
	}
	f.routes(numbers)
	f.recovering = make([]sync.Mutex, len(f.devices))
	f.sockets, f.outlets = make([]*xsk.Socket, len(f.ports)), make([]*datapath.XSK, len(f.ports))
	f.kernel, f.past = make([]xsk.Statistics, len(f.ports)), make([]xsk.Statistics, len(f.ports))
	if err := f.openSockets(ctx); err != nil {
		return f, err
	}
	ports := make([]datapath.Port, len(f.ports))
	for port, s := range f.sockets {
		f.outlets[port] = datapath.NewXSK(s)
		ports[port] = f.outlets[port]
	}
	f.path, err = datapath.New(datapath.Config{
		UMEM: f.umem, Ports: ports, Batch: c.Batch, Program: f.program, Lost: f.portLost,
	})
	if err != nil {
		return f, err
	}
	// Now that fill rings have chunks: some drivers take the first now or never.
	for i := range f.devices {
		if err := f.attach(ctx, i); err != nil {
			return f, err
		}
	}
	return f, nil
}

// portsOf returns the numbers of a device's ports, by queue.
func (f *afxdp) portsOf(device int) (ports []int) {
	for port, p := range f.ports {
		if p.device == device {
			ports = append(ports, port)
		}
	}
	return ports
}

// routes says which port each input's frames go to: the queue of the same number,
// or as many as there are.
func (f *afxdp) routes(numbers map[string]int) {
	f.route = make([]route, len(f.ports))
	for port := range f.route {
		f.route[port].direction = -1
	}
	for i, d := range f.config.directions() {
		outputs := f.portsOf(numbers[d.Out])
		for queue, port := range f.portsOf(numbers[d.In]) {
			f.route[port] = route{datapath.Redirect(outputs[queue%len(outputs)]), i}
		}
	}
}

// input says whether frames of a device are forwarded.
func (f *afxdp) input(device int) bool {
	for _, d := range f.config.directions() {
		if d.In == f.devices[device].Name {
			return true
		}
	}
	return false
}

// output says whether frames are forwarded to a device.
func (f *afxdp) output(device int) bool {
	for _, d := range f.config.directions() {
		if d.Out == f.devices[device].Name {
			return true
		}
	}
	return false
}

// passedBy is how many frames of a device its programs left to the network stack.
func (f *afxdp) passedBy(name string) (frames uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, d := range f.devices {
		if d.Name != name {
			continue
		}
		frames += f.passed[i]
		if p := f.programs[i]; p != nil {
			now, errNow := p.Passed()
			frames, err = frames+now, errors.Join(err, errNow)
		}
	}
	return frames, err
}

// program forwards a batch, all of which came by one port.
func (f *afxdp) program(frames []datapath.Frame, actions []datapath.Action) {
	to := f.route[frames[0].Port].to
	for i := range actions {
		actions[i] = to
	}
	if f.config.Destination != nil || f.config.Source != nil {
		f.rewrite(frames)
	}
	if f.config.Sample != nil {
		f.config.Sample.take(frames)
	}
}

func (f *afxdp) rewrite(frames []datapath.Frame) {
	dst, src := f.config.Destination, f.config.Source
	for i := range frames {
		b := frames[i].Data
		if len(b) < 14 {
			continue
		}
		if dst != nil {
			copy(b[:6], dst)
		}
		if src != nil {
			copy(b[6:12], src)
		}
	}
}

// portLost notes that a device went. All of its ports will be found lost.
func (f *afxdp) portLost(port int, err error) {
	device := f.ports[port].device
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost[device] {
		return
	}
	f.lost[device], f.away[device] = true, true
	f.config.Warn(fmt.Sprintf("%s is lost: %v", f.devices[device].Name, err))
	select {
	case f.down <- device:
	default:
	}
}

// Run forwards, and takes devices back that come back under their names.
func (f *afxdp) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f.path.Run(ctx) }()
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	tick := time.NewTicker(recoverEach)
	defer tick.Stop()
	said := make(map[int]bool)
	for {
		select {
		case <-tick.C:
			f.warnBlocked(said)
		case device := <-f.down:
			wait.Go(func() { f.recover(ctx, device) })
		case err := <-done:
			return err
		}
	}
}

// warnBlocked warns of each device that sends nothing for want of a program, once until it has
// one. said are those that were warned of. A device that came back is still to get its program.
func (f *afxdp) warnBlocked(said map[int]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	blocked := make(map[int]bool)
	for port, p := range f.outlets {
		device := f.ports[port].device
		blocked[device] = blocked[device] || p.NoProgram() && !f.away[device]
	}
	for device, is := range blocked {
		if is && !said[device] {
			f.config.Warn(fmt.Sprintf("%s sends nothing: its XDP program is gone, and its driver wants one", f.devices[device].Name))
		}
		said[device] = is
	}
}

// Reasons for drops.
const (
	// DropVerdict is the reason of frames that the program drops on purpose.
	DropVerdict  = "verdict"
	dropNoPort   = "output-gone"
	dropNoRoom   = "no-room"
	dropRefused  = "not-sendable"
	dropLinkDown = "link-down"
	dropLost     = "lost-with-output"
	dropKernel   = "kernel-rx"
	dropRingFull = "rx-ring-full"
	dropFailed   = "redirect-failed"
	dropXmit     = "xmit-refused"
)

func (f *afxdp) Totals() (Totals, error) {
	counters := f.path.Counters(nil)
	t := Totals{Busy: f.path.Busy(), Mode: f.mode.String()}
	for _, d := range f.config.directions() {
		t.Directions = append(t.Directions, Direction{In: d.In, Out: d.Out, Up: f.up(d.In) && f.up(d.Out)})
	}
	for i := range t.Directions {
		d := &t.Directions[i]
		var in, out datapath.Counters
		var kernel xsk.Statistics
		outputs := make(map[int]bool)
		for port, r := range f.route {
			if r.direction != i {
				continue
			}
			in.Add(counters[port])
			outputs[int(r.to)-1] = true
			add(&kernel, f.statistics(port))
		}
		for port := range outputs {
			out.Add(counters[port])
		}
		d.Received, d.Sent, d.InFlight, d.Bytes = in.Received, out.Transmitted, out.InFlight, in.ReceivedBytes
		var err error
		if d.Passed, err = f.passedBy(d.In); err != nil {
			return t, err
		}
		d.Batches, d.Bulks = in.Batches, out.Bulks
		d.Drops = []Drop{
			{dropNoRoom, in.DroppedNoRoom}, {dropNoPort, in.DroppedNoPort}, {dropRefused, in.DroppedRefused},
			{DropVerdict, in.DroppedByProgram}, {dropLinkDown, out.Unsent}, {dropLost, out.Lost},
			{dropKernel, kernel.RXDropped}, {dropRingFull, kernel.RXRingFull},
		}
	}
	return t, nil
}

// up says whether a device is there, with all it needs.
func (f *afxdp) up(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.away {
		if f.devices[i].Name == name {
			return false
		}
	}
	return true
}

// statistics are the kernel's of a port, since the beginning.
func (f *afxdp) statistics(port int) xsk.Statistics {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sockets[port]; s != nil {
		if now, err := s.Statistics(); err == nil {
			f.kernel[port] = now
		}
	}
	sum := f.past[port]
	add(&sum, f.kernel[port])
	return sum
}

// add sums the drops.
func add(sum *xsk.Statistics, s xsk.Statistics) {
	sum.RXDropped += s.RXDropped
	sum.RXRingFull += s.RXRingFull
}

// drain is how long Close lets what is in flight leave.
const drain = 100 * time.Millisecond

// Close detaches the programs of inputs, lets what was received leave, detaches the others,
// and returns all.
func (f *afxdp) Close() error {
	errs := []error{f.stopInputs()}
	if f.path != nil {
		f.path.Drain(drain)
		errs = append(errs, f.path.Close())
	}
	for i := range f.devices {
		if f.sockets != nil {
			errs = append(errs, f.closeSockets(i))
		}
	}
	if f.umem != nil {
		errs = append(errs, f.umem.Close())
	}
	return errors.Join(errs...)
}
