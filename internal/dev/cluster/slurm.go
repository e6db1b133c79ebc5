package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Slurm is a Slurm with a controller and nodes.
type Slurm struct {
	Farm    *Farm
	Control *Machine
	Nodes   []*Machine
}

// slurmConf is that of all machines. A node that returns is used again; control groups are left to who runs the node.
const slurmConf = `ClusterName=unthunk
SlurmctldHost=control(10.77.0.1)
SlurmUser=root
StateSaveLocation=/var/lib/slurmctld
SlurmdSpoolDir=/var/lib/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MailProg=/bin/true
ReturnToService=2
SlurmdTimeout=10
NodeName=n1 NodeAddr=10.77.0.2
NodeName=n2 NodeAddr=10.77.0.3
PartitionName=all Nodes=ALL Default=YES State=UP
`

// StartSlurm starts a Slurm of the machines control, n1 and n2 of a farm, and returns when its nodes take jobs.
func StartSlurm(ctx context.Context, f *Farm) (*Slurm, error) {
	s := &Slurm{Farm: f}
	for _, name := range []string{"control", "n1", "n2"} {
		m, err := f.Add(name)
		if err != nil {
			return nil, err
		}
		if err := m.Write("/etc/slurm/slurm.conf", slurmConf, 0o644); err != nil {
			return nil, err
		}
		if s.Control == nil {
			s.Control = m
			err = s.startControl(ctx)
		} else {
			s.Nodes = append(s.Nodes, m)
			err = s.StartNode(ctx, m)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, s.WaitIdle(ctx)
}

func (s *Slurm) startControl(ctx context.Context) error {
	if err := startMunge(ctx, s.Control); err != nil {
		return err
	}
	if _, err := s.Control.Run(ctx, "mkdir", "-p", "/var/lib/slurmctld"); err != nil {
		return err
	}
	return s.Control.Daemon("slurmctld", "-D")
}

// StartNode boots a node and joins it to the cluster, for the first time or again.
func (s *Slurm) StartNode(ctx context.Context, m *Machine) error {
	if err := startMunge(ctx, m); err != nil {
		return err
	}
	if _, err := m.Run(ctx, "mkdir", "-p", "/var/lib/slurmd"); err != nil {
		return err
	}
	return m.Daemon("slurmd", "-D", "-N", m.Name)
}

// startMunge boots a machine and starts what its daemons know each other by. The key is that of the Debian which all are made from.
func startMunge(ctx context.Context, m *Machine) error {
	if err := m.Start(); err != nil {
		return err
	}
	if _, err := m.Run(ctx, "install", "-d", "-o", "munge", "-m", "755", "/run/munge"); err != nil {
		return err
	}
	return m.Daemon("runuser", "-u", "munge", "--", "munged", "--foreground")
}

// States are what the controller says of each node, by name: idle, down*, and so on.
func (s *Slurm) States(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second) // without a controller it waits for minutes
	defer cancel()
	out, err := s.Control.Run(ctx, "sinfo", "--noheader", "--Node", "--format=%N %t")
	if err != nil {
		return nil, err
	}
	states := make(map[string]string)
	for line := range strings.Lines(out) {
		if name, state, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			states[name] = state
		}
	}
	return states, nil
}

// WaitIdle returns when every node takes jobs.
func (s *Slurm) WaitIdle(ctx context.Context) error {
	return s.wait(ctx, "idle", s.Nodes...)
}

// WaitDown returns when the controller knows that a node is down.
func (s *Slurm) WaitDown(ctx context.Context, m *Machine) error {
	return s.wait(ctx, "down*", m)
}

func (s *Slurm) wait(ctx context.Context, state string, nodes ...*Machine) error {
	return until(ctx, func() error {
		states, err := s.States(ctx)
		if err != nil {
			return err
		}
		for _, m := range nodes {
			if states[m.Name] != state {
				return fmt.Errorf("nodes are %v, where %s should be %s", states, m.Name, state)
			}
		}
		return nil
	})
}

// until asks until there is no error, for three minutes at most. It returns the last error.
func until(ctx context.Context, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}
