package guest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/memory"
)

// apt runs Debian's package tools with a state of their own.
type apt struct{ options []string }

// fresh is how old lists of packages may be.
const fresh = time.Hour

// newApt sets up the state in dir for suites and an architecture. It returns nil when this machine's apt
// has no Debian source. Suites that the archive does not have are left out.
func newApt(ctx context.Context, dir, arch string, suites ...string) (*apt, error) {
	targets, err := output(ctx, "apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)")
	if err != nil {
		return nil, err
	}
	sources := debianSources(targets, arch, suites...)
	if sources == "" {
		return nil, nil
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("set up apt: %w", err)
		}
	}
	unlock, err := wait(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	list, stamp := filepath.Join(dir, "sources.list"), filepath.Join(dir, "updated")
	a := &apt{[]string{
		"-qq",
		"-o", "APT::Architecture=" + arch,
		"-o", "APT::Architectures=" + arch,
		"-o", "Dir::Etc::sourcelist=" + list,
		"-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"),
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		// Only the lists of packages.
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	}}
	if os.Geteuid() == 0 {
		// apt would otherwise download as a user who cannot write here.
		a.options = append(a.options, "-o", "APT::Sandbox::User=root")
	}
	before, err := os.ReadFile(list)
	if info, e := os.Stat(stamp); err == nil && e == nil && string(before) == sources && time.Since(info.ModTime()).Abs() < fresh {
		return a, nil
	}
	if err := os.WriteFile(list, []byte(sources), 0o644); err != nil {
		return nil, fmt.Errorf("set up apt: %w", err)
	}
	if _, err := output(ctx, "apt-get", append(a.options, "update")...); err != nil {
		// A suite that is not there is an error of all; those that are have come. They are asked
		// for again the next time.
		got, e := output(ctx, "apt-get", append(a.options, "indextargets", "--format", "$(CREATED_BY)")...)
		if e != nil || !strings.Contains(got, "Packages") {
			return nil, err
		}
		return a, nil
	}
	if err := os.WriteFile(stamp, nil, 0o644); err != nil {
		return nil, fmt.Errorf("set up apt: %w", err)
	}
	return a, nil
}

// wait locks a folder once others have left it.
func wait(ctx context.Context, dir string) (unlock func(), err error) {
	for {
		f, err := lock(dir)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("set up apt: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// debianSources turns lines of "RELEASE SITE" into apt sources for suites and an architecture, with
// their security updates.
func debianSources(targets, arch string, suites ...string) string {
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
			fmt.Fprintf(&b, "deb [arch=%s] %s %s main\n", arch, main, suite)
		}
		if security != "" && !strings.Contains(suite, "-") && !slices.Contains([]string{"sid", "experimental"}, suite) {
			fmt.Fprintf(&b, "deb [arch=%s] %s %s-security main\n", arch, security, suite)
		}
	}
	return b.String()
}

// search returns the names of packages that match a regular expression. Those that only depend on
// the newest of a series are left out.
func (a *apt) search(ctx context.Context, pattern string) ([]string, error) {
	out, err := output(ctx, "apt-cache", append(a.options, "search", "--names-only", pattern)...)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(out) {
		name, what, _ := strings.Cut(line, " ")
		if !strings.Contains(what, "(meta-package)") && len(names) < maxOffers {
			names = append(names, name)
		}
	}
	return names, nil
}

// download downloads a kernel's packages into dir.
func (a *apt) download(ctx context.Context, o Offer, dir string) (packages []string, err error) {
	names := append(slices.Sorted(maps.Keys(o.parts)), o.pkg+"="+o.Version)
	cmd, err := command(ctx, "apt-get", slices.Concat(a.options, []string{"download"}, names)...)
	if err != nil {
		return nil, err
	}
	cmd.Dir = dir
	out := memory.NewHead(maxMessages)
	cmd.Stdout, cmd.Stderr = out, out
	switch err := runProgram(ctx, cmd); {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("download %s: %w", o.pkg, ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("download %s: %w: %s", o.pkg, err, strings.TrimSpace(out.String()))
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != len(names) {
		return nil, fmt.Errorf("download %s: %d packages of %d came", o.pkg, len(debs), len(names))
	}
	return debs, nil
}

// partsOf are the packages of the same kernel that images depend on, by the name of the image, as
// their control files say.
func partsOf(control string) map[string][]string {
	parts := make(map[string][]string)
	pkg := ""
	for line := range strings.Lines(control) {
		if name, ok := strings.CutPrefix(line, "Package:"); ok {
			pkg = strings.TrimSpace(name)
		}
		list, ok := strings.CutPrefix(line, "Depends:")
		if !ok || parts[pkg] != nil || len(parts) > maxOffers {
			continue
		}
		release := strings.TrimPrefix(pkg, "linux-image-")
		for field := range strings.SplitSeq(list, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(field), " ")
			part, ok := strings.CutSuffix(name, "-"+release)
			if ok && strings.HasPrefix(part, "linux-") {
				parts[pkg] = append(parts[pkg], name)
			}
		}
	}
	return parts
}

// output runs a command and returns its standard output.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd, err := command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	messages := memory.NewHead(maxMessages)
	cmd.Stdout, cmd.Stderr = &out, messages
	err = runProgram(ctx, cmd)
	if ctx.Err() != nil {
		return "", fmt.Errorf("run %s: %w", name, ctx.Err())
	}
	if err != nil {
		var exit *exec.ExitError
		if said := strings.TrimSpace(messages.String()); errors.As(err, &exit) && said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return "", fmt.Errorf("run %s: %w", name, err)
	}
	return out.String(), nil
}
