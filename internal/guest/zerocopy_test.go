package guest

import (
	"context"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/nics"
)

// testFiles builds tests of packages for guests, and what boots there. files are where they are to be in
// the guest, by the name of each package, and here.
func testFiles(t *testing.T, packages ...string) (files map[string]string, init string) {
	t.Helper()
	dir := t.TempDir()
	files = make(map[string]string)
	for _, pkg := range packages {
		here, there := filepath.Join(dir, path.Base(pkg)+".test"), "/tests/"+path.Base(pkg)
		cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", here, testutil.Package(pkg))
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build tests of %s: %v: %s", pkg, err, out)
		}
		files[there] = here
	}
	init = filepath.Join(dir, "init")
	if err := Build(t.Context(), testutil.Package("cmd/unthunk"), init); err != nil {
		t.Fatal(err)
	}
	return files, init
}

// TestZeroCopy runs tests of packages xsk and forward on NICs whose drivers have zero copy, on
// the newest kernel and on an older one.
func TestZeroCopy(t *testing.T) {
	needGuests(t)
	files, init := testFiles(t, "xsk", "internal/forward")
	for _, tt := range []struct {
		name, kernel string
		nic          NIC
		cpus         int
		tests        string
	}{
		{"igb-7.3", "debian:7.3", NIC{Model: "igb"}, 1, "^TestWires"},
		{"igb-6.18", "debian:6.18", NIC{Model: "igb"}, 1, "^TestWires"},
		// QEMU's virtio-net has one queue where its other end is no device of this machine's.
		{"igb-queues-7.3", "debian:7.3", NIC{Model: "igb"}, 2, "^TestTwoQueues"},
		{"virtio-7.3", "debian:7.3-cloud", NIC{Model: "virtio"}, 1, "^TestWires"},
		// Without what needs copy mode, in which 6.16.12 crashes where a packet socket listens: xsk_destruct_skb
		// takes what packet_rcv wrote into the skb for its own.
		{"virtio-6.16", "debian:6.16-cloud", NIC{Model: "virtio"}, 1, "^TestWires(ZeroCopy|OneWay|SmallChunks|Order|Transmit)$"},
		{"virtio-plain-7.3", "debian:7.3-cloud", NIC{Model: "virtio", Options: "iommu_platform=off"}, 1, "^TestPlainVirtio"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			cache, err := CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			m := &Machine{Init: init, CPUs: tt.cpus, Modules: []string{"veth"}, Files: files, Append: "ipv6.disable=1"}
			if m.Kernel, err = Resolve(ctx, cache, tt.kernel); err == nil {
				m.QEMU, err = FindQEMU(ctx, cache, tt.nic.Model)
			}
			testutil.SkipMissing(t, err)
			if err != nil {
				t.Fatal(err)
			}
			for i, address := range nics.Addresses {
				tt.nic.MAC, tt.nic.Wire = address, i/2
				m.NICs = append(m.NICs, tt.nic)
			}
			var commands []Command
			for there := range files {
				commands = append(commands, Command{Args: []string{there, "-test.run", tt.tests, "-test.v"}, Timeout: 10 * time.Minute})
			}
			passed := 0
			for _, r := range run(ctx, t, m, commands...) {
				out := string(r.Stdout)
				passed += strings.Count(out, "--- PASS")
				t.Log(out)
				if r.Exit != 0 || r.Err != "" || strings.Contains(out, "--- SKIP") {
					t.Errorf("%s: exit code %d %s\n%s%s", r.Args[0], r.Exit, r.Err, out, r.Stderr)
				}
			}
			if passed == 0 {
				t.Error("no test was passed")
			}
		})
	}
}

// TestInstructions counts what unthunk's forwarder and a minimal one in C, also with larger batches, take for a frame without
// copies, in one guest whose clock counts instructions.
func TestInstructions(t *testing.T) {
	needGuests(t)
	files, init := testFiles(t, "internal/dev/peers")
	for name, batch := range map[string]string{"libxdp": "64", "libxdp-256": "256"} {
		c := filepath.Join(t.TempDir(), name)
		out, err := exec.CommandContext(t.Context(), "gcc", "-O2", "-static", "-DBATCH="+batch, "-o", c,
			"../dev/peers/libxdp/forward.c", "-lxdp", "-lbpf", "-lelf", "-lz").CombinedOutput()
		if err != nil {
			t.Logf("%s", out)
			testutil.Missing(t, "libxdp to link with (apt install libxdp-dev libbpf-dev libelf-dev)")
		}
		files["/tests/"+name] = c
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	peers := []byte(`[{"name": "unthunk", "command": ["/init", "forward", "--in", "{in}", "--out", "{out}", "--zero-copy", "require"]},
		{"name": "libxdp", "command": ["/tests/libxdp", "{in}", "{out}", "0", "3"], "most": 0.8},
		{"name": "libxdp,batch-256", "command": ["/tests/libxdp-256", "{in}", "{out}", "0", "3"], "most": 1.05}]`)
	m := &Machine{
		Init: init, Files: files, Exact: true, Append: "ipv6.disable=1 no_timer_check", Data: map[string][]byte{"/peers.json": peers},
	}
	if m.Kernel, err = Resolve(ctx, cache, "debian:7.3"); err == nil {
		m.QEMU, err = FindQEMU(ctx, cache, "igb")
	}
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	for i, address := range nics.Addresses {
		m.NICs = append(m.NICs, NIC{Model: "igb", MAC: address, Wire: i / 2})
	}
	args := []string{"/tests/peers", "-test.run", "^TestWiresInstructions$", "-test.v"}
	r := run(ctx, t, m, Command{Args: args, Timeout: 15 * time.Minute})[0]
	t.Logf("%s", r.Stdout)
	if r.Exit != 0 || r.Err != "" || strings.Contains(string(r.Stdout), "--- SKIP") {
		t.Errorf("exit code %d %s\n%s", r.Exit, r.Err, r.Stderr)
	}
}
