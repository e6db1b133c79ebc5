package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/unpack"
)

// Kernel is a kernel that can be booted.
type Kernel struct {
	// Release is what uname -r says in it.
	Release string
	// Arch is its architecture: [AMD64] or [ARM64].
	Arch string
	// Image is the bzImage, a vmlinux that QEMU can boot, or the Image of arm64. Modules is the directory
	// /lib/modules/Release, or the tree it was built in; empty where there is none.
	Image, Modules string
	// Tree is set where Modules is a tree.
	Tree bool
	// Dir is the folder in which its package is unpacked; empty for an image by itself.
	Dir string
	// Vmlinux is the ELF file of the same build, with its symbols and debug information
	// where the build made them; empty where it is not at hand.
	Vmlinux string
	// Config is the file with its configuration, or the image that has it in itself; empty
	// where neither is at hand.
	Config   string
	options  options
	embedded []byte // the text of the configuration that the image has in itself
}

// unpacked finds the kernel in a folder: that of an unpacked package, of a container image, or
// one that has images of kernels in it. ok is false where there is none. Its configuration is not
// read: see [Kernel.readConfig].
func unpacked(ctx context.Context, dir string) (k Kernel, ok bool, err error) {
	var found []Kernel
	folders := unpack.NewFolders(ctx, os.DirFS(dir))
	for _, pattern := range []string{
		"boot/vmlinuz-*", "boot/vmlinuz", "boot/bzImage", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz",
		"vmlinuz-*", "vmlinuz", "bzImage",
	} {
		names, err := fs.Glob(folders, pattern)
		if err := cmp.Or(err, folders.Err()); err != nil {
			return Kernel{}, false, fmt.Errorf("find kernel: %w", err)
		}
		if len(names) > maxKernels {
			return Kernel{}, false, fmt.Errorf("find kernel in %s: more than %d kernels", dir, maxKernels)
		}
		for _, name := range names {
			if ctx.Err() != nil {
				break
			}
			k, err := fromFolder(ctx, dir, name)
			if err != nil {
				return Kernel{}, false, err
			}
			// The same kernel may have several names, and a link for one.
			if !slices.ContainsFunc(found, func(other Kernel) bool { return other.Release == k.Release }) {
				found = append(found, k)
			}
		}
		if err := ctx.Err(); err != nil {
			return Kernel{}, false, err
		}
	}
	switch len(found) {
	case 0:
		return Kernel{}, false, nil
	case 1:
		return found[0], true, nil
	}
	several := &severalError{dir: dir}
	for _, k := range found {
		several.images = append(several.images, k.Image)
	}
	return Kernel{}, false, several
}

// severalError is that of a folder with several kernels.
type severalError struct {
	dir    string
	images []string
}

func (e *severalError) Error() string {
	return fmt.Sprintf("find kernel in %s: there are %d, name one: %s", e.dir, len(e.images), strings.Join(e.images, ", "))
}

// maxKernels is how many kernels a folder may have.
const maxKernels = 64

// fromFolder is the kernel whose image is name in a folder.
func fromFolder(ctx context.Context, dir, name string) (Kernel, error) {
	path, err := inside(dir, name)
	if err != nil {
		return Kernel{}, err
	}
	i, err := readImage(ctx, path)
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{Release: i.release, Arch: i.arch, Image: path, Dir: dir}
	others := false // modules of other kernels
	for _, lib := range []string{"lib/modules", "usr/lib/modules"} {
		filled, err := hasEntries(filepath.Join(dir, lib))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Kernel{}, fmt.Errorf("find modules: %w", err)
		}
		others = others || filled
		modules := filepath.Join(lib, i.release)
		if info, err := os.Stat(filepath.Join(dir, modules)); k.Modules == "" && err == nil && info.IsDir() {
			if k.Modules, err = inside(dir, modules); err != nil {
				return Kernel{}, err
			}
		}
	}
	if k.Modules == "" && others {
		return Kernel{}, fmt.Errorf("find the modules of %s: there is no lib/modules/%s; where a kernel comes in several packages, "+
			"unpack them into one folder and name that", path, i.release)
	}
	k.Vmlinux = beside(dir, "boot/vmlinux-"+i.release, "usr/lib/debug/boot/vmlinux-"+i.release)
	k.Config = beside(dir, filepath.Join(filepath.Dir(name), "config-"+i.release), "boot/config-"+i.release,
		"lib/modules/"+i.release+"/config", "usr/lib/modules/"+i.release+"/config")
	return k, nil
}

// hasEntries tells whether there is anything in a folder.
func hasEntries(dir string) (bool, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err != io.EOF {
		return err == nil, err
	}
	return false, nil
}

// inside is the path of a file in a folder with no link in it. A link that leads out of the folder
// is an error: the folder is another's, and what it leads to may be for root only.
func inside(dir, name string) (string, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("find kernel: %w", err)
	}
	path, err := filepath.EvalSymlinks(filepath.Join(root, name))
	if err != nil {
		return "", fmt.Errorf("find kernel: %w", err)
	}
	if rel, err := filepath.Rel(root, path); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("find kernel: %s is a link that leads out of %s, to %s", filepath.Join(dir, name), dir, path)
	}
	return path, nil
}

// beside is the first of names that is a file in a folder, without a link that leads out of it;
// empty where there is none.
func beside(dir string, names ...string) string {
	for _, name := range names {
		path, err := inside(dir, name)
		if err != nil {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// single is the kernel of a file: a bzImage or a vmlinux, by itself or in the tree that it was
// built in.
func single(ctx context.Context, path string) (Kernel, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("find kernel: %w", err)
	}
	i, err := readImage(ctx, path)
	if err != nil {
		return Kernel{}, err
	}
	dir := filepath.Dir(path)
	for range 4 { // a bzImage is in arch/x86/boot
		if isTree(dir) {
			return built(ctx, dir, path, i)
		}
		dir = filepath.Dir(dir)
	}
	dir = filepath.Dir(path)
	k := Kernel{Release: i.release, Arch: i.arch, Image: path}
	if i.elf {
		if k.Vmlinux = path; !i.pvh {
			return Kernel{}, noPVH(path)
		}
	}
	for _, root := range []string{filepath.Join(dir, ".."), "/"} {
		modules := filepath.Join(root, "lib", "modules", i.release)
		if info, err := os.Stat(modules); k.Modules == "" && err == nil && info.IsDir() {
			k.Modules = modules
		}
	}
	k.Config = beside(dir, "config-"+i.release)
	return k, nil
}

func noPVH(path string) error {
	return fmt.Errorf("boot %s: QEMU boots a vmlinux with CONFIG_PVH, which this has not; there is no bzImage of the same build in "+
		"arch/x86/boot beside it either", path)
}

// isTree tells whether kernels are built in a folder.
func isTree(dir string) bool {
	for _, name := range []string{".config", "Makefile"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	info, err := os.Stat(filepath.Join(dir, "arch", "x86"))
	return err == nil && info.IsDir()
}

// inTree is the kernel that was built in a tree.
func inTree(ctx context.Context, dir string) (Kernel, error) {
	for _, name := range []string{bzImage, "vmlinux"} {
		if path := beside(dir, name); path != "" {
			i, err := readImage(ctx, path)
			if err != nil {
				return Kernel{}, err
			}
			return built(ctx, dir, path, i)
		}
	}
	return Kernel{}, fmt.Errorf("find kernel in %s: the tree has no %s: make bzImage", dir, bzImage)
}

// bzImage is where a tree has it; arch/x86_64/boot is a link to there.
const bzImage = "arch/x86/boot/bzImage"

// built is the kernel in a tree whose image is path.
func built(ctx context.Context, dir, path string, i image) (Kernel, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Kernel{}, fmt.Errorf("find kernel: %w", err)
	}
	k := Kernel{Release: i.release, Arch: i.arch, Image: path}
	if other := beside(dir, "vmlinux"); i.elf {
		k.Vmlinux = path
	} else if other != "" {
		elf, err := readImage(ctx, other)
		if err != nil {
			return Kernel{}, err
		}
		// A build that failed on its way has left the image of the one before.
		if elf.release != i.release || elf.version != i.version {
			return Kernel{}, fmt.Errorf("%s (%s %s) is of another build than vmlinux (%s %s): make bzImage",
				path, i.release, i.version, elf.release, elf.version)
		}
		k.Vmlinux = other
	}
	if i.elf && !i.pvh {
		other := beside(dir, bzImage)
		if other == "" {
			return Kernel{}, noPVH(path)
		}
		same, err := readImage(ctx, other)
		switch {
		case err != nil:
			return Kernel{}, err
		case same.release != i.release || same.version != i.version:
			return Kernel{}, noPVH(path)
		}
		k.Image = other
	}
	if beside(dir, "modules.builtin", "modules.order") != "" {
		k.Modules, k.Tree = dir, true
	}
	k.Config = beside(dir, ".config")
	return k, nil
}
