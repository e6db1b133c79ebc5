// Package pgserver starts a PostgreSQL for tests: with the programs of the machine, in a folder of its own, on the
// loopback, without a password.
package pgserver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

// Server is a PostgreSQL that runs.
type Server struct {
	// Port on 127.0.0.1, Socket the folder of its Unix socket.
	Port   int
	Socket string

	dir, bin string
	as       *syscall.SysProcAttr
	cmd      *exec.Cmd
	ended    chan error
	log      bytes.Buffer
}

// Start starts a server, which ends with the test. Tests skip where PostgreSQL is not installed.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		testutil.Missing(t, "postgresql")
	}
	slices.Sort(found)
	s := &Server{bin: filepath.Dir(found[len(found)-1])}
	// A folder of t.TempDir cannot be entered by another user, and its path is too long for a socket.
	if s.dir, err = os.MkdirTemp("", "pg"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	s.Socket = s.dir
	if os.Geteuid() == 0 { // it refuses to run as root
		s.as = asPostgres(t, s.dir)
	}
	out, err := s.command("initdb", "-D", filepath.Join(s.dir, "data"), "-U", "fleet", "-A", "trust", "-E", "UTF8", "--locale=C",
		"--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	if s.Port, err = freePort(); err != nil {
		t.Fatal(err)
	}
	s.Run(t, settings...)
	return s
}

// asPostgres are the rights of the user postgres, who gets the folder.
func asPostgres(t testing.TB, dir string) *syscall.SysProcAttr {
	t.Helper()
	account, err := user.Lookup("postgres")
	if err != nil {
		testutil.Missing(t, "the user postgres")
	}
	uid, errUID := strconv.Atoi(account.Uid)
	gid, errGID := strconv.Atoi(account.Gid)
	if err := errors.Join(errUID, errGID, os.Chown(dir, uid, gid)); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.SysProcAttr, cmd.Dir = s.as, s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// Run starts the server anew, after [Server.Kill], and waits until it answers.
func (s *Server) Run(t testing.TB, settings ...string) {
	t.Helper()
	args := []string{"-D", filepath.Join(s.dir, "data"), "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-k", s.Socket, "-c", "fsync=off"}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	s.cmd, s.ended = s.command("postgres", args...), make(chan error, 1)
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(s.cmd, s.ended)
	t.Cleanup(func() { s.Kill() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err := s.command("pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port)).Run(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.Kill()
			t.Fatalf("PostgreSQL does not answer:\n%s", s.log.String())
		}
	}
}

// Kill ends the server at once, as a machine does that loses its power.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGQUIT)
	<-s.ended
	s.cmd = nil
}

// CPU is what the server's processes that run now have taken of the CPUs.
func (s *Server) CPU() (taken time.Duration) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		// Behind the name, which may have blanks: the state, the parent, and as 11th and 12th ticks of user and system.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 13 || fields[1] != strconv.Itoa(s.cmd.Process.Pid) {
			continue
		}
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err == nil {
				taken += time.Duration(ticks) * 10 * time.Millisecond
			}
		}
	}
	return taken
}

// Database makes a database, and returns its address.
func (s *Server) Database(t testing.TB, name string, options ...string) string {
	t.Helper()
	args := append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", "fleet"}, options...)
	if out, err := s.command("createdb", append(args, name)...).CombinedOutput(); err != nil {
		t.Fatalf("createdb: %v\n%s", err, out)
	}
	return fmt.Sprintf("postgres://fleet@127.0.0.1:%d/%s", s.Port, name)
}

// SQL runs statements by psql, and returns what they print.
func (s *Server) SQL(t testing.TB, database, statements string) string {
	t.Helper()
	out, err := s.command("psql", "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", "fleet", "-XAtq", "-v", "ON_ERROR_STOP=1",
		"-d", database, "-c", statements).CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return string(out)
}
