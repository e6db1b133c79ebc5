package forward

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// soakEnv is for how long TestSoak runs, seedEnv has it do what a run with this seed did; see make soak. In the process
// that is stopped now and then soakedEnv is set.
const (
	soakEnv   = "UNTHUNK_SOAK"
	seedEnv   = "UNTHUNK_SOAK_SEED"
	soakedEnv = "UNTHUNK_SOAKED"
)

// soak is a forwarder at overload, to which things happen.
type soak struct {
	*wires
	f         *afxdp
	said      chan string
	elsewhere *netlab.Namespace
	writer    *gate // of sampled frames
	rng       *rand.Rand
	long      bool

	excused atomic.Uint64 // odd while something happens that may keep frames
	quiet   struct{ standing, starved atomic.Uint64 }

	received, counted uint64 // by the input's device, and in counters, when both were last known
	sent              uint64 // when the output's device was new

	happened map[string]int
	want     map[Event]uint64 // of an event whose Times is 0
}

// gate is a writer that writes while it is open.
type gate struct {
	mu sync.Mutex
	n  int
}

func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n += len(b)
	return len(b), nil
}

// At overload, while all that production does happens to its devices, its process and its memory, accounts
// balance to the frame, events are counted, no second passes without traffic that nothing explains, no chunk
// is lost, and memory stays.
func TestSoak(t *testing.T) {
	if os.Getenv(soakedEnv) == "" {
		newWires(t) // or skip
		soakElsewhere(t)
		return
	}
	length := 2 * time.Second
	text := os.Getenv(soakEnv)
	if text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d does this again", seedEnv, seed)
	s := &soak{
		wires: newWires(t), elsewhere: veth.Namespace(t), said: make(chan string, 1<<16), writer: new(gate), rng: rand.New(rand.NewPCG(seed, 0)),
		long: text != "", happened: make(map[string]int), want: make(map[Event]uint64),
	}
	sample := NewSample(50)
	if err := sample.Start(s.writer); err != nil {
		t.Fatal(err)
	}
	t.Run("run", func(t *testing.T) { s.run(t, length, sample) })
	if err := sample.Close(); err != nil {
		t.Error(err)
	}
	if sample.Missed() == 0 && s.happened["slow reader"] > 0 {
		t.Error("a reader that was slow missed nothing")
	}
}

// soakElsewhere runs the test in a process of its own: it stops itself, and sudo would stop with a process that it started.
func soakElsewhere(t *testing.T) {
	runtime.LockOSThread() // whose end would be that of the other process
	defer runtime.UnlockOSThread()
	other := exec.Command(os.Args[0], "-test.run=^TestSoak$", "-test.v", "-test.timeout=0")
	other.Env = append(os.Environ(), soakedEnv+"=1")
	other.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := other.CombinedOutput()
	t.Logf("%s", said)
	if err != nil {
		t.Error(err)
	}
}

func (s *soak) run(t *testing.T, length time.Duration, sample *Sample) {
	s.f = s.open(t, Config{Pairs: pair, Engine: AFXDP, Sample: sample, Warn: func(text string) { s.said <- text }}).(*afxdp)
	stop := s.watch(t)
	defer stop()
	events := s.events()
	names := slices.Sorted(maps.Keys(events))
	var memory runtime.MemStats
	heap := uint64(0)
	for begin := time.Now(); time.Since(begin) < length || len(s.happened) < len(events); {
		for range 1 + s.rng.IntN(8) {
			s.offer(t)
			s.direction(t)
		}
		// Each once first, then by chance.
		name := names[s.rng.IntN(len(names))]
		if i := slices.IndexFunc(names, func(n string) bool { return s.happened[n] == 0 }); i >= 0 {
			name = names[i]
		}
		s.settle(t)
		events[name](t)
		s.happened[name]++
		for len(s.said) > 0 {
			<-s.said
		}
		runtime.GC()
		runtime.ReadMemStats(&memory)
		if heap == 0 && len(s.happened) == len(events) {
			heap = memory.HeapAlloc
		}
	}
	s.settle(t)
	if heap > 0 && memory.HeapAlloc > heap+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes", heap, memory.HeapAlloc)
	}
	got, err := s.f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range got.Events {
		// What is shorter than some polls is not seen of a link, and one that was moved is down at first.
		if want := s.want[Event{Device: e.Device, Name: e.Name}]; e.Name != eventLinkDown && e.Name != eventLinkUp && e.Times != want {
			t.Errorf("%+v, want %d times", e, want)
		}
	}
	if n := s.quiet.standing.Load(); n > 0 {
		t.Errorf("%d seconds in which frames came, workers polled and nothing passed", n)
	}
	t.Logf("%v: %v; %+v; events %+v; heap %d then %d bytes; seconds in which no worker had a CPU: %d", length, s.happened, got.Directions[0],
		got.Events, heap, memory.HeapAlloc, s.quiet.starved.Load())
}

// offer sends as many frames as a ring has room for several times over.
func (s *soak) offer(t *testing.T) {
	t.Helper()
	const frames = 1 << 14
	s.flood(t, frames)
}

func (s *soak) direction(t *testing.T) Direction {
	t.Helper()
	got, err := s.f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	d := got.Directions[0]
	if d.Received != d.Sent+d.InFlight+own(d) {
		t.Fatalf("%+v does not balance", d)
	}
	return d
}

// attributes are those of a device.
func (s *soak) attributes(t *testing.T, name string) (a netlink.LinkAttrs) {
	t.Helper()
	s.set(t, name, func(l netlink.Link) error { a = *l.Attrs(); return nil })
	return a
}

// counters are all frames of the input that are in a counter.
func counters(d Direction) uint64 { return d.Received + d.Passed + d.Dropped() - own(d) }

// settle waits until nothing is under way: what the input's device received since it was last known is in a
// counter, and what the output's device sent is what the forwarder says.
func (s *soak) settle(t *testing.T) {
	t.Helper()
	testutil.Eventually(t, "each frame in a counter", func() bool {
		d := s.direction(t)
		in, out := s.attributes(t, "in").Statistics.RxPackets, s.attributes(t, "out").Statistics.TxPackets
		return d.InFlight == 0 && in-s.received == counters(d)-s.counted && d.Sent-s.sent == out
	})
	s.known(t)
}

// known notes what both sides have counted by now, when what came between has no counter: frames that
// the network stack got while there was no program.
func (s *soak) known(t *testing.T) {
	t.Helper()
	s.received, s.counted = s.attributes(t, "in").Statistics.RxPackets, counters(s.direction(t))
}

// passes waits until frames pass again.
func (s *soak) passes(t *testing.T) {
	t.Helper()
	before := s.direction(t).Sent
	testutil.Eventually(t, "frames pass", func() bool {
		s.flood(t, 64)
		return s.direction(t).Sent > before+64
	})
}

// watch looks for seconds in which nothing passed, though frames came and nothing was done to it. Either workers
// polled meanwhile, or they had no CPU.
func (s *soak) watch(t *testing.T) (stop func()) {
	type look struct {
		at                         time.Time
		excused, sent, came, polls uint64
	}
	var handle *netlink.Handle
	err := s.Do(func() (err error) {
		handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	now := func() look {
		got, err := s.f.Totals()
		if err != nil {
			t.Error(err)
			return look{}
		}
		l := look{at: time.Now(), excused: s.excused.Load(), sent: got.Directions[0].Sent}
		// After sent: a frame that comes in between is sent later than this look.
		if in, err := handle.LinkByName("in"); err == nil { // or it is away
			l.came = in.Attrs().Statistics.RxPackets
		}
		for _, n := range s.f.Polls() {
			l.polls += n
		}
		return l
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		begin := now()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			l := now()
			switch {
			case l.excused%2 == 1 || l.excused != begin.excused || l.sent > begin.sent || l.came == begin.came:
				begin = l
			case l.at.Sub(begin.at) < time.Second:
			case l.polls > begin.polls+2:
				t.Logf("nothing passed from %+v to %+v", begin, l)
				s.quiet.standing.Add(1)
				begin = l
			default:
				s.quiet.starved.Add(1)
				begin = l
			}
		}
	}()
	return func() {
		close(done)
		<-ended
		handle.Close()
	}
}

// excuse does what may keep frames from passing, and waits until they do again.
func (s *soak) excuse(t *testing.T, do func()) {
	t.Helper()
	s.excused.Add(1)
	do()
	s.passes(t)
	s.excused.Add(1)
}

// count says how often an event is to have been counted.
func (s *soak) count(device string, events ...string) {
	for _, name := range events {
		s.want[Event{Device: device, Name: name}]++
	}
}

// events are what may happen, by name.
func (s *soak) events() map[string]func(*testing.T) {
	events := map[string]func(*testing.T){
		"link down":       s.linkDown,
		"output lost":     func(t *testing.T) { s.lose(t, "out") },
		"input lost":      func(t *testing.T) { s.lose(t, "in") },
		"output moved":    func(t *testing.T) { s.move(t, "out") },
		"input moved":     func(t *testing.T) { s.move(t, "in") },
		"MTU":             s.mtu,
		"program off":     s.programOff,
		"reload":          s.reload,
		"slow reader":     s.slowReader,
		"SIGSTOP":         s.stopProcess,
		"memory pressure": s.memoryPressure,
	}
	return events
}

func (s *soak) linkDown(t *testing.T) {
	name := []string{"in", "out", "sink"}[s.rng.IntN(3)]
	s.excuse(t, func() {
		s.set(t, name, netlink.LinkSetDown)
		s.offer(t)
		s.set(t, name, netlink.LinkSetUp)
	})
}

// renewed waits until a device is taken back. What was sent by the one before it is not to be compared any more.
func (s *soak) renewed(t *testing.T, name string) {
	t.Helper()
	waitFor(t, s.said, name+" is back")
	s.count(name, eventLost, eventBack)
	s.known(t)
	s.sent = s.direction(t).Sent - s.attributes(t, "out").Statistics.TxPackets
}

// lose takes a device away, and its peer with it, and makes both anew.
func (s *soak) lose(t *testing.T, name string) {
	s.excuse(t, func() {
		var link netlink.Link
		s.set(t, name, func(l netlink.Link) error { link = l; return netlink.LinkDel(l) })
		if name == "out" {
			s.offer(t)
		}
		waitFor(t, s.said, link.Attrs().Name+" is lost")
		if name == "out" {
			s.renewSink(t)
		} else {
			var err error
			if s.gen, _, err = s.VethPair("gen", "in"); err != nil {
				t.Fatal(err)
			}
			s.source = nil
		}
		s.renewed(t, name)
	})
}

// move moves a device to another namespace and back.
func (s *soak) move(t *testing.T, name string) {
	s.excuse(t, func() {
		veth.Move(t, s.Namespace, s.elsewhere, name)
		if name == "out" {
			s.offer(t)
		}
		waitFor(t, s.said, name+" is lost")
		veth.Move(t, s.elsewhere, s.Namespace, name)
		s.set(t, name, netlink.LinkSetUp)
		s.renewed(t, name)
	})
}

func (s *soak) mtu(t *testing.T) {
	bytes := []int{68, 600, 1500, 3000}[s.rng.IntN(4)]
	for _, name := range []string{"gen", "in", "out", "sink"} {
		s.set(t, name, func(l netlink.Link) error { return netlink.LinkSetMTU(l, bytes) })
		s.offer(t)
	}
}

// programOff is what somebody else does to the input's program: the kernel refuses `ip link set dev in xdp off`, and
// lets its link be detached.
func (s *soak) programOff(t *testing.T) {
	err := s.Do(func() error {
		l, err := netlink.LinkByName("in")
		if err != nil {
			t.Error(err)
			return nil
		}
		return netlink.LinkSetXdpFd(l, -1)
	})
	if !errors.Is(err, syscall.EBUSY) {
		t.Errorf("ip link set dev in xdp off: %v, want %v", err, syscall.EBUSY)
	}
	s.offer(t)
	s.settle(t)
	s.excuse(t, func() {
		veth.DetachXDP(t, s.Namespace, s.attributes(t, "in").Index)
		waitFor(t, s.said, "in has its XDP program again")
		s.count("in", eventNoProgram, eventReattached)
		s.known(t)
	})
}

func (s *soak) reload(t *testing.T) {
	for _, expression := range []string{"udp", "greater 0"} {
		done := make(chan error, 1)
		go func() { done <- s.f.Reload(t.Context(), claimOf(t, expression)) }()
		s.offer(t)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// slowReader is one of sampled frames who reads nothing for a while: the forwarder does not wait.
func (s *soak) slowReader(t *testing.T) {
	s.writer.mu.Lock()
	defer s.writer.mu.Unlock()
	for range 40 {
		s.offer(t)
	}
	s.passes(t)
}

// stopProcess stops this process for a while (SIGSTOP), a minute now and then in a long soak.
func (s *soak) stopProcess(t *testing.T) {
	pause := "0.3"
	if s.long {
		switch s.rng.IntN(40) {
		case 0:
			pause = "60"
		case 1, 2, 3:
			pause = "2"
		}
	}
	s.excuse(t, func() {
		stopper := exec.Command("sh", "-c", `kill -STOP "$0"; sleep "$1"; kill -CONT "$0"`, strconv.Itoa(os.Getpid()), pause)
		if err := stopper.Start(); err != nil {
			t.Fatal(err)
		}
		s.offer(t) // until it stops, and on
		if err := stopper.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

// memoryPressure has this process, beside one that takes all of it again and again, in a group with little memory.
func (s *soak) memoryPressure(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		group := testutil.MemoryCgroup(t, 64<<20)
		home := ownMemoryCgroup(t, filepath.Dir(group))
		join := func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644)
		}
		if err := join(group); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := join(home); err != nil {
				t.Error(err)
			}
		})
		hog := exec.Command("sh", "-c", `dd if=/dev/zero of="$0" bs=1M count=96 2>/dev/null; cat "$0" >/dev/null`,
			filepath.Join(t.TempDir(), "file"))
		if err := hog.Start(); err != nil { // in the group, as its parent is
			t.Fatal(err)
		}
		for range 8 {
			s.offer(t)
		}
		s.passes(t)
		if err := hog.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// ownMemoryCgroup is the folder of this process's cgroup in a tree of cgroups.
func ownMemoryCgroup(t *testing.T, tree string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		// Version 1 has a tree for memory, version 2 one for all.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && (parts[1] == "memory" || parts[1] == "" && filepath.Base(tree) != "memory") {
			return filepath.Join(tree, parts[2])
		}
	}
	t.Fatal("no cgroup of memory")
	return ""
}

// waitFor waits for a warning.
func waitFor(t testing.TB, said chan string, word string) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case s := <-said:
			if strings.Contains(s, word) {
				return
			}
		case <-timeout:
			t.Fatalf("nobody said %q", word)
		}
	}
}
