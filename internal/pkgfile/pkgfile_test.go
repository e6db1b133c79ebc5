package pkgfile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// file is an entry of a package that is made for a test. Its mode is that of stat(2).
type file struct {
	name    string
	mode    uint32
	content string // of a link: where it leads
	hard    bool   // content is the name of another entry
	device  uint64
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// deb is a package with data.tar.gz.
func deb(t testing.TB, files ...file) []byte {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	types := map[uint32]byte{
		syscall.S_IFREG: tar.TypeReg, syscall.S_IFDIR: tar.TypeDir, syscall.S_IFLNK: tar.TypeSymlink,
		syscall.S_IFCHR: tar.TypeChar, syscall.S_IFBLK: tar.TypeBlock, syscall.S_IFIFO: tar.TypeFifo,
	}
	for _, f := range files {
		h := &tar.Header{
			Name: f.name, Mode: int64(f.mode & 0o7777), Typeflag: types[f.mode&syscall.S_IFMT], Uid: 1234, Gid: 1234, Devmajor: 1, Devminor: 1,
		}
		content := f.content
		switch {
		case f.hard:
			h.Typeflag, h.Linkname, content = tar.TypeLink, f.content, ""
		case h.Typeflag == tar.TypeSymlink:
			h.Linkname, content = f.content, ""
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return ar("debian-binary", []byte("2.0\n"), "control.tar.gz", gz(t, nil), "data.tar.gz", gz(t, data.Bytes()))
}

// ar is an archive of names and contents.
func ar(members ...any) []byte {
	out := []byte(arMagic)
	for i := 0; i < len(members); i += 2 {
		content := members[i+1].([]byte)
		out = fmt.Appendf(out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", members[i], 0, 0, 0, 0o100644, len(content))
		out = append(out, content...)
		out = append(out, make([]byte, len(content)&1)...)
	}
	return out
}

// rpm is a package whose payload is packed with gzip.
func rpm(t testing.TB, files ...file) []byte {
	t.Helper()
	return rpmOf(gz(t, cpio(files...)))
}

func rpmOf(payload []byte) []byte {
	out := append(bytes.Clone(rpmMagic), make([]byte, 92)...)
	for _, size := range []int{13, 5} { // one entry and some bytes each
		out = append(out, "\x8e\xad\xe8\x01\x00\x00\x00\x00"...)
		out = binary.BigEndian.AppendUint32(out, 1)
		out = binary.BigEndian.AppendUint32(out, uint32(size))
		out = append(out, make([]byte, 16+size)...)
		if size == 13 {
			out = append(out, make([]byte, 3)...) // to 8 bytes
		}
	}
	return append(out, payload...)
}

// cpio is an archive in the newc format. Files with the content of others come first and
// have none, as rpm writes them.
func cpio(files ...file) []byte {
	var out []byte
	pad := func() { out = append(out, make([]byte, -len(out)&3)...) }
	for i, f := range append(files, file{name: "TRAILER!!!"}) {
		inode, links, content := i+1, 1, f.content
		if f.hard {
			content = ""
		}
		for j, g := range files {
			if f.hard && g.name == f.content || !f.hard && g.hard && g.content == f.name {
				inode, links = 1000+min(i, j), 2
			}
		}
		out = fmt.Appendf(out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			inode, f.mode, 1234, 1234, links, 0, len(content), 0, 0, f.device>>8, f.device&255, len(f.name)+1, 0)
		out = append(append(out, f.name...), 0)
		pad()
		out = append(out, content...)
		pad()
	}
	return out
}

// unpackBytes unpacks a package into a folder of its own.
func unpackBytes(t testing.TB, b []byte) (dir string, m Manifest, err error) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(t.TempDir(), "package")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err = Unpack(t.Context(), dir, Package{Path: path})
	return dir, m, err
}

// listed is what is in a folder: names with their modes, and where links lead.
func listed(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		all[name] = info.Mode().String()
		if to, err := os.Readlink(path); err == nil {
			all[name] = "-> " + to
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
			t.Errorf("%s belongs to %d", name, owner)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const (
	reg = syscall.S_IFREG
	dir = syscall.S_IFDIR
	lnk = syscall.S_IFLNK
)

// Of a package that no packager made there are only files, folders and links that stay
// inside: the reproduction of a set-user-ID shell, of a disk's device and of a folder for
// all.
func TestHostile(t *testing.T) {
	t.Parallel()
	files := []file{
		{name: "./", mode: dir | 0o777},
		{name: "./boot/", mode: dir | 0o1777},
		{name: "./boot/vmlinuz-1", mode: reg | 0o644, content: "kernel"},
		{name: "./bin/sh", mode: reg | 0o4755, content: "shell"},
		{name: "./all", mode: reg | 0o666, content: "x"},
		{name: "./mem", mode: syscall.S_IFCHR | 0o666, device: 1<<8 | 1},
		{name: "./sda", mode: syscall.S_IFBLK | 0o666, device: 8 << 8},
		{name: "./pipe", mode: syscall.S_IFIFO | 0o666},
		{name: "./ok", mode: lnk | 0o777, content: "boot/vmlinuz-1"},
		{name: "./abs", mode: lnk | 0o777, content: "/etc/passwd"},
		{name: "./up", mode: lnk | 0o777, content: "../../etc/passwd"},
		{name: "./dangling", mode: lnk | 0o777, content: "none"},
		// By a link that is inside, out of the folder.
		{name: "./deep/er/top", mode: lnk | 0o777, content: "../.."},
		{name: "./deep/er/out", mode: lnk | 0o777, content: "top/../etc"},
		{name: "./deep/er/top/file", mode: reg | 0o644, content: "y"},
	}
	want := map[string]string{
		"boot": "drwxr-xr-x", "boot/vmlinuz-1": "-rw-r--r--", "bin": "drwxr-xr-x", "bin/sh": "-rwxr-xr-x", "all": "-rw-r--r--",
		"ok": "-> boot/vmlinuz-1", "deep": "drwxr-xr-x", "deep/er": "drwxr-xr-x", "deep/er/top": "drwxr-xr-x", "deep/er/top/file": "-rw-r--r--",
	}
	for name, b := range map[string][]byte{"deb": deb(t, files...), "rpm": rpm(t, files...)} {
		into, m, err := unpackBytes(t, b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, listed(t, into)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got := slices.Sorted(maps.Keys(m.Files)); !slices.Equal(got, []string{"all", "bin/sh", "boot/vmlinuz-1", "deep/er/top/file"}) ||
			m.Files["bin/sh"] != fmt.Sprintf("%x", sha256.Sum256([]byte("shell"))) {
			t.Errorf("%s: sums of %v", name, got)
		}
	}
}

// Links that lead out of the folder by other links are removed.
func TestLinks(t *testing.T) {
	t.Parallel()
	files := []file{
		{name: "a/b/file", mode: reg | 0o644, content: "x"},
		{name: "a/b/top", mode: lnk, content: "../.."},
		{name: "a/b/out", mode: lnk, content: "top/../etc"},
		{name: "a/b/in", mode: lnk, content: "top/a/b/file"},
		{name: "loop", mode: lnk, content: "loop"},
		{name: "same", mode: reg | 0o600, content: "a/b/file", hard: true},
	}
	want := map[string]string{
		"a": "drwxr-xr-x", "a/b": "drwxr-xr-x", "a/b/file": "-rw-r--r--", "a/b/top": "-> ../..",
		"a/b/in": "-> top/a/b/file", "same": "-rw-r--r--",
	}
	// rpm has the links of a file before its content.
	rpmFiles := append([]file{files[5]}, files[:5]...)
	for name, b := range map[string][]byte{"deb": deb(t, files...), "rpm": rpm(t, rpmFiles...)} {
		into, m, err := unpackBytes(t, b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, listed(t, into)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if b, err := os.ReadFile(filepath.Join(into, "same")); string(b) != "x" || m.Files["same"] != m.Files["a/b/file"] {
			t.Errorf("%s: the linked file holds %q, %v", name, b, err)
		}
	}
}

// What is refused, and says why.
func TestRefuses(t *testing.T) {
	t.Parallel()
	one := file{name: "x", mode: reg | 0o644, content: "x"}
	broken := cpio(one)
	copy(broken[54:], "ffffffff")
	negative := cpio(one)
	copy(negative[54:], "-0000001")
	longName := cpio(one)
	copy(longName[94:], "7fffffff")
	for name, test := range map[string]struct {
		b    []byte
		want string
	}{
		"nothing":          {nil, "neither a .deb nor a .rpm"},
		"text":             {[]byte("a text of some length"), "neither a .deb nor a .rpm"},
		"no data":          {ar("debian-binary", []byte("2.0\n")), "find data.tar"},
		"broken header":    {append(ar(), bytes.Repeat([]byte{'x'}, 60)...), "a broken header"},
		"negative size":    {append(ar(), fmt.Sprintf("%-48s%-10d`\n", "x", -4)...), "a broken header"},
		"empty data":       {ar("data.tar", []byte{}), "EOF"},
		"cut":              {deb(t, one)[:150], "EOF"},
		"out of it":        {deb(t, file{name: "../x", mode: reg}), "leads out of the package"},
		"out of the rpm":   {rpm(t, file{name: "a/../../x", mode: reg}), "leads out of the package"},
		"deep":             {deb(t, file{name: strings.Repeat("d/", maxDepth+1), mode: dir}), "33 folders"},
		"long":             {rpm(t, file{name: strings.Repeat("d", maxPath+1), mode: dir}), "a name of"},
		"control":          {deb(t, file{name: "a/\x01b", mode: reg}), "has control characters or is not UTF-8"},
		"delete":           {rpm(t, file{name: "a\x7f", mode: dir}), "has control characters or is not UTF-8"},
		"C1":               {rpm(t, file{name: "a\u0085", mode: reg}), "has control characters or is not UTF-8"},
		"not UTF-8":        {rpm(t, file{name: "a\xff", mode: reg}), "has control characters or is not UTF-8"},
		"to control":       {rpm(t, one, file{name: "l", mode: lnk, content: "\x01/../x"}), "leads to a path with control"},
		"no lead":          {rpmMagic, "neither"},
		"lead":             {rpm(t)[:90], "read lead"},
		"no header":        {append(bytes.Clone(rpmMagic), make([]byte, 200)...), "it is broken"},
		"no payload":       {rpmOf(nil), "EOF"},
		"large file":       {rpmOf(broken), "more than 2048 MiB"},
		"negative":         {rpmOf(negative), "a broken header"},
		"long name":        {rpmOf(longName), "a name of"},
		"not cpio":         {rpmOf(bytes.Repeat([]byte{'x'}, 200)), "is not known"},
		"a file as folder": {deb(t, one, file{name: "x/y", mode: reg}), "x"},
	} {
		into, _, err := unpackBytes(t, test.b)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q; %v", name, err, test.want, listed(t, into))
		}
	}
}

// A bomb, of which all is left out, is refused when it unpacks to more than the limit.
func TestBomb(t *testing.T) {
	t.Parallel()
	// A device does not have content; this one has 4 GiB of it.
	archive := append(cpio(file{name: "x", mode: syscall.S_IFCHR})[:112], make([]byte, 64<<20)...)
	copy(archive[54:], "ffffffff")
	into := t.TempDir()
	root, err := os.OpenRoot(into)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tr := newTree(t.Context(), root)
	tr.stream = 32 << 20
	if err := tr.read(bytes.NewReader(rpmOf(gz(t, archive)))); err == nil || len(listed(t, into)) > 0 {
		t.Error(err)
	}
	// So is one of more files than there may be.
	tr.entries = maxEntries
	if err := tr.read(bytes.NewReader(deb(t, file{name: "x", mode: reg}))); !errors.Is(err, errEntries) {
		t.Error(err)
	}
	tr.entries = 0
	// A file that is larger than what may be written is not begun.
	tr.bytes = 10
	err = tr.read(bytes.NewReader(deb(t, file{name: "x", mode: reg, content: "more than ten"})))
	if !errors.Is(err, errBytes) || len(listed(t, into)) > 0 {
		t.Error(err)
	}
}

// Names have a limit together, with what links lead to: the manifest holds them all.
func TestNames(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	long := strings.Repeat("n", 200)
	for name, test := range map[string]struct {
		file file
		room int
		want error
	}{
		"file": {file{name: long, mode: reg}, 200, nil}, "long file": {file{name: long, mode: reg}, 199, errNames},
		"link":             {file{name: "l", mode: lnk, content: long}, 201, nil},
		"long":             {file{name: "l", mode: lnk, content: long}, 200, errNames},
		"what is left out": {file{name: long, mode: syscall.S_IFIFO}, 199, errNames},
	} {
		tr := newTree(t.Context(), root)
		tr.names = test.room
		if err := tr.read(bytes.NewReader(deb(t, test.file))); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
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

// Folders that no entry names count as those that one does, and none is made when ctx has
// ended.
func TestImplied(t *testing.T) {
	t.Parallel()
	const depth = 20
	deep := strings.Repeat("d/", depth)
	// try adds an entry and returns how many folders that made.
	try := func(ctx context.Context, f file, room int) (int, error) {
		t.Helper()
		into := t.TempDir()
		root, err := os.OpenRoot(into)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		tr := newTree(t.Context(), root)
		tr.entries = maxEntries - room
		if err = tr.read(bytes.NewReader(deb(t, f))); err == nil {
			tr.ctx = ctx
			err = errors.Join(tr.mkdir(deep+"more"), tr.finish())
		}
		made := 0
		for _, mode := range listed(t, into) {
			if strings.HasPrefix(mode, "d") {
				made++
			}
		}
		return made, err
	}
	for name, f := range map[string]file{
		"folder": {name: deep, mode: dir}, "file": {name: deep + "f", mode: reg}, "link": {name: deep + "l", mode: lnk, content: "f"},
	} {
		if n, err := try(t.Context(), f, depth+2); err != nil || n != depth+1 {
			t.Errorf("%s: %v, %d folders", name, err, n)
		}
		if n, err := try(t.Context(), f, depth/2); !errors.Is(err, errEntries) || n > depth/2 {
			t.Errorf("%s: %v, %d folders when there was room for %d", name, err, n, depth/2)
		}
	}
	link := file{name: deep + "l", mode: lnk, content: "f"}
	if n, err := try(&fading{t.Context(), depth / 2}, link, maxEntries); !errors.Is(err, context.Canceled) || n != depth/2 {
		t.Errorf("%v, %d folders", err, n)
	}
}

// A folder that a file has replaced is made anew or refused, not taken for one that is there.
func TestReplaced(t *testing.T) {
	t.Parallel()
	folder, asFile := file{name: "x/", mode: dir}, file{name: "x", mode: reg, content: "x"}
	into, m, err := unpackBytes(t, deb(t, folder, asFile))
	if all := listed(t, into); err != nil || all["x"] != "-rw-r--r--" || len(m.Files) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if _, _, err := unpackBytes(t, deb(t, folder, asFile, folder)); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
}

// What was changed since it was unpacked is found.
func TestVerify(t *testing.T) {
	t.Parallel()
	files := []file{{name: "a/b", mode: reg | 0o644, content: "kernel"}, {name: "c", mode: lnk, content: "a/b"}}
	for name, change := range map[string]func(dir string) error{
		"":        func(string) error { return nil },
		"content": func(dir string) error { return os.WriteFile(filepath.Join(dir, "a/b"), []byte("kernal"), 0o644) },
		"gone":    func(dir string) error { return os.Remove(filepath.Join(dir, "c")) },
		"more":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "d"), nil, 0o644) },
		"link": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "c")), os.Symlink("/etc", filepath.Join(dir, "c")))
		},
		"a pipe": func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "d"), 0o600) },
		"a link in its place": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "a/b")), os.Symlink("/dev/zero", filepath.Join(dir, "a/b")))
		},
	} {
		dir, m, err := unpackBytes(t, deb(t, files...))
		if err != nil {
			t.Fatal(err)
		}
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(t.Context(), dir); (err == nil) != (name == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(path, deb(t, file{name: "x", mode: reg}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(ctx, t.TempDir(), Package{Path: path}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A package is unpacked whose bytes, as they are unpacked, have the SHA-256 that was asked
// for: not another one of its name, nor one that has more.
func TestSum(t *testing.T) {
	t.Parallel()
	good, evil := deb(t, file{name: "x", mode: reg, content: "good"}), deb(t, file{name: "x", mode: reg, content: "evil"})
	sum, err := Sum(t.Context(), bytes.NewReader(good))
	if err != nil || sum != fmt.Sprintf("%x", sha256.Sum256(good)) {
		t.Fatalf("%s, %v", sum, err)
	}
	for name, test := range map[string]struct {
		b  []byte
		ok bool
	}{
		"the same": {good, true}, "another": {evil, false}, "more": {append(bytes.Clone(good), 'x'), false},
	} {
		path := filepath.Join(t.TempDir(), "x.deb")
		if err := os.WriteFile(path, test.b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Unpack(t.Context(), t.TempDir(), Package{path, sum})
		if (err == nil) != test.ok || err != nil && !strings.Contains(err.Error(), "it was changed while it was read") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// endless has no end; it ends ctx when it was read some times.
type endless struct {
	cancel func()
	reads  int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.reads++; e.reads == 3 {
		e.cancel()
	}
	return len(p), nil
}

// What is hashed is left when ctx ends.
func TestSumCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	e := &endless{cancel: cancel}
	if _, err := Sum(ctx, e); !errors.Is(err, context.Canceled) || e.reads != 3 {
		t.Errorf("%v after %d reads", err, e.reads)
	}
}

// Packages are regular files.
func TestNotRegular(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "x.deb")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero"} {
		if _, err := Unpack(t.Context(), t.TempDir(), Package{Path: path}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A package that dpkg-deb made unpacks to what it was made of, whatever packs it.
func TestDpkg(t *testing.T) {
	from := t.TempDir()
	for name, content := range map[string]string{
		"DEBIAN/control": "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n",
		"boot/vmlinuz-1": "kernel", "lib/modules/1/kernel/" + strings.Repeat("long", 40) + ".ko": "module",
	} {
		path := filepath.Join(from, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, pack := range []string{"none", "gzip", "xz", "zstd"} {
		file := filepath.Join(t.TempDir(), "x.deb")
		if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Z"+pack, "-b", from, file).CombinedOutput(); err != nil {
			if strings.Contains(string(out), "unknown compression") {
				continue
			}
			t.Logf("%v: %s", err, out)
			testutil.Missing(t, "dpkg-deb")
		}
		into := t.TempDir()
		m, err := Unpack(t.Context(), into, Package{Path: file})
		if err != nil || len(m.Files) != 2 {
			t.Errorf("%s: %v, %v", pack, m, err)
		}
		for name := range m.Files {
			want, _ := os.ReadFile(filepath.Join(from, name))
			if got, err := os.ReadFile(filepath.Join(into, name)); err != nil || !bytes.Equal(got, want) || len(want) == 0 {
				t.Errorf("%s: %s is %q, %v; want %q", pack, name, got, err, want)
			}
		}
	}
}

// fuzz unpacks what pack makes of bytes: nothing panics, nothing is outside, no file is more
// than a file, and the memory that it takes is bounded. All inputs have one folder, as most
// write nothing, and making and removing one takes longer than all else.
func fuzz(f *testing.F, pack func([]byte) []byte) {
	outside := f.TempDir()
	into := filepath.Join(outside, "into")
	if err := os.Mkdir(into, 0o755); err != nil {
		f.Fatal(err)
	}
	root, err := os.OpenRoot(into)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		tr := newTree(t.Context(), root)
		tr.bytes, tr.stream = 1<<20, 4<<20
		b = pack(b)
		testutil.Allocates(t, budget+uint64(len(b)), func() {
			if err := tr.read(bytes.NewReader(b)); err == nil {
				if err := tr.finish(); err != nil {
					t.Error(err)
				}
			}
		})
		all := listed(t, outside)
		for name, mode := range all {
			outside := name != "into" && !strings.HasPrefix(name, "into/")
			if outside || !strings.HasPrefix(mode, "-> ") && strings.Trim(mode, "-drwx") != "" {
				t.Errorf("%s: %s", name, mode)
			}
		}
		if len(all) == 1 {
			return
		}
		if err := errors.Join(os.RemoveAll(into), os.Mkdir(into, 0o755)); err != nil {
			t.Fatal(err)
		}
		root.Close()
		if root, err = os.OpenRoot(into); err != nil {
			t.Fatal(err)
		}
	})
}

// budget is the memory that a package takes: the history of what packs it, and half as
// much while that grows.
const budget = 100 << 20

var seeds = []file{
	{name: "./a", mode: dir | 0o755}, {name: "./a/b", mode: reg | 0o755, content: "text"}, {name: "./c", mode: lnk, content: "a/b"},
	{name: "d", mode: reg, content: "./a/b", hard: true}, {name: "e", mode: syscall.S_IFIFO},
}

func FuzzDeb(f *testing.F) {
	f.Add(deb(f, seeds...))
	fuzz(f, func(b []byte) []byte { return b })
}

// FuzzTar feeds what data.tar may hold, not packed.
func FuzzTar(f *testing.F) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, h := range []*tar.Header{
		{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o777}, {Name: "a/" + strings.Repeat("b", 120), Typeflag: tar.TypeReg},
		{Name: "c", Typeflag: tar.TypeSymlink, Linkname: "a"}, {Name: "d", Typeflag: tar.TypeChar},
	} {
		if err := w.WriteHeader(h); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(plain.Bytes())
	fuzz(f, func(b []byte) []byte { return ar("data.tar", b) })
}

func FuzzRPM(f *testing.F) {
	f.Add(rpm(f, seeds...))
	fuzz(f, func(b []byte) []byte { return b })
}

// FuzzCpio feeds what the payload of an rpm may hold, not packed.
func FuzzCpio(f *testing.F) {
	f.Add(cpio(seeds...))
	fuzz(f, rpmOf)
}
