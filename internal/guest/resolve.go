package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/unthunk/unthunk/feature"
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
	case strings.HasSuffix(name, ".deb"):
		return fromPackage(ctx, dir, name, unpackDeb)
	case strings.HasSuffix(name, ".rpm"):
		return fromPackage(ctx, dir, name, unpackRPM)
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

func unpackDeb(ctx context.Context, path, into string) error {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		return &feature.Missing{Feature: "dpkg-deb", Help: "install dpkg, or unpack the package and name the folder", Err: err}
	}
	_, err := output(ctx, "dpkg-deb", "-x", path, into)
	return err
}

// unpackRPM needs libarchive's tar, which reads cpio archives with each compression that
// rpm uses.
func unpackRPM(ctx context.Context, path, into string) error {
	if _, err := exec.LookPath("bsdtar"); err != nil {
		return &feature.Missing{Feature: "bsdtar", Help: "install libarchive-tools, or unpack the package and name the folder", Err: err}
	}
	_, err := output(ctx, "bsdtar", "-x", "-f", path, "-C", into)
	return err
}

// fromPackage unpacks a package, once for each content.
func fromPackage(ctx context.Context, dir, path string, unpack func(ctx context.Context, path, into string) error) (Kernel, error) {
	f, err := os.Open(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("open package: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return Kernel{}, fmt.Errorf("read package: %w", err)
	}
	into := filepath.Join(dir, "package-"+hex.EncodeToString(sum.Sum(nil))[:16])
	if k, err := unpacked(into); !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Kernel{}, fmt.Errorf("unpack package: %w", err)
	}
	temp, err := os.MkdirTemp(dir, "unpack-")
	if err != nil {
		return Kernel{}, fmt.Errorf("unpack package: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := unpack(ctx, path, temp); err != nil {
		return Kernel{}, fmt.Errorf("unpack %s: %w", path, err)
	}
	if _, err := unpacked(temp); errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, fmt.Errorf("unpack %s: it holds no kernel", path)
	} else if err != nil {
		return Kernel{}, fmt.Errorf("unpack %s: %w", path, err)
	}
	if err := os.Rename(temp, into); err != nil {
		return Kernel{}, fmt.Errorf("unpack package: %w", err)
	}
	return unpacked(into)
}

// image is a vmlinuz by itself.
func image(path string) (Kernel, error) {
	release, ok := strings.CutPrefix(filepath.Base(path), "vmlinuz-")
	if !ok {
		return Kernel{}, fmt.Errorf("find the modules of %s: it is not called vmlinuz-RELEASE; name the folder of its package", path)
	}
	return withModules(path, release, filepath.Join(filepath.Dir(path), ".."), "/")
}
