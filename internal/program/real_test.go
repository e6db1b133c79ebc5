package program

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

// inMounts runs f on a thread with mounts and a network namespace of its own, and a BPF file system at dir, which
// goes with the thread.
func inMounts(t testing.TB, dir string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("bpf", dir, "bpf", 0, "")
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
}

// A pinned program, a pinned link and a folder of pinned maps are targets and sources; what is
// pinned stays as it is.
func TestPinned(t *testing.T) {
	testutil.Root(t)
	live, path, dir := production(t), compile(t), t.TempDir()
	before := sums(t, live)
	inMounts(t, dir, func() error {
		maps := filepath.Join(dir, "maps")
		if err := os.Mkdir(maps, 0o700); err != nil {
			return err
		}
		for name, m := range live.Maps {
			if strings.HasPrefix(name, ".") {
				continue // a BPF file system takes no name with a dot
			}
			c, err := m.Clone()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Pin(filepath.Join(maps, name)); err != nil {
				return err
			}
		}
		p, err := live.Program.Clone()
		if err != nil {
			return err
		}
		defer p.Close()
		if err := p.Pin(filepath.Join(dir, "balance")); err != nil {
			return err
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: live.Program, Interface: 1, Flags: link.XDPGenericMode})
		if err != nil {
			return err
		}
		if err := errors.Join(l.Pin(filepath.Join(dir, "link")), checkPins(t, live, path, dir), l.Close()); err != nil {
			return err
		}
		return nil
	})
	if after := sums(t, live); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Error("the live maps are not as they were")
	}
}

// checkPins opens all that is pinned in dir, on this thread.
func checkPins(t *testing.T, live *Opened, path, dir string) error {
	try := func(text string, o Options) (*Opened, error) {
		target, err := Parse(text)
		if err != nil {
			return nil, err
		}
		return target.open(t.Context(), o)
	}
	for _, name := range []string{"balance", "link"} {
		o, err := try(filepath.Join(dir, name), Options{})
		if err != nil {
			return err
		}
		if !o.Live || idOf(t, o.Program) != idOf(t, live.Program) {
			t.Errorf("%s: %+v", name, o)
		}
		if err := o.Close(); err != nil {
			return err
		}
	}
	for _, name := range []string{"maps", "balance"} {
		o, err := try(path+":balance", Options{MapsFrom: filepath.Join(dir, name)})
		if err != nil {
			return err
		}
		for _, m := range []string{"flows_of_this_balancer", "hash", "counters", "routes"} {
			if got, want := entries(t, o.Maps[m]), entries(t, live.Maps[m]); fmt.Sprint(got) != fmt.Sprint(want) || len(got) == 0 {
				t.Errorf("from %s: %s has %d entries, want %d", name, m, len(got), len(want))
			}
		}
		if len(o.Spec.Programs) != 2 {
			t.Errorf("from %s: the table's program is not there", name)
		}
		if err := o.Close(); err != nil {
			return err
		}
	}
	for text, want := range map[string]string{
		filepath.Join(dir, "maps/hash"): "neither a pinned program nor a pinned link", filepath.Join(dir, "balance:x"): "without a name",
		filepath.Join(dir, "none"): "there is no file",
	} {
		if o, err := try(text, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %s", text, o, err, want)
		}
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		return err
	}
	if o, err := try(path+":balance", Options{MapsFrom: empty}); err == nil || !strings.Contains(err.Error(), "no map is pinned there") {
		t.Errorf("an empty folder: %v, %v", o, err)
	}
	return nil
}

// Spin locks and timers in values are no bytes to copy, and the rest of the value is; maps as
// iproute2 defined them work without their pins.
func TestSpecialValues(t *testing.T) {
	testutil.Root(t)
	path := testutil.Compile(t, "testdata/special.bpf.c")
	live := open(t, path, Options{})
	put(t, live.Maps["locked"], uint32(1), []uint32{0, 1})
	put(t, live.Maps["locked_array"], uint32(1), []uint32{0, 2})
	put(t, live.Maps["timed"], uint32(1), []uint64{3, 0, 0})
	put(t, live.Maps["old"], uint32(1), uint32(4))
	o := open(t, path, Options{MapsFrom: fmt.Sprintf("id:%d", idOf(t, live.Program))})
	for _, c := range o.Copies {
		if c.Why != "" {
			t.Errorf("%+v", c)
		}
	}
	if v := verdict(t, o.Program); v != 2 {
		t.Errorf("verdict %d: not all values are there: %+v", v, o.Copies)
	}
}

// Objects without debug information say what they lack, or load.
func TestWithoutDebugInformation(t *testing.T) {
	testutil.Root(t)
	if err := refused(t, compile(t, "-g0")+":balance", Options{}); !strings.Contains(err.Error(), "BTF") {
		t.Error(err)
	}
}

// objects are of programs that nobody here wrote: those of testdata/real, and those that
// packages of the distribution have put on this machine.
func objects(t testing.TB) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"testdata/real/*.o", "/usr/lib/*/bpf/*.o", "/usr/lib/suricata/ebpf/*.bpf", "/usr/lib/bpf/*.o"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	if dir := os.Getenv("UNTHUNK_OBJECTS"); dir != "" {
		found, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// Each XDP program of others loads and runs, with sizes for the maps whose loader has them; what
// does not says in one line what this kernel lacks.
func TestRealObjects(t *testing.T) {
	testutil.Root(t)
	loaded := 0
	for _, path := range objects(t) {
		spec, err := ReadObject(t.Context(), path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for name, p := range spec.Programs {
			if p.Type != ebpf.XDP {
				continue
			}
			sizes := map[string]uint32{}
			for m, used := range Prune(spec, name).Maps {
				if used.MaxEntries == 0 && used.Type != ebpf.PerfEventArray && used.Type != ebpf.CPUMap {
					sizes[m] = 64
				}
			}
			target, err := Parse(path + ":" + name)
			if err != nil {
				t.Fatal(err)
			}
			o, err := target.Open(t.Context(), Options{Sizes: sizes})
			if err != nil {
				t.Logf("%s:%s: %v", path, name, err)
				if text := err.Error(); !strings.Contains(text, " is missing") || strings.Contains(text, "\n") {
					t.Errorf("%s:%s: %v", path, name, err)
				}
				continue
			}
			loaded++
			if plain := p.AttachType == ebpf.AttachXDP; plain {
				verdict(t, o.Program)
			}
			if err := o.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Logf("%d programs loaded", loaded)
	if loaded == 0 {
		t.Error("no program was loaded")
	}
}

// Objects with wrong bytes in them are refused in one line, or load; none takes long.
func TestHostileObjects(t *testing.T) {
	testutil.Root(t)
	seeds := append(objects(t), compile(t))
	r := rand.New(rand.NewPCG(5, 6))
	path := filepath.Join(t.TempDir(), "hostile.o")
	loaded, slowest := 0, time.Duration(0)
	for i := range 500 {
		b, err := os.ReadFile(seeds[i%len(seeds)])
		if err != nil {
			t.Fatal(err)
		}
		switch i % 4 {
		case 0:
			b = b[:r.IntN(len(b))]
		default:
			for range 1 + r.IntN(20) {
				b[r.IntN(len(b))] = byte(r.Uint32())
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		text := path
		if spec, err := ReadObject(t.Context(), path); err == nil {
			for name := range spec.Programs { // any
				text = path + ":" + name
			}
		}
		target, err := Parse(text)
		if err != nil {
			continue // the name has a byte that none may have
		}
		start := time.Now()
		o, err := target.Open(t.Context(), Options{})
		slowest = max(slowest, time.Since(start))
		if err == nil {
			loaded++
			err = o.Close()
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if n := strings.Count(err.Error(), "\n"); n > 0 {
			t.Errorf("input %d: %d lines: %v", i, n+1, err)
		}
	}
	t.Logf("%d of 500 load, the slowest took %v", loaded, slowest)
	if loaded == 500 {
		t.Error("none is hostile")
	}
}
