package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/nics"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// watchTransmissions makes a map of one entry until the end of the test: when a driver last took frames from a TX ring
// without copies, in ns of the monotonic clock, and how many it took. In a guest whose clock counts instructions ns are
// instructions.
func watchTransmissions(t *testing.T) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "xsk_tx_peek_release_desc_batch", License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 16, asm.DWord), // what it returned, behind two arguments: frames
			asm.JEq.Imm(asm.R6, 0, "out"),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Reg(asm.R7, asm.R0),
			asm.FnKtimeGetNs.Call(),
			asm.StoreMem(asm.R7, 0, asm.R0, asm.DWord),
			asm.LoadMem(asm.R1, asm.R7, 8, asm.DWord),
			asm.Add.Reg(asm.R1, asm.R6),
			asm.StoreMem(asm.R7, 8, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return m
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
	if name != "libxdp" {
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

// TestWiresInstructions counts, in a guest whose clock counts instructions, what a frame takes that waits in the RX ring of a
// stopped forwarder, from when that may go on until the driver of the output has taken the last: its own work, its system
// calls, the driver's transmission. It is the difference of many frames and few, without what it takes to go on. What
// receives is the same for all and has run before. The first of the forwarders in /peers.json is compared with the others.
func TestWiresInstructions(t *testing.T) {
	var peers []struct {
		Name    string
		Command []string
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
	perFrame := make(map[string]float64)
	for _, p := range peers {
		for i := range p.Command {
			p.Command[i] = strings.NewReplacer("{in}", w.In.Name, "{out}", w.Out.Name).Replace(p.Command[i])
		}
		cmd := begin(t, w, p.Name, p.Command)
		w.AwaitUp(t)
		w.Set(t, w.Sink, netlink.LinkSetDown) // what it would take is nobody's
		var few, many []float64
		for range 9 {
			few, many = append(few, drained(t, w, cmd, seen, fewBursts)), append(many, drained(t, w, cmd, seen, manyBursts))
		}
		perFrame[p.Name] = (stat.Median(many) - stat.Median(few)) / ((manyBursts - fewBursts) * burst)
		t.Logf("%s: %.1f instructions a frame; %.0f for %d frames, %.0f for %d", p.Name, perFrame[p.Name],
			few, fewBursts*burst, many, manyBursts*burst)
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() // C ends by the signal
		w.Set(t, w.Sink, netlink.LinkSetUp)
		for _, d := range []interface{ Detach() error }{w.In, w.Out} {
			if p.Name == "libxdp" {
				if err := d.Detach(); err != nil {
					t.Fatal(err)
				}
			}
		}
		testutil.Eventually(t, "detached", func() bool { return w.Programs(t) == 0 })
	}
	for _, p := range peers[1:] {
		t.Logf("%s takes %.3f of what %s takes", peers[0].Name, perFrame[peers[0].Name]/perFrame[p.Name], p.Name)
	}
}

// Bursts of frames that wait for a forwarder: many fill its RX ring nearly.
const fewBursts, manyBursts = 7, 31

// drained has bursts wait for the forwarder, which is stopped, and returns the instructions from when it may go on until the
// driver has taken the last frame. It tries again when emulated wires lost some, as they do on a busy machine.
func drained(t *testing.T, w *nics.Wires, cmd *exec.Cmd, seen *ebpf.Map, bursts uint64) float64 {
	t.Helper()
	for range 5 {
		ns, frames := drain(t, w, cmd, seen, bursts)
		if frames == bursts*burst {
			return ns
		}
		t.Logf("of %d frames the driver took %d", bursts*burst, frames)
	}
	t.Fatal("frames were lost five times")
	return 0
}

func drain(t *testing.T, w *nics.Wires, cmd *exec.Cmd, seen *ebpf.Map, bursts uint64) (ns float64, frames uint64) {
	t.Helper()
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	same := slices.Repeat([][]byte{veth.Frame(t, 60)}, burst)
	for range bursts {
		veth.Send(t, w.Namespace, w.Gen.Index, same...)
		time.Sleep(10 * time.Millisecond)
	}
	if err := seen.Put(uint32(0), [2]uint64{}); err != nil {
		t.Fatal(err)
	}
	begin := monotonic()
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	var n [2]uint64 // when the last was taken, and how many were
	if err := seen.Lookup(uint32(0), &n); err != nil {
		t.Fatal(err)
	}
	return float64(int64(n[0]) - begin), n[1]
}
