package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// records is the folder of records on each node.
const records = "/var/lib/unthunk/records"

// The package on each node of a Slurm; srun runs the agent on each; PostgreSQL takes their records; a node dies and
// returns; and purging the package leaves nothing.
func TestSlurm(t *testing.T) {
	f := farm(t)
	db := newStore(t)
	s, err := StartSlurm(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	before := make(map[string]string)
	for _, m := range s.Nodes {
		before[m.Name] = files(t, m)
		if err := m.Copy(dist(t, "unthunk_*_amd64.deb"), "/root/unthunk.deb"); err != nil {
			t.Fatal(err)
		}
		for _, command := range [][]string{{"dpkg", "-i", "/root/unthunk.deb"}, {"mkdir", "-p", records}} {
			if _, err := m.Run(t.Context(), command[0], command[1:]...); err != nil {
				t.Fatal(err)
			}
		}
	}

	db.ingest(t, 2, 2, runOnNodes(t, s)...)

	lost := s.Nodes[0]
	if err := lost.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitDown(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	if err := s.StartNode(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.ingest(t, 2, 2, runOnNodes(t, s)...)

	for _, m := range s.Nodes {
		if _, err := m.Run(t.Context(), "dpkg", "--purge", "unthunk"); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(m.root, "root/unthunk.deb")); err != nil {
			t.Fatal(err)
		}
		if after := files(t, m); after != before[m.Name] {
			t.Errorf("purging left on %s:\n%s", m.Name, added(before[m.Name], after))
		}
	}
}

// runOnNodes runs the agent on each node, and returns the folders on this machine where their records are. They have no folder in
// common, as nodes of a Slurm often do.
func runOnNodes(t *testing.T, s *Slurm) (dirs []string) {
	t.Helper()
	if _, err := s.Control.Run(t.Context(), "srun", "--nodes=2", "--ntasks-per-node=1",
		"unthunk", "agent", "--once", "--records", records, "--max-load=1000", "--max-steal=100"); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, m := range s.Nodes {
		dir := filepath.Join(m.root, records)
		found, err := filepath.Glob(dir + "/*.json") // by the time in their names
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(b)
		}
		dirs = append(dirs, dir)
	}
	docs, err := agents(text.String())
	if err == nil {
		err = checkNodes(docs, s.Nodes)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// files are the files of a machine, one a line, but those of dpkg itself and of what runs there.
func files(t *testing.T, m *Machine) string {
	t.Helper()
	out, err := m.Run(t.Context(), "find", "/", "-xdev", "(", "-path", "/var/lib/dpkg", "-o", "-path", "/var/log", "-o", "-path",
		"/var/lib/slurmd", "-o", "-path", "/var/cache/ldconfig", ")", "-prune", "-o", "-print")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// added are lines of after that before lacks.
func added(before, after string) string {
	had := make(map[string]bool)
	for line := range strings.Lines(before) {
		had[line] = true
	}
	var b strings.Builder
	for line := range strings.Lines(after) {
		if !had[line] {
			b.WriteString(line)
		}
	}
	return b.String()
}
