package guest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/pkgfile"
	"github.com/unthunk/unthunk/internal/testutil"
)

// deb is a package of files and their contents, each with set-user-ID and for all to write.
func deb(t *testing.T, files map[string]string) (path string) {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	err := w.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 1234})
	for name, content := range files {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o4777, Uid: 1234, Size: int64(len(content))}))
		_, e := w.Write([]byte(content))
		err = errors.Join(err, e)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	b := fmt.Appendf([]byte("!<arch>\n"), "%-48s%-10d`\n", "data.tar", data.Len())
	path = filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(path, append(b, data.Bytes()...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var kernelFiles = map[string]string{
	"boot/vmlinuz-1": string(testutil.BzImage("1", "kernel")), "lib/modules/1/modules.builtin": "", "lib/modules/1/kernel/veth.ko": "module",
}

// A package is unpacked once, into a folder that only its user can write. What was changed
// there is unpacked anew.
func TestCache(t *testing.T) {
	t.Parallel()
	cache, file := filepath.Join(t.TempDir(), "cache"), deb(t, kernelFiles)
	resolve := func() (Kernel, fs.FileInfo) {
		t.Helper()
		k, err := Resolve(t.Context(), cache, file)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(k.Image)
		if err != nil {
			t.Fatal(err)
		}
		return k, info
	}
	k, first := resolve()
	err := filepath.WalkDir(cache, func(path string, d fs.DirEntry, err error) error {
		info, e := d.Info()
		if err := errors.Join(err, e); err != nil {
			return err
		}
		if mode := info.Mode(); mode&0o022 != 0 || mode&fs.ModeSetuid != 0 || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
			t.Errorf("%s: %v", path, mode)
		}
		return nil
	})
	if err != nil || k.Release != "1" || !strings.HasPrefix(k.Image, k.Dir) {
		t.Errorf("%+v, %v", k, err)
	}
	if _, second := resolve(); !os.SameFile(first, second) {
		t.Error("it was unpacked twice")
	}
	if err := os.WriteFile(k.Image, []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	resolve()
	if b, err := os.ReadFile(k.Image); err != nil || string(b) != kernelFiles["boot/vmlinuz-1"] {
		t.Errorf("the cached kernel is %q, %v", b, err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(k.Dir), manifestName)); err != nil {
		t.Fatal(err)
	}
	resolve()
	_, err = Resolve(t.Context(), cache, deb(t, map[string]string{"etc/passwd": ""}))
	if err == nil || !strings.Contains(err.Error(), "holds no kernel") {
		t.Error(err)
	}
	left, err := os.ReadDir(cache)
	if err != nil || len(left) != 1 {
		t.Errorf("the cache holds %v, %v", left, err)
	}
}

// A folder that holds a kernel of another architecture is as good as none, and is made anew.
func TestCachedArch(t *testing.T) {
	t.Parallel()
	c := cached{filepath.Join(t.TempDir(), "6.12")}
	arm64 := make([]byte, 4096)
	copy(arm64[0x38:], "ARMd")
	kernels := map[string]string{
		ARM64: deb(t, map[string]string{"boot/vmlinuz-6.12.1-made": string(arm64) + made, "lib/modules/6.12.1-made/modules.builtin": ""}),
		AMD64: deb(t, map[string]string{"boot/vmlinuz-1-amd64": string(testutil.BzImage("1-amd64", "")), "lib/modules/1-amd64/x": ""}),
	}
	fill := func(arch, of string) (Kernel, error) {
		return c.fillKernel(t.Context(), arch, func(string) ([]pkgfile.Package, error) { return files([]string{kernels[of]}), nil })
	}
	for _, arch := range []string{ARM64, AMD64, ARM64, AMD64} {
		if k, err := c.kernel(t.Context(), arch); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("before it is made: %+v, %v", k, err)
		}
		for range 2 { // what is there stays
			if k, err := fill(arch, arch); err != nil || k.Arch != arch {
				t.Errorf("%s: %+v, %v", arch, k, err)
			}
		}
		for _, any := range []string{arch, ""} {
			if k, err := c.kernel(t.Context(), any); err != nil || k.Arch != arch {
				t.Errorf("%s as %q: %+v, %v", arch, any, k, err)
			}
		}
	}
	for arch, want := range map[string]string{AMD64: "1-amd64", ARM64: ""} {
		if got := releaseIn(c.dir, arch); got != want {
			t.Errorf("the release of %s is %q, want %q", arch, got, want)
		}
	}
	const want = "unpack kernel: boot/vmlinuz-1-amd64 is a kernel of amd64, not of arm64"
	if k, err := fill(ARM64, AMD64); err == nil || err.Error() != want {
		t.Errorf("%+v, %v, want %q", k, err, want)
	}
}

// What is wrong with a package is told with names in it: the folder that it was unpacked into is gone.
func TestPackedNames(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "cache")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	one, two := string(testutil.BzImage("1", "")), string(testutil.BzImage("2", ""))
	for _, test := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"boot/vmlinuz-1": one, "boot/vmlinuz-2": two},
			"unpack kernel: there are 2 kernels: unpack it into a folder, and name one there: boot/vmlinuz-1, boot/vmlinuz-2"},
		{map[string]string{"boot/vmlinuz-1": one, "boot/config-1": "text"},
			"unpack kernel: read configuration boot/config-1: it is no kernel configuration"},
		{map[string]string{"boot/vmlinuz-1": one, "lib/modules/2/x": ""}, "unpack kernel: find the modules of boot/vmlinuz-1: " +
			"there is no lib/modules/1; where a kernel comes in several packages, unpack them into one folder and name that"},
	} {
		for _, cache := range []string{t.TempDir(), filepath.Join(link, "x")} {
			if k, err := Resolve(t.Context(), cache, deb(t, test.files)); err == nil || err.Error() != test.want {
				t.Errorf("%+v, %v, want %q", k, err, test.want)
			}
		}
	}
}

// A package that was exchanged after it was hashed is not kept under the hash of the first.
func TestExchanged(t *testing.T) {
	t.Parallel()
	cache, genuine := filepath.Join(t.TempDir(), "cache"), deb(t, kernelFiles)
	b, err := os.ReadFile(genuine)
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(b))
	evil := deb(t, map[string]string{"boot/vmlinuz-1": string(testutil.BzImage("1", "evil")), "lib/modules/1/modules.builtin": ""})
	if k, err := summed(t.Context(), cache, pkgfile.Package{Path: evil, SHA256: sum}); err == nil ||
		!strings.Contains(err.Error(), "it was changed while it was read") {
		t.Errorf("%+v, %v", k, err)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) != 0 {
		t.Errorf("the cache holds %v, %v", left, err)
	}
	k, err := Resolve(t.Context(), cache, genuine)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(k.Image); err != nil || string(b) != kernelFiles["boot/vmlinuz-1"] ||
		filepath.Base(filepath.Dir(k.Dir)) != "package-"+sum {
		t.Errorf("%s holds %q, %v", k.Image, b, err)
	}
}

// A manifest that verify would not read is not written; the characters that JSON may escape
// for HTML stay one byte.
func TestManifestLimit(t *testing.T) {
	t.Parallel()
	m := pkgfile.Manifest{Files: map[string]string{strings.Repeat("<", 100): ""}}
	b, err := encode(m, 200)
	if err != nil {
		t.Fatal(err)
	}
	var again pkgfile.Manifest
	if err := json.Unmarshal(b, &again); err != nil || len(again.Files) != 1 {
		t.Errorf("%s, %v", b, err)
	}
	if b, err := encode(m, len(b)-1); err == nil {
		t.Errorf("%d bytes", len(b))
	}
}

// What a killed run left is removed, what a run that lives has is not.
func TestLeft(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	dead, err := os.MkdirTemp(cache, scratchPrefix)
	if err != nil {
		t.Fatal(err)
	}
	alive, done, err := scratch(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	if err := openCache(t.Context(), cache); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{dead: false, alive: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
	done()
	if _, err := os.Stat(alive); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// fading ends after it was asked some times whether it has.
type fading struct {
	context.Context
	left int
}

func (f *fading) Err() error {
	if f.left--; f.left < 0 {
		return context.Canceled
	}
	return nil
}

// Folders are removed with all that is in them and without what links lead to, and no more
// of them when the context has ended.
func TestRemoveAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, kept := filepath.Join(dir, "x"), filepath.Join(dir, "kept")
	for i := range 10 {
		folder := filepath.Join(path, strconv.Itoa(i), "a")
		err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "b"), nil, 0o600))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(kept, nil, 0o600), os.Symlink("..", filepath.Join(path, "up"))); err != nil {
		t.Fatal(err)
	}
	if err := removeAll(&fading{t.Context(), 10}, path); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left, err := os.ReadDir(path); err != nil || len(left) < 7 || len(left) > 9 {
		t.Errorf("%v, %v", left, err)
	}
	for range 2 { // the second time there is nothing
		if err := removeAll(t.Context(), path); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "kept" {
		t.Errorf("%v, %v", left, err)
	}
	// What killed runs left is not removed when the context has ended.
	if err := os.Mkdir(filepath.Join(dir, scratchPrefix+"1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := openCache(&fading{Context: t.Context()}, dir); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// As root a cache is one that only root can change: what another user put there, a QEMU
// too, is not used.
func TestTrusted(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	mk := func(name string, mode os.FileMode, uid int) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, uid, 0), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(dir, "link")
	own, others, all := mk("own", 0o755, 0), mk("others", 0o755, 1234), mk("all", 0o777, 0)
	if err := os.Symlink(others, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		own: "", filepath.Join(own, "none", "none"): "", others: "belongs to user 1234", filepath.Join(others, "none"): "belongs to user 1234",
		mk("others/own", 0o755, 0): "belongs to user 1234", all: "others than root can write",
		mk("all/own", 0o755, 0): "others than root can write", filepath.Join(link, "none"): "belongs to user 1234",
		mk("sticky", 0o777|os.ModeSticky, 0): "others than root can write", mk("sticky/own", 0o755, 0): "", "/usr/bin/env": "",
	} {
		err := trusted(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	file := deb(t, kernelFiles)
	for _, cache := range []string{others, filepath.Join(others, "cache"), all} {
		if k, err := Resolve(t.Context(), cache, file); err == nil {
			t.Errorf("%s: %+v", cache, k)
		}
		if err := (cached{filepath.Join(cache, "qemu")}).verify(t.Context()); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a QEMU in %s: %v", cache, err)
		}
	}
	if dir, err := CacheDir(); err != nil || dir != rootCache {
		t.Errorf("%s, %v", dir, err)
	}
}

// Programs of root do not come from PATH, and their environment is not the caller's.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("LD_PRELOAD", "x.so")
	path, err := program("apt-get")
	if os.Geteuid() == 0 && filepath.Dir(path) == dir || os.Geteuid() != 0 && filepath.Dir(path) != dir {
		t.Errorf("%s, %v", path, err)
	}
	if env := strings.Join(environment(), " "); strings.Contains(env, dir) || strings.Contains(env, "LD_PRELOAD") {
		t.Error(env)
	}
}

// QEMU has its sandbox and, as root, no rights.
func TestUnprivileged(t *testing.T) {
	if err := Available(AMD64); err != nil {
		testutil.SkipMissing(t, err)
	}
	for _, q := range []QEMU{{}, {root: "/cache/qemu"}} {
		left, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(left)
		cmd, err := q.command(t.Context(), "-machine", "none")
		if err != nil {
			t.Fatal(err)
		}
		if args := strings.Join(cmd.Args, " "); !strings.Contains(args, "-sandbox on,") || !filepath.IsAbs(cmd.Path) {
			t.Errorf("%s: %s", cmd.Path, args)
		}
		if flags, err := unix.FcntlInt(uintptr(left), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: what was open before stays open, %v", cmd.Path, err)
		}
		if c := cmd.SysProcAttr.Credential; (c == nil) != (os.Geteuid() != 0) || c != nil && (c.Uid != nobody || c.Gid != nobody) {
			t.Errorf("%+v", c)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{Kernel: Kernel{Image: "/dev/zero", Modules: t.TempDir()}, Init: self}
	if err := os.WriteFile(filepath.Join(m.Kernel.Modules, "modules.builtin"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a kernel that is /dev/zero: %v", err)
	}
}

// A guest that writes without end is stopped.
func TestWatch(t *testing.T) {
	t.Parallel()
	console, err := nameless()
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	results, err := nameless()
	if err != nil {
		t.Fatal(err)
	}
	defer results.Close()
	if err := console.Truncate(maxConsole + 1); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	go watch(ctx, stop, map[*os.File]int64{console: maxConsole, results: MaxResults})
	<-ctx.Done()
	if err := context.Cause(ctx); !strings.Contains(err.Error(), "it wrote more than 4 MiB") {
		t.Error(err)
	}
}

// Modules that are no files, and lists of them, are refused at once.
func TestModulesRefused(t *testing.T) {
	t.Parallel()
	zero := func(path string) error { return os.Symlink("/dev/zero", path) }
	pipe := func(path string) error { return unix.Mkfifo(path, 0o600) }
	text := func(path string) error { return os.WriteFile(path, []byte("text"), 0o600) }
	for name, test := range map[string]struct {
		builtin, veth func(string) error
		want          string
	}{
		"list":         {zero, text, "list built-in modules: open"},
		"list as pipe": {pipe, text, "list built-in modules: open"},
		"module":       {text, zero, "a link that leads out of"},
		"pipe":         {text, pipe, "not a regular file"},
		"text":         {text, text, "no kernel, no module"},
	} {
		dir := t.TempDir()
		if err := errors.Join(test.builtin(filepath.Join(dir, "modules.builtin")), test.veth(filepath.Join(dir, "veth.ko"))); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := (&Kernel{Modules: dir}).modules(ctx, func(string, []byte) error { return nil }, "veth")
		if err == nil || !strings.Contains(err.Error(), test.want) || ctx.Err() != nil {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		cancel()
	}
}

// moduleWith is an ELF file that has information of a module and nothing else.
func moduleWith(info string) []byte {
	names := "\x00.modinfo\x00.shstrtab\x00"
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 1) // ET_REL
	le.PutUint16(b[18:], 62)
	le.PutUint32(b[20:], 1)
	b = append(append(b, info...), names...)
	le.PutUint64(b[40:], uint64(len(b)))
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2)
	b = append(b, make([]byte, 64)...)
	for _, s := range []struct{ name, kind, at, size int }{
		{1, 1, 64, len(info)}, {10, 3, 64 + len(info), len(names)},
	} {
		h := make([]byte, 64)
		le.PutUint32(h, uint32(s.name))
		le.PutUint32(h[4:], uint32(s.kind))
		le.PutUint64(h[24:], uint64(s.at))
		le.PutUint64(h[32:], uint64(s.size))
		b = append(b, h...)
	}
	return b
}

// What a module needs is read while there is room for it, and its list has an end.
func TestModulesLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"modules.builtin": nil, "veth.ko": moduleWith("depends=a-b,c\x00"), "a-b.ko": moduleWith("depends=\x00"),
		"c.ko": moduleWith("depends=\x00"), "most.ko": moduleWith("depends=" + strings.Repeat("a-b,", maxDepends/4-1) + "a-b\x00"),
		"long.ko": moduleWith("depends=" + strings.Repeat("a-b,", maxDepends/4) + "a-b\x00"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	full := errors.New("no more room")
	for _, test := range []struct {
		module, want, err string
		room              int
	}{
		{"veth", "a_b c veth", "", 3},
		{"veth", "", "no more room", 2},
		{"most", "a_b most", "", 3},
		{"long", "", "bytes of modules that it needs", 3},
	} {
		read := 0
		order, err := (&Kernel{Modules: dir}).modules(t.Context(), func(string, []byte) error {
			if read++; read > test.room {
				return full
			}
			return nil
		}, test.module)
		if strings.Join(order, " ") != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, %v, want %q, %q", test.module, order, err, test.want, test.err)
		}
		if test.err == "no more room" && read != test.room+1 {
			t.Errorf("%d modules were read when there was room for %d", read, test.room)
		}
	}
}
