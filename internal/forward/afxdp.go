package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/asm"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/internal/rounds"
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
	path    *datapath.Workers
	numbers map[string]int // of the devices, by name
	ports   []portOf       // with those of queues that may come
	workers int
	multi   bool
	// to is the action of each input port's frames. Workers read it while it is replaced.
	to atomic.Pointer[[]datapath.Action]

	events *events
	links  []linkState   // by device; mu is held
	down   chan lostPort // of devices that were lost, until Run knows

	reloading sync.Mutex // held while programs are loaded anew; taken before mu

	rssMu sync.Mutex        // held while RSS is changed or given back; taken before mu
	rss   map[int]spreading // by device, where it was asked for; rssMu is held

	mu       sync.Mutex
	devices  []queuedDevice
	programs map[int]*xsk.Program // by device; not those lost
	passed   map[int]uint64       // by device, of programs that are closed
	lost     map[int]bool         // devices that are to be found again
	away     map[int]bool         // devices that were lost and have not got their program again
	kernel   []xsk.Statistics     // by port, as last read
	past     []xsk.Statistics     // by port, of sockets that are closed
	sockets  []*xsk.Socket        // by port, nil while lost or not there
	used     []bool               // by port: it had a socket
	atEnd    []bool               // by port: it had one when the forwarder was closed
	outlets  []*datapath.XSK      // by port, of these sockets
	file     *objectFile          // that of Config.Object, as last read
	objects  map[int]*object      // by device
	claim    asm.Instructions     // which frames to forward; nil is all
	reloads  int                  // how often programs were
	mode     xsk.Mode             // of all sockets, once they are open

	bare []bool // devices whose program was taken off, by device

	complained []string // of Run alone, by device: why queues that came cannot be used

	recovering []sync.Mutex // by device: held while it is taken back, or its queues are
}

// portOf says which queue of which device a port is.
type portOf struct{ device, queue int }

func openAFXDP(ctx context.Context, c Config) (f *afxdp, err error) {
	f = &afxdp{
		config: c, claim: c.Claim, programs: make(map[int]*xsk.Program), rss: make(map[int]spreading), passed: make(map[int]uint64),
		lost: make(map[int]bool), away: make(map[int]bool), objects: make(map[int]*object), events: newEvents(c),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
			f = nil
		}
	}()
	if f.devices, f.numbers, err = c.devices(); err != nil {
		return f, err
	}
	if c.Object != "" {
		if f.file, err = readObject(ctx, c.Object); err != nil {
			return f, err
		}
	}
	if err := xsk.RaiseMemlock(); err != nil {
		c.Warn(err.Error())
	}
	for i, d := range f.devices {
		for q := range d.most {
			f.ports = append(f.ports, portOf{i, q})
		}
	}
	f.down = make(chan lostPort, len(f.ports))
	workers, err := f.share()
	if err != nil {
		return f, err
	}
	f.route()
	f.recovering, f.complained = make([]sync.Mutex, len(f.devices)), make([]string, len(f.devices))
	f.bare, f.links = make([]bool, len(f.devices)), make([]linkState, len(f.devices))
	f.sockets, f.outlets = make([]*xsk.Socket, len(f.ports)), make([]*datapath.XSK, len(f.ports))
	f.used, f.atEnd = make([]bool, len(f.ports)), make([]bool, len(f.ports))
	f.kernel, f.past = make([]xsk.Statistics, len(f.ports)), make([]xsk.Statistics, len(f.ports))
	if err := f.openSockets(ctx); err != nil {
		return f, err
	}
	ports, devices := make([]datapath.Port, len(f.ports)), make([]int, len(f.ports))
	for port, p := range f.ports {
		devices[port] = p.device
	}
	for port, s := range f.sockets {
		if s != nil {
			f.outlets[port], f.used[port] = datapath.NewXSK(s), true
			ports[port] = f.outlets[port]
		}
	}
	path := datapath.WorkersConfig{
		Config: datapath.Config{
			UMEM: f.umem, Ports: ports, Devices: devices, Batch: c.Batch, Lost: f.portLost, BusyPoll: c.BusyPoll > 0,
		},
		Workers: workers,
	}
	if !c.looks() {
		path.Route = func(port int) datapath.Action { return (*f.to.Load())[port] }
	}
	f.path, err = datapath.NewWorkers(path)
	if err != nil {
		return f, err
	}
	// Now that fill rings have chunks: some drivers take the first now or never.
	for i := range f.devices {
		if err := f.attach(ctx, i); err != nil {
			return f, err
		}
	}
	return f, f.readLinks()
}

// portsOf returns the numbers of a device's ports, by queue, with those of queues that may come.
func (f *afxdp) portsOf(device int) (ports []int) {
	for port, p := range f.ports {
		if p.device == device {
			ports = append(ports, port)
		}
	}
	return ports
}

// share says which worker has which ports.
func (f *afxdp) share() ([]datapath.Worker, error) {
	cpus, err := rounds.UsableCPUs()
	if err != nil {
		return nil, err
	}
	queues, most := 1, 1
	for _, d := range f.devices {
		queues, most = max(queues, d.now), max(most, d.most)
	}
	f.workers = cmp.Or(f.config.Workers, min(queues, len(cpus)))
	if f.workers > most {
		return nil, fmt.Errorf("%d workers: the devices have %d queues at most", f.workers, most)
	}
	if len(f.config.CPUs) > 0 {
		cpus = f.config.CPUs
	} else if f.workers == 1 {
		cpus = nil
	}
	workers := make([]datapath.Worker, f.workers)
	for i := range workers {
		if f.config.looks() {
			workers[i].Program = f.program()
		}
		if len(cpus) > 0 {
			workers[i].CPUs = cpus[i%len(cpus) : i%len(cpus)+1]
		}
	}
	for port := range f.ports {
		w := &workers[f.worker(port)]
		w.Ports = append(w.Ports, port)
	}
	return workers, nil
}

// worker is the number of the worker that has a port.
func (f *afxdp) worker(port int) int { return f.ports[port].queue % f.workers }

// route says where each input's frames go: to the queue of the same number, or as many as there
// are. f.mu is held, or nobody else has f.
func (f *afxdp) route() {
	to := make([]datapath.Action, len(f.ports))
	for _, d := range f.config.directions() {
		out := f.numbers[d.Out]
		outputs := f.portsOf(out)[:f.devices[out].sending]
		for queue, port := range f.portsOf(f.numbers[d.In]) {
			to[port] = datapath.Redirect(outputs[queue%len(outputs)])
		}
	}
	f.to.Store(&to)
}

// input says whether frames of a device are forwarded.
func (f *afxdp) input(device int) bool {
	return slices.ContainsFunc(f.config.directions(), func(p Pair) bool { return p.In == f.devices[device].Name })
}

// output says whether frames are forwarded to a device.
func (f *afxdp) output(device int) bool {
	return slices.ContainsFunc(f.config.directions(), func(p Pair) bool { return p.Out == f.devices[device].Name })
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

// looks says whether the forwarder reads or writes frames.
func (c Config) looks() bool { return c.Destination != nil || c.Source != nil || c.Sample != nil }

// program makes a worker's program, which forwards batches that came by one port.
func (f *afxdp) program() datapath.Program {
	var sample *sampler
	if f.config.Sample != nil {
		sample = &sampler{Sample: f.config.Sample}
	}
	return func(frames []datapath.Frame, actions []datapath.Action) {
		to := (*f.to.Load())[frames[0].Port]
		for i := range actions {
			actions[i] = to
		}
		if f.config.Destination != nil || f.config.Source != nil {
			f.rewrite(frames)
		}
		if sample != nil {
			sample.take(frames)
		}
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

// lostPort is a port whose device went, and what said so.
type lostPort struct {
	port int
	err  error
}

// portLost is called by a worker, and waits for nobody: a reload may hold f.mu while the kernel
// verifies a program.
func (f *afxdp) portLost(port int, err error) {
	select {
	case f.down <- lostPort{port, err}:
	default: // Run has as many to read as there are ports
	}
}

// deviceLost notes that a device went, and says whether that is new: each of its ports is found lost.
func (f *afxdp) deviceLost(l lostPort) (device int, isNew bool) {
	device = f.ports[l.port].device
	f.mu.Lock()
	if isNew = !f.lost[device] && !f.path.Present(l.port); isNew {
		f.lost[device], f.away[device] = true, true
	}
	f.mu.Unlock()
	if isNew {
		f.events.happen(f.name(device), notef(eventLost, true, "%s is lost: %v", f.name(device), l.err))
	}
	return device, isNew
}

// name is that of a device, which never changes.
func (f *afxdp) name(device int) string { return f.devices[device].Name }

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
	said, bare := make(map[int]bool), make(map[int]string)
	for {
		select {
		case <-tick.C:
			f.noteLinks()
			f.warnBlocked(said)
			f.reattach(ctx, bare)
			f.follow(ctx)
		case l := <-f.down:
			if device, isNew := f.deviceLost(l); isNew {
				wait.Go(func() { f.recover(ctx, device) })
			}
		case err := <-done:
			return err
		}
	}
}

// blocked are the devices that have a socket: those that send nothing for want of a program, and
// those that do. A device that came back is still to get its program.
func (f *afxdp) blocked() map[int]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	blocked := make(map[int]bool)
	for port, p := range f.outlets {
		if p == nil {
			continue
		}
		device := f.ports[port].device
		blocked[device] = blocked[device] || p.NoProgram() && !f.away[device]
	}
	return blocked
}

// warnBlocked warns of each device that is blocked, once until it is not. said are those that were
// warned of.
func (f *afxdp) warnBlocked(said map[int]bool) {
	for device, is := range f.blocked() {
		if is && !said[device] {
			f.config.Warn(fmt.Sprintf("%s sends nothing: its XDP program is gone, and its driver wants one", f.devices[device].Name))
		}
		said[device] = is
	}
}

func (f *afxdp) deviceNames() (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.devices {
		list = append(list, f.devices[i].Name)
	}
	return list
}

func (f *afxdp) Polls() (polls []uint64) {
	for i := range f.path.Len() {
		polls = append(polls, f.path.Worker(i).Polls())
	}
	return polls
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

// drain is how long Close receives what came before, and then lets what is in flight leave.
const drain = 100 * time.Millisecond

// Close detaches the programs of inputs, receives what their rings hold and lets it leave, detaches
// the others, and returns all.
func (f *afxdp) Close() error {
	errs := []error{f.stopInputs()}
	if f.path != nil {
		f.receiveRest()
		f.path.Drain(drain)
		errs = append(errs, f.path.Close())
	}
	f.noteEnd()
	for i := range f.devices {
		if f.sockets != nil {
			errs = append(errs, f.closeDevice(i))
		}
	}
	if f.umem != nil {
		errs = append(errs, f.umem.Close())
	}
	return errors.Join(append(errs, f.config.home.Close())...)
}

// receiveRest polls until the rings of inputs are empty. The only error is that all is closed.
func (f *afxdp) receiveRest() {
	for deadline := time.Now().Add(drain); time.Now().Before(deadline); {
		if n, err := f.path.Poll(); n == 0 || err != nil {
			return
		}
	}
}
