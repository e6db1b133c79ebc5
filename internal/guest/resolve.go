package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/unthunk/unthunk/internal/pkgfile"
	"github.com/unthunk/unthunk/internal/unpack"
)

// Resolve finds a kernel: an unpacked package's folder, with boot/vmlinuz-* or
// lib/modules/*/vmlinuz and the modules; a vmlinuz whose modules are in ../lib/modules
// beside it or in /lib/modules; a .deb or .rpm file; or debian:6.12-cloud, debian:6.12, which apt downloads
// once. Packages are kept unpacked in dir.
func Resolve(ctx context.Context, dir, name string) (Kernel, error) {
	if series, ok := strings.CutPrefix(name, "debian:"); ok {
		return debian(ctx, dir, series)
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return Kernel{}, fmt.Errorf("find kernel: %w", err)
	case info.IsDir():
		k, err := unpacked(name)
		if errors.Is(err, fs.ErrNotExist) {
			return Kernel{}, fmt.Errorf("find kernel in %s: it has no boot/vmlinuz-* and no lib/modules/*/vmlinuz", name)
		}
		return k, err
	case strings.HasSuffix(name, ".deb"), strings.HasSuffix(name, ".rpm"):
		return fromPackage(ctx, dir, name)
	}
	return image(name)
}

// debian is the newest kernel of a series, "6.12" or "6.12-cloud".
func debian(ctx context.Context, dir, series string) (Kernel, error) {
	version, cloud := strings.CutSuffix(series, "-cloud")
	if strings.Trim(version, "0123456789.") != "" || version == "" {
		return Kernel{}, fmt.Errorf("find kernel debian:%s: it is not debian:VERSION or debian:VERSION-cloud", series)
	}
	if !cloud {
		return fetch(ctx, dir, version+"-full", `^linux-image-`+strings.ReplaceAll(version, ".",
			`\.`)+`\.[0-9][^-]*(-[0-9]+)?(\+deb[0-9]+)?-amd64$`)
	}
	return Fetch(ctx, dir, version)
}

// fromPackage unpacks a package, once for each content.
func fromPackage(ctx context.Context, dir, path string) (Kernel, error) {
	f, size, err := unpack.Open(path, pkgfile.MaxPackage)
	if err != nil {
		return Kernel{}, fmt.Errorf("open package: %w", err)
	}
	defer f.Close()
	sum, err := pkgfile.Sum(ctx, io.NewSectionReader(f, 0, size))
	if err != nil {
		return Kernel{}, fmt.Errorf("read package: %w", err)
	}
	return summed(ctx, dir, pkgfile.Package{Path: path, SHA256: sum})
}

// summed is the kernel of a package that had a SHA-256 when it was looked at. Its folder
// has the whole of that for its name.
func summed(ctx context.Context, dir string, p pkgfile.Package) (Kernel, error) {
	c := cached{filepath.Join(dir, "package-"+p.SHA256)}
	err := c.verify(ctx)
	switch {
	case err == nil:
		return unpacked(c.root())
	case !errors.Is(err, fs.ErrNotExist):
		return Kernel{}, err
	}
	k, err := c.fillKernel(ctx, func(string) ([]pkgfile.Package, error) { return []pkgfile.Package{p}, nil })
	if errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, fmt.Errorf("unpack %s: it holds no kernel", p.Path)
	}
	return k, err
}

// image is a vmlinuz by itself.
func image(path string) (Kernel, error) {
	release, ok := strings.CutPrefix(filepath.Base(path), "vmlinuz-")
	if !ok {
		return Kernel{}, fmt.Errorf("find the modules of %s: it is not called vmlinuz-RELEASE; name the folder of its package", path)
	}
	return withModules(path, release, filepath.Join(filepath.Dir(path), ".."), "/")
}
