package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/rounds"
)

// load is something else that the machine has to do.
type load struct {
	name  string
	loops []loop
	// quota is set for half of a CPU to this process.
	quota bool
}

// loop is a task that never waits.
type loop struct {
	// cpus are those that it may run on; any when there is none.
	cpus []int
	// memory is set for one that writes to more memory than caches hold.
	memory bool
}

// loadsOf are loads that change the speed of a CPU, as far as the machine has them.
func loadsOf(cpu int) ([]load, error) {
	usable, err := rounds.UsableCPUs()
	if err != nil {
		return nil, err
	}
	on := func(cpu int, memory bool) loop { return loop{[]int{cpu}, memory} }
	loads := []load{{name: "two loops on the CPU", loops: []loop{on(cpu, false), on(cpu, false)}}}
	if other, ok := sibling(cpu); ok {
		loads = append(loads, load{name: "a loop on the core's other thread", loops: []loop{on(other, false)}})
	}
	for _, other := range usable {
		if other != cpu {
			loads = append(loads, load{name: fmt.Sprintf("memory written by CPU %d", other), loops: []loop{on(other, true)}})
			break
		}
	}
	if g, err := newGroup(); err == nil {
		loads = append(loads, load{name: "half of a CPU's time", quota: true})
		return loads, g.close()
	}
	return loads, nil
}

// sibling is the other thread of a CPU's core.
func sibling(cpu int) (int, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
	if err != nil {
		return 0, false
	}
	for _, field := range strings.FieldsFunc(strings.TrimSpace(string(b)), func(r rune) bool { return r == ',' || r == '-' }) {
		if n, err := strconv.Atoi(field); err == nil && n != cpu {
			return n, true
		}
	}
	return 0, false
}

// start begins the load after a while. end ends it, and says what went wrong with it.
func (l load) start(after time.Duration) (end func() error) {
	quit, done := make(chan struct{}), make(chan error)
	go func() {
		select {
		case <-time.After(after):
		case <-quit:
			done <- nil
			return
		}
		done <- l.bear(quit)
	}()
	return func() error {
		close(quit)
		return <-done
	}
}

// bear keeps the load up until quit is closed.
func (l load) bear(quit <-chan struct{}) (err error) {
	if l.quota {
		lift, err := halve()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, lift()) }()
	}
	for _, loop := range l.loops {
		end, err := loop.start()
		if err != nil {
			return err
		}
		defer end()
	}
	<-quit
	return nil
}

// loadEnv makes this program a loop.
const loadEnv = "TRUST_LOAD"

// isLoad runs the loop that this process was started for. It ends with the process that started it: then there is no
// more to read.
func isLoad() bool {
	kind := os.Getenv(loadEnv)
	if kind == "" {
		return false
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	memory := make([]byte, 64)
	if kind == "memory" {
		memory = make([]byte, 256<<20)
	}
	for turn := byte(0); ; turn++ {
		for i := 0; i < len(memory); i += 64 {
			memory[i] = turn
		}
	}
}

func (l loop) start() (end func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	kind := "cpu"
	if l.memory {
		kind = "memory"
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), loadEnv+"="+kind)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := l.pinned(cmd.Start); err != nil {
		return nil, fmt.Errorf("start busy loop: %w", err)
	}
	return func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it says that it was killed
	}, nil
}

// pinned calls f on a thread that may run where the loop may: a child of it may run there and nowhere else.
func (l loop) pinned(f func() error) error {
	if len(l.cpus) == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return err
	}
	for _, cpu := range l.cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	return errors.Join(f(), unix.SchedSetaffinity(0, &old))
}

// group is a control group whose share of the CPUs is limited.
type group struct{ folder, before string }

// newGroup makes one for this process to go into; it has no limit yet. It fails where the controller of CPUs is not to
// be had.
func newGroup() (*group, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) { // 3:cpu,cpuacct:/path, or 0::/path (cgroups(7))
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		root, limit := "/sys/fs/cgroup", "cpu.max"
		switch {
		case slices.Contains(strings.Split(f[1], ","), "cpu"):
			root, limit = filepath.Join(root, f[1]), "cpu.cfs_quota_us"
		case f[1] != "":
			continue
		}
		g := &group{filepath.Join(root, fmt.Sprintf("unthunk-trust-%d", os.Getpid())), filepath.Join(root, f[2])}
		if os.Mkdir(g.folder, 0o755) != nil {
			continue
		}
		// Half of a period of 100 ms, which is the default of both.
		if os.WriteFile(filepath.Join(g.folder, limit), []byte("50000"), 0) == nil {
			return g, nil
		}
		_ = os.Remove(g.folder)
	}
	return nil, errors.New("no control group limits the time of CPUs here")
}

// move puts this process into a group.
func move(folder string) error {
	return os.WriteFile(filepath.Join(folder, "cgroup.procs"), strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
}

func (g *group) close() error { return os.Remove(g.folder) }

// halve gives this process half of a CPU's time, until lift is called.
func halve() (lift func() error, err error) {
	g, err := newGroup()
	if err != nil {
		return nil, err
	}
	if err := move(g.folder); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return func() error { return errors.Join(move(g.before), g.close()) }, nil
}
