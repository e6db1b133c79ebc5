package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/bpf/balancer"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// Each command of the first part of docs/prog.md runs as it is written, those that measure shorter. eth0 has the load balancer
// of the page, eth1 the same traffic and no program.
func TestProgGuide(t *testing.T) {
	testutil.Root(t)
	testutil.Slow(t)
	dir := t.TempDir()
	for name, object := range map[string][]byte{"lb.o": balancer.Before(), "lb-new.o": balancer.After()} {
		if err := os.WriteFile(filepath.Join(dir, name), object, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	namespace := veth.Namespace(t)
	for _, device := range []string{"eth0", "eth1"} {
		source, receiver := veth.Pair(t, namespace, "to"+device, device)
		if device == "eth0" {
			if err := receiver.Attach(loadBalancer(t), link.XDPDriverMode); err != nil {
				t.Fatal(err)
			}
		}
		defer flood.Start(t, namespace, source.Index)()
	}
	t.Setenv("PATH", filepath.Dir(build(t))+":"+os.Getenv("PATH"))
	guide := guideShell{dir: dir, files: dir, namespace: namespace}
	for _, line := range guideLines(t, "../../docs/prog.md", "## Ten minutes", "## ", 7) {
		t.Run(strconv.Itoa(line.number), func(t *testing.T) { guide.run(t, line.command) })
	}
}

// loadBalancer loads the load balancer, with one service: what [flood.Start] sends to.
func loadBalancer(t *testing.T) *ebpf.Program {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(balancer.Before()))
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	// 192.0.2.2, UDP port 9, with two backends.
	if err := coll.Maps["services"].Put([]byte{192, 0, 2, 2, 0, 9, 17, 0}, []byte{0, 0, 0, 0, 2, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	for i, address := range [][]byte{{198, 51, 100, 1}, {198, 51, 100, 2}} {
		if err := coll.Maps["backends"].Put(uint32(i), address); err != nil {
			t.Fatal(err)
		}
	}
	return coll.Programs["balancer"]
}
