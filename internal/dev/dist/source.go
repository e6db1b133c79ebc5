package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// architectures are those that unthunk is built for, as Go calls them.
var architectures = []string{"amd64", "arm64"}

// source is a clean clone of one commit.
type source struct {
	dir    string
	commit string
	at     time.Time // of the commit, in UTC
}

// build is the binary of one architecture.
type build struct {
	arch string
	file string
	info *buildinfo.BuildInfo
}

// checkOut clones the repository of the working directory into dir, which it makes, at a
// revision.
func checkOut(ctx context.Context, revision, dir string) (source, error) {
	root, err := output(ctx, "", nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return source{}, fmt.Errorf("find the repository: %w", err)
	}
	commit, err := output(ctx, "", nil, "git", "rev-parse", "--verify", "--end-of-options", revision+"^{commit}")
	if err != nil {
		return source{}, fmt.Errorf("find commit: %w", err)
	}
	seconds, err := output(ctx, "", nil, "git", "show", "-s", "--format=%ct", commit)
	if err != nil {
		return source{}, fmt.Errorf("read commit: %w", err)
	}
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return source{}, fmt.Errorf("read the time of the commit: %w", err)
	}
	if _, err := output(ctx, "", nil, "git", "clone", "-q", "--no-checkout", root, dir); err != nil {
		return source{}, fmt.Errorf("clone: %w", err)
	}
	if _, err := output(ctx, dir, nil, "git", "checkout", "-q", "--detach", commit); err != nil {
		return source{}, fmt.Errorf("check out: %w", err)
	}
	return source{dir: dir, commit: commit, at: time.Unix(at, 0).UTC()}, nil
}

// goEnv is the environment of the go command for an architecture: nothing that changes
// the binary is left to who runs it.
func goEnv(arch string) []string {
	return []string{
		"GOOS=linux", "GOARCH=" + arch, "GOAMD64=v1", "GOARM64=v8.0", "CGO_ENABLED=0",
		"GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off", "GOENV=off", "GOPROXY=" + goProxy(), "GOTOOLCHAIN=local",
	}
}

// goProxy is where the go command finds modules here: GOENV=off forgets what go env -w set.
func goProxy() string {
	if p, err := exec.Command("go", "env", "GOPROXY").Output(); err == nil {
		return strings.TrimSpace(string(p))
	}
	return "off"
}

// build writes the binary for an architecture into a folder.
func (s source) build(ctx context.Context, arch, out string) (build, error) {
	b := build{arch: arch, file: filepath.Join(out, "unthunk-linux-"+arch)}
	tmp, err := os.MkdirTemp(filepath.Dir(s.dir), "go-") // go build leaves its own behind where a signal comes early
	if err != nil {
		return build{}, fmt.Errorf("make folder: %w", err)
	}
	// -s -w leaves out symbols and DWARF; what the runtime prints names functions all the same.
	_, err = output(ctx, s.dir, append(goEnv(arch), "GOTMPDIR="+tmp), "go", "build", "-trimpath", "-buildvcs=true", "-mod=readonly",
		"-ldflags=-s -w", "-o", b.file, "./cmd/unthunk")
	if err != nil {
		return build{}, fmt.Errorf("build for %s: %w", arch, err)
	}
	if b.info, err = buildinfo.ReadFile(b.file); err != nil {
		return build{}, fmt.Errorf("read build of %s: %w", arch, err)
	}
	for _, setting := range b.info.Settings {
		if setting.Key == "vcs.modified" && setting.Value != "false" {
			return build{}, fmt.Errorf("build for %s: files differ from the commit", arch)
		}
	}
	return b, os.Chmod(b.file, 0o755)
}

// run runs the binary that was built for this machine.
func (s source) run(ctx context.Context, builds []build, args ...string) ([]byte, error) {
	for _, b := range builds {
		if b.arch == runtime.GOARCH {
			out, err := output(ctx, s.dir, nil, b.file, args...)
			return []byte(out + "\n"), err
		}
	}
	return nil, fmt.Errorf("run unthunk %s: no binary is built for %s", strings.Join(args, " "), runtime.GOARCH)
}

// cancelTime is how long a command may take to end itself.
const cancelTime = 5 * time.Second

// output runs a command with additions to the environment and returns what it prints,
// without white space at the end. An error ends in what it printed on standard error.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, cancelTime // go ends its compilers
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(name), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimRight(stdout.String(), " \n"), nil
}
