package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Machine is one of a farm: a Debian in a folder, and while it runs its namespaces.
type Machine struct {
	Name    string
	Address string // in 10.77.0.0/24

	farm *Farm
	root string // its Debian
	init *exec.Cmd
	pid  int // of its init here; its parent is scripts/machine
}

// Add makes a machine that does not run yet. The first one has the switch of the network.
func (f *Farm) Add(name string) (*Machine, error) {
	n := len(f.machines) + 1
	m := &Machine{
		Name: name, Address: fmt.Sprintf("10.77.0.%d", n), farm: f,
		root: filepath.Join(f.Dir, name, "root"),
	}
	if err := os.MkdirAll(m.root, 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if err := run("", "tar", "-C", m.root, "-xf", f.debian); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"/etc/hostname":   m.Name + "\n",
		"/etc/machine-id": fmt.Sprintf("%032x\n", 0xc1057e40+n),
		"/etc/hosts":      "127.0.0.1 localhost\n10.77.0.1 control\n10.77.0.2 n1\n10.77.0.3 n2\n",
	} {
		if err := m.Write(name, text, 0o644); err != nil {
			return nil, err
		}
	}
	f.machines[name] = m
	return m, nil
}

// Start boots the machine, its network with it.
func (m *Machine) Start() error {
	// Its init waits for what loses its parent, as bash does for each process that ends.
	const life = `cat /etc/hostname >/proc/sys/kernel/hostname; echo booted; exec >/dev/null; while :; do sleep 1d & wait; done`
	m.init = exec.Command(scripts+"/machine", m.root, m.farm.group+"/"+m.Name, "/bin/bash", "-c", life)
	stdout, err := m.init.StdoutPipe()
	if err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	var stderr strings.Builder
	m.init.Stderr = &stderr
	if err := m.init.Start(); err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return errors.Join(fmt.Errorf("boot %s: %w", m.Name, err), m.init.Wait(), errors.New(stderr.String()))
	}
	outer := strconv.Itoa(m.init.Process.Pid)
	child, err := os.ReadFile(filepath.Join("/proc", outer, "task", outer, "children"))
	if err != nil {
		return fmt.Errorf("find init of %s: %w", m.Name, err)
	}
	if m.pid, err = strconv.Atoi(strings.TrimSpace(string(child))); err != nil {
		return fmt.Errorf("find init of %s: %w", m.Name, err)
	}
	return m.connect()
}

// connect gives the machine the device eth0: on control the switch itself, elsewhere a veth whose other end is a port of it.
func (m *Machine) connect() error {
	control := m.farm.machines["control"]
	var steps []error
	if m == control {
		steps = append(steps, m.ip("link", "add", "eth0", "type", "bridge"))
	} else {
		steps = append(steps,
			control.ip("link", "add", m.Name, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(m.pid)),
			control.ip("link", "set", m.Name, "master", "eth0", "up"))
	}
	return errors.Join(append(steps, m.ip("link", "set", "eth0", "up"), m.ip("addr", "add", m.Address+"/24", "dev", "eth0"))...)
}

// ip runs ip in the network of the machine. It is that of this machine, which finds a namespace by a process here.
func (m *Machine) ip(args ...string) error {
	return run("", "nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--net", "ip"}, args...)...)
}

// Kill takes the power from the machine: no process of it does anything any more. It may start again.
func (m *Machine) Kill() error {
	if err := m.init.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", m.Name, err)
	}
	_ = m.init.Wait() // says that it was killed
	m.init = nil
	var groups []string
	for _, group := range m.farm.groups {
		groups = append(groups, filepath.Join(group, m.Name))
	}
	return run("", scripts+"/sweep", groups...)
}

// Command is a command of the machine, which it will run as root.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// It has no open file of this process, and is in the control groups of the machine as its init sees them.
	const enter = `cd /root; for group in /sys/fs/cgroup/*/cgroup.procs; do echo $$ >$group; done; exec "$@"`
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(m.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root",
		"/bin/sh", "-c", enter, "enter", name,
	}, args...)...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"UNTHUNK_FARM=" + m.farm.Dir, // by which it is found when it stays
	}
	return cmd
}

// Run runs a command on the machine, and returns what it prints. An error ends in what it printed on standard error.
func (m *Machine) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := m.Command(ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %s %s: %w\n%s", m.Name, name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), err
}

// Daemon starts a command on the machine that runs as long as it does. What it prints is in NAME.log in the machine's folder.
func (m *Machine) Daemon(name string, args ...string) error {
	log, err := os.OpenFile(filepath.Join(m.farm.Dir, m.Name, filepath.Base(name)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	cmd := m.Command(context.Background(), name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = cmd.Wait() }() // with the machine, killed
	return nil
}

// Write writes a file of the machine.
func (m *Machine) Write(name, text string, mode os.FileMode) error {
	name = filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("write to %s: %w", m.Name, err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		return fmt.Errorf("write to %s: %w", m.Name, err)
	}
	return nil
}

// Copy copies a file or a folder of this machine.
func (m *Machine) Copy(from, to string) error {
	to = filepath.Join(m.root, to)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("copy to %s: %w", m.Name, err)
	}
	return run("", "cp", "-r", from, to)
}
