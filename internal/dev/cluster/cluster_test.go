package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/pgserver"
)

// farm is a farm for a test, of which nothing is left after it.
func farm(t *testing.T) *Farm {
	t.Helper()
	if os.Getenv("UNTHUNK_CLUSTER") == "" {
		testutil.Missing(t, "clusters (make test-cluster)")
	}
	testutil.Root(t)
	testutil.AMD64(t) // agent
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		testutil.Missing(t, "control groups of version 1")
	}
	f, err := NewFarm(Cache())
	if errors.Is(err, exec.ErrNotFound) { // and the folder has no Debian
		testutil.Missing(t, "mmdebstrap")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(f.Logs())
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if err := gone(f.Dir); err != nil {
			t.Error(err)
		}
	})
	return f
}

// gone waits until nothing remains of a farm.
func gone(dir string) error {
	return until(context.Background(), func() error {
		left, err := Remains(dir)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left of %s: %q", dir, left)
		}
		return err
	})
}

// dist is the one file that make dist wrote of a name with wildcards.
func dist(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("UNTHUNK_DIST")
	found, err := filepath.Glob(filepath.Join(dir, name))
	if err != nil || len(found) != 1 {
		t.Fatalf("UNTHUNK_DIST, %q, has %d files %s: %v", dir, len(found), name, err)
	}
	return found[0]
}

// agents are the documents that agents printed, one after the other, by the name of the machine. Each has seen its machine, with
// all rights that it needs.
func agents(text string) (map[string]*record.Agent, error) {
	all := make(map[string]*record.Agent)
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("%w in:\n%.2000s", err, text)
		}
		saved, err := record.Parse(raw)
		if err != nil {
			return nil, err
		}
		doc := saved.Agent()
		if doc == nil {
			return nil, fmt.Errorf("a record of %s", saved.Kind)
		}
		for _, r := range doc.Refused {
			// What a busy machine has no time for is no fault of the manifests.
			if !slices.Contains([]string{"time", "cpu", "load", "steal"}, r.Reason) {
				return nil, fmt.Errorf("%s refused %+v", doc.Machine.Name, r)
			}
		}
		all[doc.Machine.Name] = doc
	}
}

// checkNodes checks that there is a record of each node, and that nodes are as many machines.
func checkNodes(docs map[string]*record.Agent, nodes []*Machine) error {
	ids := make(map[string]bool)
	for _, m := range nodes {
		doc, ok := docs[m.Name]
		if !ok {
			return fmt.Errorf("no record of %s, but of %q", m.Name, slices.Sorted(maps.Keys(docs)))
		}
		ids[doc.Machine.ID] = true
	}
	if len(docs) != len(nodes) || len(ids) != len(nodes) {
		return fmt.Errorf("%d records of %d machines of %d nodes", len(docs), len(ids), len(nodes))
	}
	return nil
}

// store is a PostgreSQL that takes records.
type store struct {
	address, unthunk string
}

func newStore(t *testing.T) store {
	t.Helper()
	return store{pgserver.Start(t).Database(t, "fleet"), dist(t, "unthunk-linux-amd64")}
}

// ingest has unthunk take files into the store, and checks how many records were new and of how many machines the store knows.
func (s store) ingest(t *testing.T, records, machines int, files ...string) {
	t.Helper()
	said := s.fleet(t, append([]string{"ingest", "--store", s.address}, files...)...)
	if want := fmt.Sprintf("%d are new", records); !strings.Contains(said, want) {
		t.Fatalf("ingest does not say %q: %s", want, said)
	}
	var who record.FleetWho
	if err := json.Unmarshal([]byte(s.fleet(t, "who", "--store", s.address, "--json")), &who); err != nil {
		t.Fatal(err)
	}
	if who.Machines != machines {
		t.Fatalf("the store knows of %d machines, not %d", who.Machines, machines)
	}
	t.Logf("PostgreSQL: %s %d of %d machines have numbers.", strings.TrimSpace(said), who.Measured, who.Machines)
}

func (s store) fleet(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(s.unthunk, append([]string{"fleet"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr.Bytes())
	}
	return string(out)
}

// said writes text into a file of the test.
func said(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A farm whose process is killed is swept all the same.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("UNTHUNK_CLUSTER_HOLD"); dir != "" {
		hold(t, dir)
	}
	farm(t) // skips where there can be none
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.v")
	child.Env = append(os.Environ(), "UNTHUNK_CLUSTER_HOLD="+dir)
	var printed bytes.Buffer
	child.Stdout, child.Stderr = &printed, &printed
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	var held string
	for held == "" {
		select {
		case <-ended:
			t.Fatalf("it ended by itself:\n%s", printed.Bytes())
		case <-time.After(100 * time.Millisecond):
			b, err := os.ReadFile(filepath.Join(dir, "held"))
			if err == nil {
				held = string(b)
			}
		}
	}
	if left, err := Remains(held); err != nil || len(left) < 10 {
		t.Errorf("while it lives there are %q, %v", left, err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := gone(held); err != nil {
		t.Error(err)
	}
}

// hold makes a Slurm with a job, says so in a folder, and waits to be killed.
func hold(t *testing.T, dir string) {
	t.Helper()
	f := farm(t)
	s, err := StartSlurm(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Control.Run(t.Context(), "sbatch", "--nodes=2", "--wrap=srun sleep 1d"); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(t.Context(), "alloc", s.Nodes...); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(dir, "part")
	if err := os.WriteFile(part, []byte(f.Dir), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, filepath.Join(dir, "held")); err != nil {
		t.Fatal(err)
	}
	select {}
}
