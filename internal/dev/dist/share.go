package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// share is what is installed beside the binary.
type share struct {
	items []item
	// scripts is the folder of what packages run when they are installed or removed.
	scripts string
}

// item is a file that is the same on every architecture.
type item struct {
	from string // where it is staged
	to   string // where it is installed
	// only are the formats that have it, of deb, rpm, apk and tar; all when there is none.
	only []string
	// config says that it belongs to who runs the machine: an update keeps what they wrote.
	config bool
}

// share makes and collects what is installed beside the binary.
func (s source) share(ctx context.Context, builds []build, stage string) (share, error) {
	man := filepath.Join(stage, "man")
	if _, err := s.run(ctx, builds, "man", man); err != nil {
		return share{}, fmt.Errorf("make man pages: %w", err)
	}
	pages, err := filepath.Glob(filepath.Join(man, "*.1"))
	if err != nil || len(pages) == 0 {
		return share{}, fmt.Errorf("make man pages: there is none (%v)", err)
	}
	var items []item
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return share{}, fmt.Errorf("read man page: %w", err)
		}
		packed, err := compress(text)
		if err != nil {
			return share{}, err
		}
		if err := stageFile(page+".gz", packed); err != nil {
			return share{}, err
		}
		items = append(items, item{from: page + ".gz", to: "/usr/share/man/man1/" + filepath.Base(page) + ".gz"})
	}
	for _, c := range []struct{ shell, to string }{
		{"bash", "/usr/share/bash-completion/completions/unthunk"},
		{"zsh", "/usr/share/zsh/site-functions/_unthunk"},
		{"fish", "/usr/share/fish/vendor_completions.d/unthunk.fish"},
	} {
		script, err := s.run(ctx, builds, "completion", c.shell)
		if err != nil {
			return share{}, fmt.Errorf("make completions: %w", err)
		}
		file := filepath.Join(stage, "completion."+c.shell)
		if err := stageFile(file, script); err != nil {
			return share{}, err
		}
		items = append(items, item{from: file, to: c.to})
	}
	copyright, err := s.copyright(ctx)
	if err != nil {
		return share{}, err
	}
	file := filepath.Join(stage, "copyright")
	if err := stageFile(file, copyright); err != nil {
		return share{}, err
	}
	items = append(items, item{from: file, to: "/usr/share/doc/unthunk/copyright"})
	items = append(items, s.systemd()...)
	deployment, err := s.deployment()
	if err != nil {
		return share{}, err
	}
	return share{append(items, deployment...), filepath.Join(s.dir, "packaging", "scripts")}, nil
}

// systemd are the units and what configures them. Alpine has another init.
func (s source) systemd() []item {
	dir := filepath.Join(s.dir, "packaging", "systemd")
	only := []string{"deb", "rpm", "tar"}
	return []item{
		{from: filepath.Join(dir, "unthunk-agent.service"), to: "/usr/lib/systemd/system/unthunk-agent.service", only: only},
		{from: filepath.Join(dir, "unthunk-agent.timer"), to: "/usr/lib/systemd/system/unthunk-agent.timer", only: only},
		{from: filepath.Join(dir, "unthunk-agent.default"), to: "/etc/default/unthunk-agent", only: only, config: true},
		{from: filepath.Join(dir, "unthunk-forward.service"), to: "/usr/lib/systemd/system/unthunk-forward.service", only: only},
		{from: filepath.Join(dir, "unthunk-forward.default"), to: "/etc/default/unthunk-forward", only: only, config: true},
	}
}

// deployment is what is for the machine that deploys: an Ansible role and manifests.
func (s source) deployment() (items []item, err error) {
	for _, dir := range []string{"ansible", "kubernetes"} {
		root := filepath.Join(s.dir, "packaging", dir)
		err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			rest, err := filepath.Rel(root, name)
			items = append(items, item{from: name, to: path.Join("/usr/share/unthunk", dir, rest), only: []string{"tar"}})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read packaging: %w", err)
		}
	}
	return items, nil
}

// inFormat tells whether what is made in a format has an item.
func (i item) inFormat(format string) bool {
	return len(i.only) == 0 || slices.Contains(i.only, format)
}

func stageFile(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("stage file: %w", err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return fmt.Errorf("stage file: %w", err)
	}
	return nil
}

// compress packs bytes as gzip does with -9 -n: neither name nor time.
func compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if _, err := z.Write(data); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return b.Bytes(), nil
}

// license matches the names of files that a distributor must pass on.
var license = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|copyright)(s?[-.].*|s)?$`)

// copyright is the license of unthunk, of Go and of each module that is in a binary.
func (s source) copyright(ctx context.Context) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "unthunk, https://%s\n\n", modulePath)
	if err := appendLicenses(&b, os.DirFS(s.dir)); err != nil {
		return nil, fmt.Errorf("read the license of unthunk: %w", err)
	}
	root, err := output(ctx, "", nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, fmt.Errorf("find Go: %w", err)
	}
	fmt.Fprintf(&b, "\nIn the binary: %s and the modules below.\n", runtime.Version())
	head(&b, "Go "+runtime.Version())
	if err := appendLicenses(&b, os.DirFS(root)); err != nil {
		return nil, fmt.Errorf("read the license of Go: %w", err)
	}
	modules := make(map[string]string) // folders by name
	for _, arch := range architectures {
		lines, err := output(ctx, s.dir, goEnv(arch), "go", "list", "-mod=readonly", "-deps", "-f",
			"{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}{{end}}", "./cmd/unthunk")
		if err != nil {
			return nil, fmt.Errorf("list modules: %w", err)
		}
		for line := range strings.Lines(lines) {
			if name, dir, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
				modules[name] = dir
			}
		}
	}
	for _, name := range sortedKeys(modules) {
		head(&b, name)
		if err := appendLicenses(&b, os.DirFS(modules[name])); err != nil {
			return nil, fmt.Errorf("read the license of %s: %w", name, err)
		}
	}
	return b.Bytes(), nil
}

func head(b *bytes.Buffer, name string) {
	fmt.Fprintf(b, "\n%s\n%s\n\n", strings.Repeat("-", 80), name)
}

// appendLicenses appends the license files at the top of a module: one at least.
func appendLicenses(b *bytes.Buffer, module fs.FS) error {
	entries, err := fs.ReadDir(module, ".")
	if err != nil {
		return err
	}
	found := 0
	for _, e := range entries {
		if !e.Type().IsRegular() || !license.MatchString(e.Name()) {
			continue
		}
		text, err := fs.ReadFile(module, path.Clean(e.Name()))
		if err != nil {
			return err
		}
		b.Write(bytes.TrimSpace(text))
		b.WriteString("\n")
		found++
	}
	if found == 0 {
		return fmt.Errorf("there is no file of a license: %w", fs.ErrNotExist)
	}
	return nil
}
