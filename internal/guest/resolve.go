package guest

import (
	"context"
	"crypto/sha256"
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

// Resolve finds a kernel by its name:
//
//   - a folder: a kernel's build tree, an unpacked package or a container image with
//     boot/vmlinuz or lib/modules/*/vmlinuz, or one with images in it;
//   - a bzImage, a vmlinux, or an Image of arm64, whose modules are in the tree that it was built in, in
//     ../lib/modules beside it or in /lib/modules, or nowhere;
//   - a .deb or .rpm file, or several that belong together, joined by "+";
//   - debian:6.12-cloud, debian:6.12, debian:6.12.118+deb13 or debian:unstable, which apt downloads once,
//     each with "-arm64" or "-amd64" behind it for another architecture than this machine's.
//
// Packages are kept unpacked in dir. The release is the one that the image says. Nothing of a
// kernel is executed here, and no link out of a folder is followed.
func Resolve(ctx context.Context, dir, name string) (Kernel, error) {
	if version, ok := strings.CutPrefix(name, debianPrefix); ok {
		return debian(ctx, dir, version)
	}
	info, err := os.Stat(name)
	if err != nil {
		if parts := split(name, maxParts); len(parts) > 1 {
			return fromPackages(ctx, dir, parts)
		}
		return Kernel{}, noFile(name, err)
	}
	if !info.IsDir() && isPackage(name) {
		return fromPackages(ctx, dir, []string{name})
	}
	k, err := locate(ctx, name, info)
	if err != nil {
		return Kernel{}, err
	}
	return k, k.readConfig(ctx)
}

// locate finds the kernel of a folder or an image, without its configuration.
func locate(ctx context.Context, name string, info fs.FileInfo) (Kernel, error) {
	switch {
	case info.IsDir() && isTree(name):
		return inTree(ctx, name)
	case info.IsDir():
		k, ok, err := unpacked(ctx, name)
		if err == nil && !ok {
			err = errNoKernelIn(name)
		}
		return k, err
	}
	return single(ctx, name)
}

// ArchOf is the architecture of the kernel that [Resolve] finds by a name, as far as it is known without a package being
// unpacked; empty where it is not, and where there is no such kernel. Its error is that of ctx.
func ArchOf(ctx context.Context, name string) (string, error) {
	if version, ok := strings.CutPrefix(name, debianPrefix); ok {
		if w, err := parseWant(version); err == nil {
			return w.arch, nil
		}
		return "", nil
	}
	info, err := os.Stat(name)
	if err != nil || isPackage(name) {
		return "", nil
	}
	k, err := locate(ctx, name, info)
	if err != nil {
		return "", ctx.Err()
	}
	return k.Arch, nil
}

// noFile is the error of a name that is no file's. One that a version ends is meant for Debian's.
func noFile(name string, err error) error {
	_, version, ok := strings.Cut(name, ":")
	if !ok {
		version = name
	}
	want, wrong := parseWant(version)
	if wrong == nil && (ok || want.suite == "") && errors.Is(err, fs.ErrNotExist) && !strings.Contains(name, "/") {
		return fmt.Errorf("find kernel: there is no file %s: did you mean %s%s?", name, debianPrefix, version)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("find kernel: there is no file or folder %s: a kernel is a tree, a folder with an image, a bzImage, a .deb or .rpm, "+
			"or %s6.12-cloud, which is downloaded", name, debianPrefix)
	}
	return fmt.Errorf("find kernel: %w", err)
}

func errNoKernelIn(dir string) error {
	return fmt.Errorf("find kernel in %s: it has no boot/vmlinuz, no lib/modules/*/vmlinuz, and no %s of a tree", dir, bzImage)
}

func isPackage(name string) bool {
	return strings.HasSuffix(name, ".deb") || strings.HasSuffix(name, ".rpm")
}

// maxParts is how many packages a kernel may come in: Ubuntu's has three, Debian's four.
const maxParts = 16

// split takes a name of several files apart, "a.deb+b.deb". A file's own name may have a "+" in
// it. It returns nil when not all of them are there.
func split(name string, most int) []string {
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		return []string{name}
	}
	for i := range name {
		if name[i] != '+' || most <= 1 || !isPackage(name[:i]) {
			continue
		}
		if _, err := os.Stat(name[:i]); err != nil {
			continue
		}
		if rest := split(name[i+1:], most-1); rest != nil {
			return append([]string{name[:i]}, rest...)
		}
	}
	return nil
}

// fromPackages unpacks packages into one folder, once for each content.
func fromPackages(ctx context.Context, dir string, paths []string) (Kernel, error) {
	packages := make([]pkgfile.Package, len(paths))
	for i, path := range paths {
		if !isPackage(path) {
			return Kernel{}, fmt.Errorf("unpack %s: it is no .deb and no .rpm: only packages are joined by +", path)
		}
		f, size, err := unpack.Open(path, pkgfile.MaxPackage)
		if err != nil {
			return Kernel{}, fmt.Errorf("open package: %w", err)
		}
		sum, err := pkgfile.Sum(ctx, io.NewSectionReader(f, 0, size))
		f.Close()
		if err != nil {
			return Kernel{}, fmt.Errorf("read package: %w", err)
		}
		packages[i] = pkgfile.Package{Path: path, SHA256: sum}
	}
	return summed(ctx, dir, packages...)
}

// summed is the kernel of packages that had a SHA-256 each when they were looked at. The folder
// has the whole of that for its name, or that of several sums.
func summed(ctx context.Context, dir string, packages ...pkgfile.Package) (Kernel, error) {
	var paths, sums []string
	for _, p := range packages {
		paths, sums = append(paths, p.Path), append(sums, p.SHA256)
	}
	name := sums[0]
	if len(sums) > 1 {
		name = fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(sums, "\n"))))
	}
	c := cached{filepath.Join(dir, "package-"+name)}
	k, err := c.kernel(ctx, "")
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	k, err = c.fillKernel(ctx, "", func(string) ([]pkgfile.Package, error) { return packages, nil })
	if errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, fmt.Errorf("unpack %s: it holds no kernel; where a kernel comes in several packages, name them all: %s",
			strings.Join(paths, "+"), "image.deb+modules.deb")
	}
	return k, err
}
