package cluster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// suite is the Debian of the machines, and packages what is in it beyond the least. The signatures of the archive vouch for them.
// The archive keeps one version of each: where a package was renewed, mmdebstrap names it, and the line here changes.
const suite = "bookworm"

var packages = []string{
	"iproute2=6.1.0-3",
	// Kubernetes
	"containerd=1.6.20~ds1-1+deb12u3", "runc=1.1.5+ds1-1+deb12u1", "etcd-server=3.4.23-4+b4",
	// Slurm
	"munge=0.5.15-2+deb12u1", "slurm-client=22.05.8-4+deb12u3", "slurmctld=22.05.8-4+deb12u3", "slurmd=22.05.8-4+deb12u3",
}

// Cache is the folder for what is fetched and built once: unthunk-cluster in $XDG_CACHE_HOME, or in /var/cache.
func Cache() string {
	dir := os.Getenv("XDG_CACHE_HOME")
	if dir == "" {
		dir = "/var/cache"
	}
	return filepath.Join(dir, "unthunk-cluster")
}

// debian returns a tar of the Debian of the machines. It is made from the archive, in some minutes, when the folder has none with
// these packages.
func debian(cache string) (string, error) {
	return once(cache, "debian", ".tar", []string{suite, strings.Join(packages, ",")}, func(to string) error {
		return run("", "mmdebstrap", "--quiet", "--variant=minbase", "--include="+strings.Join(packages, ","), suite, to)
	})
}

// programs returns the file of Kubernetes' programs. It is built, in 13 minutes of CPU time, when the folder has none of this
// source.
func programs(cache string) (string, error) {
	const dir = "kubernetes"
	key := []string{runtime.Version()}
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("read source: %w", err)
		}
		key = append(key, string(b))
	}
	return once(cache, "kubernetes", "", key, func(to string) error { return goBuild(dir, to) })
}

// goBuild builds the command in a folder as a static program.
func goBuild(dir, to string) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return fmt.Errorf("find folder: %w", err)
	}
	return run(dir, "env", "CGO_ENABLED=0", "GOWORK=off", "go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath",
		"-ldflags=-s -w", "-o", to, ".")
}

// once returns a file of the folder that is named for what it is made of. It has it made, under another name, when it is not there.
func once(cache, name, ext string, key []string, create func(to string) error) (file string, err error) {
	sum := sha256.Sum256([]byte(strings.Join(key, "\x00")))
	file = filepath.Join(cache, fmt.Sprintf("%s-%x%s", name, sum[:6], ext))
	if _, err := os.Stat(file); err == nil || !errors.Is(err, os.ErrNotExist) {
		return file, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	part, err := os.MkdirTemp(cache, ".part-")
	if err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(part)) }()
	made := filepath.Join(part, name+ext)
	if err := create(made); err != nil {
		return "", err
	}
	if err := os.Rename(made, file); err != nil {
		return "", fmt.Errorf("keep %s: %w", name, err)
	}
	return file, nil
}

// run runs a command in a folder. An error ends in what it printed.
func run(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
