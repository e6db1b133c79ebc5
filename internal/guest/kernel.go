package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/pkgfile"
)

// Kernel is an unpacked kernel package.
type Kernel struct {
	// Release is what uname -r says in it.
	Release string
	// Image is the bzImage, Modules the directory /lib/modules/Release.
	Image, Modules string
	// Dir is the folder in which its package is unpacked; empty for a vmlinuz by itself.
	Dir string
}

// Fetch returns Debian's newest cloud kernel of a series ("6.1") and downloads
// it when dir does not hold one of that series yet. It takes apt's package
// sources of this machine, in Debian 12 and 11 whatever is installed, and an
// apt state of its own inside dir, so that it needs no root and changes
// nothing here. Where apt has no Debian source or no such kernel it returns a
// [feature.Missing].
func Fetch(ctx context.Context, dir, series string) (Kernel, error) {
	return fetch(ctx, dir, series, `^linux-image-`+regexp.QuoteMeta(series)+`\.[0-9].*-cloud-amd64$`)
}

// fetch downloads the newest package whose name matches and keeps it as name in dir.
func fetch(ctx context.Context, dir, series, pattern string) (Kernel, error) {
	c := cached{filepath.Join(dir, series)}
	err := c.verify(ctx)
	switch {
	case err == nil:
		return unpacked(c.root())
	case !errors.Is(err, fs.ErrNotExist):
		return Kernel{}, err
	}
	for _, tool := range []string{"apt-get", "apt-cache"} {
		if _, err := program(tool); err != nil {
			return Kernel{}, missing(series, "needs Debian's "+tool)
		}
	}
	if err := openCache(ctx, dir); err != nil {
		return Kernel{}, err
	}
	// Debian 12 has 6.1 and 6.12, Debian 11 has 5.10.
	a, err := newApt(ctx, filepath.Join(dir, "apt"), "bookworm", "bullseye")
	if err != nil {
		return Kernel{}, err
	}
	if a == nil {
		return Kernel{}, missing(series, "apt knows no Debian source; try apt-get update")
	}
	names, err := a.search(ctx, pattern)
	if err != nil {
		return Kernel{}, err
	}
	if len(names) == 0 {
		return Kernel{}, missing(series, "Debian's sources hold none")
	}
	return c.fillKernel(ctx, func(debs string) ([]pkgfile.Package, error) {
		paths, err := a.download(ctx, slices.MaxFunc(names, compareVersions), debs)
		return files(paths), err
	})
}

// fillKernel makes the folder of a kernel's packages.
func (c cached) fillKernel(ctx context.Context, download func(dir string) ([]pkgfile.Package, error)) (Kernel, error) {
	err := c.fill(ctx, download, func(root string) error {
		_, err := unpacked(root)
		return err
	})
	if err != nil {
		return Kernel{}, fmt.Errorf("unpack kernel: %w", err)
	}
	return unpacked(c.root())
}

func missing(series, help string) error {
	return &feature.Missing{Feature: "guest kernel " + series, Help: help}
}

// unpacked finds the kernel in an unpacked package.
func unpacked(dir string) (Kernel, error) {
	for _, pattern := range []string{"boot/vmlinuz-*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz"} {
		images, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return Kernel{}, fmt.Errorf("find kernel: %w", err)
		}
		if len(images) == 0 {
			continue
		}
		k := Kernel{Image: images[0], Modules: filepath.Dir(images[0])}
		if release, ok := strings.CutPrefix(filepath.Base(images[0]), "vmlinuz-"); ok {
			if k, err = withModules(images[0], release, dir, filepath.Join(dir, "usr")); err != nil {
				return Kernel{}, fmt.Errorf("%w; where a kernel comes in several packages, unpack them into one folder and name that", err)
			}
		} else {
			k.Release = filepath.Base(k.Modules)
		}
		k.Dir = dir
		return k, nil
	}
	return Kernel{}, fmt.Errorf("find kernel in %s: %w", dir, fs.ErrNotExist)
}

// withModules is an image with its modules in the first of roots that has them.
func withModules(image, release string, roots ...string) (Kernel, error) {
	for _, root := range roots {
		dir := filepath.Join(root, "lib", "modules", release)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return Kernel{Release: release, Image: image, Modules: dir}, nil
		}
	}
	return Kernel{}, fmt.Errorf("find the modules of %s: there is no lib/modules/%s", image, release)
}

// compareVersions orders package names by the numbers in them.
func compareVersions(a, b string) int {
	return cmp.Or(slices.Compare(numbers(a), numbers(b)), strings.Compare(a, b))
}

var digits = regexp.MustCompile(`[0-9]+`)

func numbers(s string) []int {
	var ns []int
	for _, d := range digits.FindAllString(s, -1) {
		n, _ := strconv.Atoi(d)
		ns = append(ns, n)
	}
	return ns
}

// apt runs Debian's package tools with a state of their own.
type apt struct{ options []string }

// newApt sets up the state in dir for suites. It returns nil when this machine's apt
// has no Debian source.
func newApt(ctx context.Context, dir string, suites ...string) (*apt, error) {
	targets, err := output(ctx, "apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)")
	if err != nil {
		return nil, err
	}
	sources := debianSources(targets, suites...)
	if sources == "" {
		return nil, nil
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("set up apt: %w", err)
		}
	}
	list := filepath.Join(dir, "sources.list")
	if err := os.WriteFile(list, []byte(sources), 0o644); err != nil {
		return nil, fmt.Errorf("set up apt: %w", err)
	}
	a := &apt{[]string{
		"-qq",
		"-o", "Dir::Etc::sourcelist=" + list,
		"-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"),
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
	}}
	if os.Geteuid() == 0 {
		// apt would otherwise download as a user who cannot write here.
		a.options = append(a.options, "-o", "APT::Sandbox::User=root")
	}
	if _, err := output(ctx, "apt-get", append(a.options, "update")...); err != nil {
		return nil, err
	}
	return a, nil
}

// debianSources turns lines of "RELEASE SITE" into apt sources for suites, with their
// security updates.
func debianSources(targets string, suites ...string) string {
	var main, security string
	for line := range strings.Lines(targets) {
		release, site, ok := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case !ok:
		case strings.HasSuffix(release, "-security") && strings.HasSuffix(site, "debian-security"):
			security = site
		case strings.HasSuffix(site, "/debian"):
			main = site
		}
	}
	var b strings.Builder
	for _, suite := range suites {
		if main != "" {
			fmt.Fprintf(&b, "deb [arch=amd64] %s %s main\n", main, suite)
		}
		if security != "" && !strings.Contains(suite, "-") {
			fmt.Fprintf(&b, "deb [arch=amd64] %s %s-security main\n", security, suite)
		}
	}
	return b.String()
}

// search returns the names of packages that match a regular expression.
func (a *apt) search(ctx context.Context, pattern string) ([]string, error) {
	out, err := output(ctx, "apt-cache", append(a.options, "search", "--names-only", pattern)...)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names, nil
}

// download downloads a package into dir.
func (a *apt) download(ctx context.Context, name, dir string) (packages []string, err error) {
	cmd, err := command(ctx, "apt-get", append(a.options, "download", name)...)
	if err != nil {
		return nil, err
	}
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("download %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return nil, fmt.Errorf("download %s: %d packages came", name, len(debs))
	}
	return debs, nil
}

// output runs a command and returns its standard output.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd, err := command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("run %s: %w", name, err)
	}
	return string(out), nil
}
