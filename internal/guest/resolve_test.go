package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

// folder makes files by their names: what begins with "-> " is a link, "|" a pipe.
func folder(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		to, isLink := strings.CutPrefix(content, "-> ")
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(to, path)
		case content == "|":
			err = unix.Mkfifo(path, 0o600)
		default:
			err = os.WriteFile(path, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tree are the files of a kernel's tree that was built, with changes.
func tree(changes map[string]string) map[string]string {
	version := "6.12.1-made (me@here) (gcc) #1 SMP made up\n\x00"
	files := map[string]string{
		".config": Config(), "Makefile": "", bzImage: string(testutil.BzImage("6.12.1-made", "")),
		"vmlinux": string(vmlinux(linuxVersion+version, true)), "modules.builtin": "kernel/drivers/net/veth.ko\n",
	}
	for name, content := range changes {
		if files[name] = content; content == "" {
			delete(files, name)
		}
	}
	return files
}

// A kernel is found where packages, images of containers and builds have it. What is not whole, or
// leads elsewhere, is refused in one line.
func TestResolveFolder(t *testing.T) {
	t.Parallel()
	bz := func(release string) string { return string(testutil.BzImage(release, "")) }
	for name, test := range map[string]struct {
		files          map[string]string
		image, modules string
		fails          string
	}{
		"lib": {map[string]string{"boot/vmlinuz-6.1": bz("6.1"), "lib/modules/6.1/modules.builtin": ""},
			"boot/vmlinuz-6.1", "lib/modules/6.1", ""},
		"usr/lib": {map[string]string{"boot/vmlinuz-6.18": bz("6.18"), "usr/lib/modules/6.18/modules.builtin": ""},
			"boot/vmlinuz-6.18", "usr/lib/modules/6.18", ""},
		"all in usr": {map[string]string{"usr/lib/modules/7.2/vmlinuz": bz("7.2"), "usr/lib/modules/7.2/modules.builtin": ""},
			"usr/lib/modules/7.2/vmlinuz", "usr/lib/modules/7.2", ""},
		"container": {map[string]string{"boot/vmlinuz": bz("6.8"), "lib": "-> usr/lib", "usr/lib/modules/6.8/modules.builtin": ""},
			"boot/vmlinuz", "usr/lib/modules/6.8", ""},
		"one with two names": {map[string]string{"boot/vmlinuz": "-> vmlinuz-6.8", "boot/vmlinuz-6.8": bz("6.8"),
			"usr/lib/modules/6.8/vmlinuz": bz("6.8")}, "boot/vmlinuz-6.8", "usr/lib/modules/6.8", ""},
		"no modules": {map[string]string{"boot/vmlinuz-6.8": bz("6.8")}, "boot/vmlinuz-6.8", "", ""},
		"image":      {map[string]string{"bzImage": bz("6.8")}, "bzImage", "", ""},
		"other name": {map[string]string{"boot/vmlinuz-x": bz("6.8"), "lib/modules/6.8/x": ""},
			"boot/vmlinuz-x", "lib/modules/6.8", ""},
		"other kernel": {map[string]string{"boot/vmlinuz-6.8": bz("6.8"), "lib/modules/6.9/x": ""}, "", "", "no lib/modules/6.8"},
		"two": {map[string]string{"boot/vmlinuz-6.8": bz("6.8"), "boot/vmlinuz-6.9": bz("6.9")},
			"", "", "there are 2, name one"},
		"none":                 {map[string]string{"etc/passwd": ""}, "", "", "it has no boot/vmlinuz"},
		"text":                 {map[string]string{"boot/vmlinuz": "text"}, "", "", "neither a bzImage nor a vmlinux"},
		"device":               {map[string]string{"boot/vmlinuz": "-> /dev/zero"}, "", "", "a link that leads out of"},
		"secret":               {map[string]string{"boot/vmlinuz": "-> ../../../../../../../../etc/passwd"}, "", "", "a link that leads out of"},
		"circle":               {map[string]string{"boot/vmlinuz": "-> vmlinuz"}, "", "", "it has no boot/vmlinuz"},
		"nothing":              {map[string]string{"boot/vmlinuz": "-> none"}, "", "", "it has no boot/vmlinuz"},
		"pipe":                 {map[string]string{"boot/vmlinuz": "|"}, "", "", "not a regular file"},
		"folder":               {map[string]string{"boot/vmlinuz/x": ""}, "", "", "not a regular file"},
		"modules out":          {map[string]string{"boot/vmlinuz": bz("6.8"), "lib/modules/6.8": "-> /"}, "", "", "a link that leads out of"},
		"config as pipe":       {map[string]string{"boot/vmlinuz": bz("6.8"), "boot/config-6.8": "|"}, "boot/vmlinuz", "", ""},
		"tree":                 {tree(nil), bzImage, ".", ""},
		"tree not built":       {tree(map[string]string{bzImage: "", "vmlinux": "", "arch/x86/Makefile": " "}), "", "", "make bzImage"},
		"tree with vmlinux":    {tree(map[string]string{bzImage: "", "arch/x86/Makefile": " "}), "vmlinux", ".", ""},
		"tree without modules": {tree(map[string]string{"modules.builtin": ""}), bzImage, "", ""},
		"half a build":         {tree(map[string]string{bzImage: bz("6.12.0-made")}), "", "", "of another build than vmlinux"},
		"link in tree":         {tree(map[string]string{bzImage: "-> /dev/zero", "vmlinux": ""}), "", "", "make bzImage"},
		"tree without PVH": {tree(map[string]string{bzImage: "", "arch/x86/Makefile": " ", "vmlinux": string(vmlinux(made, false))}),
			"", "", "CONFIG_PVH"},
		"broken config": {tree(map[string]string{".config": "text"}), "", "", "it is no kernel configuration"},
	} {
		dir := folder(t, test.files)
		k, err := Resolve(t.Context(), filepath.Join(t.TempDir(), "cache"), dir)
		if err != nil {
			if test.fails == "" || !strings.Contains(err.Error(), test.fails) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, want %q", name, err, test.fails)
			}
			continue
		}
		modules := ""
		if test.modules != "" {
			modules = filepath.Join(dir, test.modules)
		}
		if test.fails != "" || k.Image != filepath.Join(dir, test.image) || k.Modules != modules {
			t.Errorf("%s: %+v, want %s, %s, %q", name, k, test.image, test.modules, test.fails)
		}
	}
}

// many is a folder with kernels, each with a link to one configuration, of 20 000 options.
func many(t *testing.T, kernels int) (dir string) {
	t.Helper()
	var config strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&config, "CONFIG_%d=y\n", i)
	}
	files := map[string]string{"boot/config": config.String()}
	for i := range kernels {
		release := fmt.Sprintf("6.1.%d", i)
		files["boot/vmlinuz-"+release], files["boot/config-"+release] = string(testutil.BzImage(release, "")), "-> config"
	}
	return folder(t, files)
}

// No configuration is read before one kernel is left.
func TestResolveMany(t *testing.T) {
	dir := many(t, 16)
	testutil.Allocates(t, 4<<20, func() {
		if k, err := Resolve(t.Context(), t.TempDir(), dir); err == nil || !strings.Contains(err.Error(), "there are 16, name one") {
			t.Errorf("%+v, %v", k, err)
		}
	})
}

// Where a kernel is looked for in a folder of many, a run that was stopped ends, and its architecture is not another one.
func TestResolveStopped(t *testing.T) {
	t.Parallel()
	dir := many(t, 16)
	for left := range 10 {
		if k, err := Resolve(&fading{t.Context(), left}, t.TempDir(), dir); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped after %d: %+v, %v", left, k, err)
		}
		if arch, err := ArchOf(&fading{t.Context(), left}, dir); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped after %d: %q, %v", left, arch, err)
		}
	}
	// So does one in which kernels are looked for in folders of modules.
	wide := t.TempDir()
	for i := range 100 {
		if err := os.MkdirAll(filepath.Join(wide, "lib/modules", strconv.Itoa(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx := &fading{t.Context(), 50}
	if k, err := Resolve(ctx, t.TempDir(), wide); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", k, err)
	}
}

// A file of a tree is the kernel of that tree; QEMU gets the bzImage where the vmlinux is none
// that it boots.
func TestResolveFile(t *testing.T) {
	t.Parallel()
	pvh, plain := folder(t, tree(nil)), folder(t, tree(map[string]string{
		"vmlinux": string(vmlinux("Linux version 6.12.1-made (me@here) (gcc) #1 SMP made up\n", false))}))
	other := folder(t, tree(map[string]string{"vmlinux": string(vmlinux(made, false))}))
	alone := folder(t, map[string]string{
		"a/b/c/d/bzImage": string(testutil.BzImage("6.12.1-made", "")), "vmlinux": string(vmlinux(made, false)),
		"dir/boot/vmlinuz-6.1": string(testutil.BzImage("6.1-x", "")), "dir/lib/modules/6.1-x/modules.builtin": ""})
	for name, test := range map[string]struct{ path, image, vmlinux, modules, fails string }{
		"bzImage of a tree": {filepath.Join(pvh, bzImage), filepath.Join(pvh, bzImage), filepath.Join(pvh, "vmlinux"), pvh, ""},
		"vmlinux of a tree": {filepath.Join(pvh, "vmlinux"), filepath.Join(pvh, "vmlinux"), filepath.Join(pvh, "vmlinux"), pvh, ""},
		"no PVH":            {filepath.Join(plain, "vmlinux"), filepath.Join(plain, bzImage), filepath.Join(plain, "vmlinux"), plain, ""},
		"of another build":  {filepath.Join(other, "vmlinux"), "", "", "", "CONFIG_PVH"},
		"bzImage":           {filepath.Join(alone, "a/b/c/d/bzImage"), filepath.Join(alone, "a/b/c/d/bzImage"), "", "", ""},
		"vmlinux":           {filepath.Join(alone, "vmlinux"), "", "", "", "CONFIG_PVH"},
		"modules beside it": {filepath.Join(alone, "dir/boot/vmlinuz-6.1"), filepath.Join(alone, "dir/boot/vmlinuz-6.1"), "",
			filepath.Join(alone, "dir/lib/modules/6.1-x"), ""},
	} {
		k, err := Resolve(t.Context(), filepath.Join(t.TempDir(), "cache"), test.path)
		if err != nil {
			if test.fails == "" || !strings.Contains(err.Error(), test.fails) {
				t.Errorf("%s: %v, want %q", name, err, test.fails)
			}
			continue
		}
		if test.fails != "" || k.Image != test.image || k.Vmlinux != test.vmlinux || k.Modules != test.modules || k.Release == "" {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

// A tree's modules come from its list of them; one that is wanted and was not built is named.
func TestTreeModules(t *testing.T) {
	t.Parallel()
	veth, other := string(moduleWith("depends=a-b\x00")), string(moduleWith("x\x00"))
	config := strings.Replace(Config(), "CONFIG_VETH=y", "CONFIG_VETH=m", 1)
	for name, test := range map[string]struct {
		changes map[string]string
		order   string
		fails   string
	}{
		"built in": {nil, "", ""},
		"list of 6.4": {map[string]string{"modules.order": "drivers/net/veth.o\nlib/a-b.o\n", "drivers/net/veth.ko": veth,
			"lib/a-b.ko": other}, "a_b veth", ""},
		"list of 5.10": {map[string]string{"modules.order": "kernel/drivers/net/veth.ko\nkernel/a-b.ko\n", "drivers/net/veth.ko": veth,
			"a-b.ko": other}, "a_b veth", ""},
		"not built":     {map[string]string{"modules.order": "drivers/net/veth.o\n"}, "", "file does not exist: make modules"},
		"not listed":    {map[string]string{"modules.order": "", ".config": config}, "", "make modules"},
		"device":        {map[string]string{"modules.order": "drivers/net/veth.o\n", "drivers/net/veth.ko": "-> /dev/zero"}, "", "make modules"},
		"out of it":     {map[string]string{"modules.order": "../../etc/veth.o\n"}, "", "make modules"},
		"list as pipe":  {map[string]string{"modules.order": "|"}, "", "not a regular file"},
		"list as zeros": {map[string]string{"modules.order": "-> /dev/zero"}, "", "not a regular file"},
	} {
		changes := map[string]string{}
		if test.changes != nil {
			changes["modules.builtin"] = "kernel/lib/other.ko\n"
		}
		for name, content := range test.changes {
			changes[name] = content
		}
		k, err := Resolve(t.Context(), t.TempDir(), folder(t, tree(changes)))
		if err != nil {
			t.Fatal(name, err)
		}
		order, err := k.modules(t.Context(), func(string, []byte) error { return nil }, "veth")
		if strings.Join(order, " ") != test.order || (err == nil) != (test.fails == "") ||
			err != nil && !strings.Contains(err.Error(), test.fails) {
			t.Errorf("%s: %v, %v, want %q, %q", name, order, err, test.order, test.fails)
		}
	}
}

// Without a list of what is built in, a module that is not there may be.
func TestNoBuiltin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files map[string]string
		fails bool
	}{
		"no list":         {map[string]string{"kernel/lib/other.ko": ""}, false},
		"not in the list": {map[string]string{"modules.builtin": "kernel/lib/other.ko\n"}, true},
	} {
		k := Kernel{Modules: folder(t, test.files)}
		order, err := k.modules(t.Context(), func(string, []byte) error { return nil }, "veth")
		if len(order) > 0 || (err != nil) != test.fails {
			t.Errorf("%s: %v, %v", name, order, err)
		}
	}
}

// No module is a link out of the folder, and what is no module is not given to a guest.
func TestModulesInside(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(folder(t, map[string]string{"secret": "root's"}), "secret")
	for content, want := range map[string]string{"-> " + secret: "a link that leads out of", "root's": "no kernel, no module",
		string(moduleWith("x\x00")): ""} {
		dir := folder(t, map[string]string{"modules.builtin": "", "kernel/veth.ko": content})
		written := 0
		_, err := (&Kernel{Modules: dir}).modules(t.Context(), func(string, []byte) error { written++; return nil }, "veth")
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || written > 0) {
			t.Errorf("%.10q: %d files, %v, want %q", content, written, err, want)
		}
	}
}

// Packages of one kernel are unpacked together; their names may have a "+".
func TestJoined(t *testing.T) {
	t.Parallel()
	cache := filepath.Join(t.TempDir(), "cache")
	rename := func(path, name string) string {
		t.Helper()
		to := filepath.Join(filepath.Dir(path), name)
		if err := os.Rename(path, to); err != nil {
			t.Fatal(err)
		}
		return to
	}
	image := rename(deb(t, map[string]string{"boot/vmlinuz-1": kernelFiles["boot/vmlinuz-1"]}), "linux-image-1+deb13_1.deb")
	modules := rename(deb(t, map[string]string{"lib/modules/1/modules.builtin": ""}), "linux-modules-1+deb13_1.deb")
	k, err := Resolve(t.Context(), cache, image+"+"+modules)
	if err != nil || filepath.Base(k.Modules) != "1" || !strings.HasPrefix(k.Image, cache) {
		t.Fatalf("%+v, %v", k, err)
	}
	if alone, err := Resolve(t.Context(), cache, image); err != nil || alone.Modules != "" || alone.Dir == k.Dir {
		t.Errorf("%+v, %v", alone, err)
	}
	for name, want := range map[string]string{
		modules: "name them all", image + "+" + image + ".none": "no file or folder", image + "+" + filepath.Dir(image): "no file or folder",
		image + "+": "no file or folder", strings.Repeat(image+"+", 40) + image: "no file or folder",
	} {
		if _, err := Resolve(t.Context(), cache, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	text := filepath.Join(t.TempDir(), "notes")
	if err := errors.Join(os.WriteFile(text, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Resolve(t.Context(), cache, image+"+"+text); err == nil || !strings.Contains(err.Error(), "only packages are joined") {
		t.Error(err)
	}
	if got := split(image, maxParts); !slices.Equal(got, []string{image}) {
		t.Error(got)
	}
}
