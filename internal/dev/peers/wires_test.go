package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/nics"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// noted is what programs in a kernel note about transmissions without copies, in ns of the monotonic clock. In a guest whose
// clock counts instructions ns are instructions, and those that passed while the CPU had nothing to do.
type noted struct {
	Last   uint64 // when a driver last took frames from a TX ring
	Frames uint64 // that drivers took
	// What polls of igb had taken until Last, and how long the CPU had had nothing to do; 0 where nobody looked.
	Driver, Idle uint64
	// The same until now, and when the last began, which is 0 between two.
	DriverSum, DriverSince, IdleSum, IdleSince uint64
}

// Offsets in a noted, in bytes.
const (
	notedLast, notedFrames, notedDriver, notedIdle = 0, 8, 16, 24
	driverSum, idleSum                             = 32, 48
	since                                          = 8 // behind a sum
	notedSize                                      = 64
)

// watch is programs that write a noted into a map of one entry.
type watch struct{ *ebpf.Map }

// watchTransmissions has drivers' transmissions noted until the end of the test.
func watchTransmissions(t *testing.T) *watch {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: notedSize, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	w := &watch{m}
	w.attach(t, ebpf.AttachTraceFExit, "xsk_tx_peek_release_desc_batch", asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 16, asm.DWord), // what it returned, behind two arguments: frames
		asm.JEq.Imm(asm.R6, 0, "out"),
	}, asm.Instructions{
		asm.StoreMem(asm.R7, notedLast, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, notedFrames, asm.DWord),
		asm.Add.Reg(asm.R1, asm.R6),
		asm.StoreMem(asm.R7, notedFrames, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, idleSum, asm.DWord),
		asm.StoreMem(asm.R7, notedIdle, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, driverSum, asm.DWord),
		asm.LoadMem(asm.R2, asm.R7, driverSum+since, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, "no poll"),
		asm.Add.Reg(asm.R1, asm.R0),
		asm.Sub.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.R7, notedDriver, asm.R1, asm.DWord).WithSymbol("no poll"),
	})
	return w
}

// watchShares has polls of igb and idle time noted too. The caller ends it: programs at each poll take some time themselves.
func (w *watch) watchShares(t *testing.T) (end func()) {
	t.Helper()
	begins := func(at int16) asm.Instructions {
		return asm.Instructions{asm.StoreMem(asm.R7, at+since, asm.R0, asm.DWord)}
	}
	ends := func(at int16) asm.Instructions {
		return asm.Instructions{
			asm.LoadMem(asm.R2, asm.R7, at+since, asm.DWord),
			asm.JEq.Imm(asm.R2, 0, "out"), // not begun
			asm.LoadMem(asm.R1, asm.R7, at, asm.DWord),
			asm.Add.Reg(asm.R1, asm.R0),
			asm.Sub.Reg(asm.R1, asm.R2),
			asm.StoreMem(asm.R7, at, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(asm.R7, at+since, asm.R1, asm.DWord),
		}
	}
	const exit = -1 // PWR_EVENT_EXIT, in place of a state
	idles := func(jump asm.JumpOp) asm.Instructions {
		return asm.Instructions{asm.LoadMem(asm.R6, asm.R1, 0, asm.Word), jump.Imm32(asm.R6, exit, "out")}
	}
	closes := []func() error{
		w.attach(t, ebpf.AttachTraceFEntry, "igb_poll", nil, begins(driverSum)),
		w.attach(t, ebpf.AttachTraceFExit, "igb_poll", nil, ends(driverSum)),
		w.attach(t, ebpf.AttachTraceRawTp, "cpu_idle", idles(asm.JEq), begins(idleSum)),
		w.attach(t, ebpf.AttachTraceRawTp, "cpu_idle", idles(asm.JNE), ends(idleSum)),
		// An interrupt is work also where the CPU is idle after it.
		w.attach(t, ebpf.AttachTraceRawTp, "irq_handler_entry", nil, ends(idleSum)),
		w.attach(t, ebpf.AttachTraceRawTp, "local_timer_entry", nil, ends(idleSum)),
	}
	return func() {
		for _, c := range closes {
			if err := c(); err != nil {
				t.Error(err)
			}
		}
	}
}

// attach attaches a program that runs first, which may go "out", and then has the time in R0 and the noted in R7.
func (w *watch) attach(t *testing.T, to ebpf.AttachType, name string, first, then asm.Instructions) (end func() error) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: to, AttachTo: name, License: "Dual BSD/GPL",
		Instructions: slices.Concat(first, asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, w.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Reg(asm.R7, asm.R0),
			asm.FnKtimeGetNs.Call(),
		}, then, asm.Instructions{
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: p, AttachType: to})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	end = func() error {
		if closed {
			return nil
		}
		closed = true
		return l.Close()
	}
	t.Cleanup(func() { end() })
	return end
}

// begin starts a peer in the namespace of the wires and waits until it forwards. It ends with the test.
func begin(t *testing.T, w *nics.Wires, name string, command []string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	t.Cleanup(func() { // after a failure
		if cmd.Process != nil && cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	if !strings.HasPrefix(name, "libxdp") {
		if err := w.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		testutil.Eventually(t, "attached", func() bool { return w.Programs(t) == 2 })
		return cmd
	}
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer sockets.Close()
	kept := os.NewFile(uintptr(must(t)(unix.Dup(sockets.FD()))), "xskmap")
	defer kept.Close()
	cmd.ExtraFiles = []*os.File{kept}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	program := veth.Program(t,
		asm.LoadMem(asm.R2, asm.R1, 16, asm.Word), // xdp_md.rx_queue_index
		asm.LoadMapPtr(asm.R1, sockets.FD()), asm.Mov.Imm(asm.R3, 2 /* XDP_PASS */), asm.FnRedirectMap.Call(), asm.Return())
	if err := w.In.Attach(program, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	pass := veth.Program(t, asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return())
	if err := w.Out.Attach(pass, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func must(t *testing.T) func(int, error) int {
	return func(n int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// share is instructions: all until a driver has taken the last of some frames, and those of them in polls of the driver and
// while the CPU had nothing to do.
type share struct{ all, driver, idle float64 }

// String is all, for lists.
func (s share) String() string { return strconv.FormatFloat(s.all, 'f', 0, 64) }

// least is the share of which all are the least. In the time of others something ran that is not for frames: forward looks
// after its devices each 200 ms.
func least(shares []share) share {
	return slices.MinFunc(shares, func(a, b share) int { return cmp.Compare(a.all, b.all) })
}

// each is what a frame takes, by drains of few frames and of many.
func each(few, many []share) share {
	const frames = (manyBursts - fewBursts) * burst
	f, m := least(few), least(many)
	return share{(m.all - f.all) / frames, (m.driver - f.driver) / frames, (m.idle - f.idle) / frames}
}

// TestWiresInstructions counts, in a guest whose clock counts instructions, what a frame takes that waits in the RX ring of a
// stopped forwarder, from when that may go on until the driver of the output has taken the last: its own work, its system
// calls, the driver's transmission. It is the difference of many frames and few, without what it takes to go on. What
// receives is the same for all and has run before. The first of the forwarders in /peers.json is compared with the others.
//
// As igb throttles interrupts by default, a forwarder that is fast waits for the next one, in a loop, and what it does in that
// time is not seen. Without a throttle each wakeup is an interrupt at once, and all is work.
func TestWiresInstructions(t *testing.T) {
	var peers []struct {
		Name    string
		Command []string
		Most    float64 // times what it takes the first may take, without a throttle
	}
	text, err := os.ReadFile("/peers.json")
	if err != nil {
		testutil.Missing(t, "a guest that counts (make test-kernels)")
	}
	if err := json.Unmarshal(text, &peers); err != nil {
		t.Fatal(err)
	}
	w := nics.Take(t)
	seen := watchTransmissions(t)
	perFrame := make([]map[string]float64, len(peers))
	for i, p := range peers {
		for i := range p.Command {
			p.Command[i] = strings.NewReplacer("{in}", w.In.Name, "{out}", w.Out.Name).Replace(p.Command[i])
		}
		cmd := begin(t, w, p.Name, p.Command)
		w.AwaitUp(t)
		w.Set(t, w.Sink, netlink.LinkSetDown) // what it would take is nobody's
		perFrame[i] = make(map[string]float64)
		drains := func(n int) (few, many []share) {
			for range n {
				few, many = append(few, drained(t, w, cmd, seen, fewBursts)), append(many, drained(t, w, cmd, seen, manyBursts))
			}
			return few, many
		}
		measure := func(how string) {
			few, many := drains(15)
			perFrame[i][how] = each(few, many).all
			t.Logf("%s, %s: %.1f instructions a frame; %s for %d frames, %s for %d", p.Name, how, perFrame[i][how],
				few, fewBursts*burst, many, manyBursts*burst)
			end := seen.watchShares(t)
			s := each(drains(9))
			end()
			t.Logf("%s, %s: of %.1f, watched, %.1f in polls of the driver, %.1f idle", p.Name, how, s.all, s.driver, s.idle)
		}
		measure("throttled")
		throttle := setThrottle(t, w, ethtool.Coalesce{})
		drained(t, w, cmd, seen, fewBursts) // igb notes it at the next interrupt
		measure("not throttled")
		setThrottle(t, w, throttle)
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() // C ends by the signal
		w.Set(t, w.Sink, netlink.LinkSetUp)
		for _, d := range []interface{ Detach() error }{w.In, w.Out} {
			if strings.HasPrefix(p.Name, "libxdp") {
				if err := d.Detach(); err != nil {
					t.Fatal(err)
				}
			}
		}
		testutil.Eventually(t, "detached", func() bool { return w.Programs(t) == 0 })
	}
	for i, p := range peers[1:] {
		for _, how := range []string{"throttled", "not throttled"} {
			t.Logf("%s: %s takes %.3f of what %s takes", how, peers[0].Name, perFrame[0][how]/perFrame[i+1][how], p.Name)
		}
		if times := perFrame[0]["not throttled"] / perFrame[i+1]["not throttled"]; !(times <= p.Most) {
			t.Errorf("%.3f times the instructions of %s, want %g at most", times, p.Name, p.Most)
		}
	}
}

// setThrottle sets how the output's interrupts are throttled and returns how they were.
func setThrottle(t *testing.T, w *nics.Wires, to ethtool.Coalesce) (before ethtool.Coalesce) {
	t.Helper()
	err := w.Do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		if before, err = e.GetCoalesce(w.Out.Name); err != nil {
			return err
		}
		_, err = e.SetCoalesce(w.Out.Name, to)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return before
}

// Bursts of frames that wait for a forwarder: many fill its RX ring nearly.
const fewBursts, manyBursts = 7, 31

// drained has bursts wait for the forwarder, which is stopped, and returns the instructions from when it may go on until the
// driver has taken the last frame. It tries again when emulated wires lost some, as they do on a busy machine.
func drained(t *testing.T, w *nics.Wires, cmd *exec.Cmd, seen *watch, bursts uint64) share {
	t.Helper()
	for range 5 {
		s, frames := drain(t, w, cmd, seen, bursts)
		if frames == bursts*burst {
			return s
		}
		t.Logf("of %d frames the driver took %d", bursts*burst, frames)
	}
	t.Fatal("frames were lost five times")
	return share{}
}

func drain(t *testing.T, w *nics.Wires, cmd *exec.Cmd, seen *watch, bursts uint64) (s share, frames uint64) {
	t.Helper()
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(cmd.Process.Pid, nil, unix.WUNTRACED, nil); err != nil {
		t.Fatal(err)
	}
	same := slices.Repeat([][]byte{veth.Frame(t, 60)}, burst)
	for range bursts {
		veth.Send(t, w.Namespace, w.Gen.Index, same...)
		time.Sleep(2 * time.Millisecond)
	}
	if err := seen.Put(uint32(0), noted{}); err != nil {
		t.Fatal(err)
	}
	begin := monotonic()
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	var n noted
	if err := seen.Lookup(uint32(0), &n); err != nil {
		t.Fatal(err)
	}
	return share{float64(int64(n.Last) - begin), float64(n.Driver), float64(n.Idle)}, n.Frames
}
