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

// prepared is a program that is killed when ctx ends. What it started may hold its output for longer: nobody waits for that, but
// a reader on a busy machine has its time.
func prepared(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
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
