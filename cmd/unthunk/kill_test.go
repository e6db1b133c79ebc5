package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/testutil"
)

// holdings are what a process holds of the kernel.
type holdings struct {
	progs, maps, links []uint32
	namespaces         []string
}

// holds reads a process's descriptors and its threads' network namespaces.
func holds(t *testing.T, pid int) (h holdings) {
	t.Helper()
	infos, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	for _, path := range infos {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // closed in between
		}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if err != nil {
				continue
			}
			switch key {
			case "prog_id":
				h.progs = append(h.progs, uint32(id))
			case "map_id":
				h.maps = append(h.maps, uint32(id))
			case "link_id":
				h.links = append(h.links, uint32(id))
			}
		}
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range namespaces(fmt.Sprintf("/proc/%d/task/*/ns/net", pid)) {
		if ns != own {
			h.namespaces = append(h.namespaces, ns)
		}
	}
	return h
}

// existing is all that there is: what others have, an agent looks at.
func existing() (h holdings) {
	next := func(after func(id uint32) (uint32, error)) (ids []uint32) {
		for id, err := after(0); err == nil; id, err = after(id) {
			ids = append(ids, id)
		}
		return ids
	}
	h.progs = next(func(id uint32) (uint32, error) {
		n, err := ebpf.ProgramGetNextID(ebpf.ProgramID(id))
		return uint32(n), err
	})
	h.maps = next(func(id uint32) (uint32, error) { n, err := ebpf.MapGetNextID(ebpf.MapID(id)); return uint32(n), err })
	links := new(link.Iterator)
	defer links.Close()
	for links.Next() {
		h.links = append(h.links, uint32(links.ID))
	}
	h.namespaces = namespaces("/proc/[0-9]*/task/*/ns/net")
	return h
}

// add adds what o has and others do not.
func (h *holdings) add(o, others holdings) {
	for _, ids := range []struct {
		to            *[]uint32
		from, without []uint32
	}{{&h.progs, o.progs, others.progs}, {&h.maps, o.maps, others.maps}, {&h.links, o.links, others.links}} {
		for _, id := range ids.from {
			if !slices.Contains(ids.without, id) {
				*ids.to = append(*ids.to, id)
			}
		}
	}
	for _, ns := range o.namespaces {
		if !slices.Contains(others.namespaces, ns) {
			h.namespaces = append(h.namespaces, ns)
		}
	}
}

func namespaces(pattern string) (all []string) {
	paths, _ := filepath.Glob(pattern)
	for _, p := range paths {
		if ns, err := os.Readlink(p); err == nil {
			all = append(all, ns)
		}
	}
	return all
}

// left says what of h is still there.
func (h holdings) left() (all []string) {
	check := func(kind string, ids []uint32, open func(uint32) (io.Closer, error)) {
		for _, id := range ids {
			c, err := open(id)
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, os.ErrNotExist) {
				all = append(all, fmt.Sprintf("%s %d (%v)", kind, id, err))
			}
		}
	}
	check("program", h.progs, func(id uint32) (io.Closer, error) { return ebpf.NewProgramFromID(ebpf.ProgramID(id)) })
	check("map", h.maps, func(id uint32) (io.Closer, error) { return ebpf.NewMapFromID(ebpf.MapID(id)) })
	check("link", h.links, func(id uint32) (io.Closer, error) { return link.NewFromID(link.ID(id)) })
	now := namespaces("/proc/[0-9]*/task/*/ns/net")
	for _, ns := range h.namespaces {
		if slices.Contains(now, ns) {
			all = append(all, ns)
		}
	}
	return all
}

// A run that is killed at any moment leaves nothing: no program, map, link,
// namespace or device.
func TestKill(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	before := devices(t)
	seen := holdings{}
	for n := range 20 {
		cmd := exec.Command(exe, "bench", "--duration", "30s", "--rounds", "20", "--scenario", "redirect-map,redirect-xsk,redirect-cpu")
		switch n % 4 {
		case 1:
			cmd = exec.Command(exe, "tax")
		case 2:
			cmd = exec.Command(exe, "profile")
		case 3:
			cmd = exec.Command(exe, "bench", "--prog", "../../internal/bpf/sample/sample_bpfel.o:nat")
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.N(2000)) * time.Millisecond)
		h := holds(t, cmd.Process.Pid)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		seen.progs = append(seen.progs, h.progs...)
		seen.namespaces = append(seen.namespaces, h.namespaces...)
		// The kernel takes its time: RCU, and a work queue for namespaces.
		deadline := time.Now().Add(time.Minute)
		for {
			left := h.left()
			if len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("kill %d: a minute later there are %v", n, left)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if len(seen.progs) == 0 || len(seen.namespaces) == 0 {
		t.Errorf("no kill came while anything was held: %+v", seen)
	}
	if after := devices(t); !slices.Equal(before, after) {
		t.Errorf("devices were %v, are %v", before, after)
	}
}

func devices(t *testing.T) (names []string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		names = append(names, i.Name+" "+i.Flags.String())
	}
	return names
}
