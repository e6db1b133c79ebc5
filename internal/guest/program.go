package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/privilege"
)

// programDirs are where root's programs are looked for, and the PATH of what is started.
var programDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// program is the path of a program: for root in programDirs, one that no other user can
// change; for others in PATH.
func program(name string) (string, error) {
	if os.Geteuid() != 0 {
		return exec.LookPath(name)
	}
	for _, dir := range programDirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if trusted(path) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: it is in none of %s", name, strings.Join(programDirs, ", "))
}

// command is a program with an environment that does not depend on the caller's, but for
// proxies, nor on what the caller left open.
func command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := program(name)
	if err != nil {
		return nil, err
	}
	if err := privilege.Withhold(); err != nil {
		return nil, err
	}
	cmd := prepared(ctx, path, args...)
	cmd.Env = environment()
	return cmd, nil
}

// How long what a program started may hold its output after it has ended: nobody waits for that, but a reader on a busy machine
// has its time, and less once the output is not wanted.
const (
	outputTime   = 5 * time.Second
	unwantedTime = 500 * time.Millisecond
)

// prepared is a program that is killed when ctx ends: see [runProgram].
func prepared(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = outputTime
	return cmd
}

// runProgram runs a program that ctx ends, and returns soon after that. What it printed until then must not be read: more may come.
func runProgram(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case <-ended:
	case <-time.After(unwantedTime):
	}
	return ctx.Err()
}

func environment() []string {
	env := []string{"PATH=" + strings.Join(programDirs, ":"), "LC_ALL=C", "HOME=/"}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains([]string{"http_proxy", "https_proxy", "no_proxy", "ftp_proxy"}, strings.ToLower(name)) {
			env = append(env, v)
		}
	}
	return env
}
