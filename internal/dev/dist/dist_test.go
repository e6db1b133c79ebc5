package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/blakesmith/ar"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/ulikunitz/xz"
)

var at = time.Date(2026, 11, 29, 16, 50, 12, 0, time.UTC)

const goVersion = "v0.0.0-20261129165012-4da443c0ffee"

// fake is what a commit is made of, without a compiler.
func fake(t *testing.T, dir string) ([]build, share, version) {
	t.Helper()
	info := &buildinfo.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Path: modulePath, Version: goVersion}, Deps: []*debug.Module{
		{Path: "example.com/a", Version: "v1.2.3", Sum: "h1:abc="},
		{Path: "example.com/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/new", Version: "v2.0.0"}},
	}}
	var builds []build
	for _, arch := range architectures {
		b := build{arch: arch, file: filepath.Join(dir, "out", "unthunk-linux-"+arch), info: info}
		stage(t, b.file, strings.Repeat("\x7fELF "+arch, 1000))
		builds = append(builds, b)
	}
	src := source{dir: dir}
	for _, i := range src.systemd() {
		stage(t, i.from, filepath.Base(i.to)+"\n")
	}
	s := share{scripts: filepath.Join(dir, "packaging", "scripts"), items: src.systemd()}
	for _, name := range []string{"deb-postinstall", "deb-preremove", "deb-postremove", "rpm-postinstall", "rpm-preremove", "rpm-postremove"} {
		stage(t, filepath.Join(s.scripts, name), "#!/bin/sh\n: "+name+"\n")
	}
	zsh := filepath.Join(dir, "completion.zsh")
	stage(t, zsh, "#compdef unthunk\n")
	s.items = append(s.items, item{from: zsh, to: "/usr/share/zsh/site-functions/_unthunk"})
	v, err := parseVersion(goVersion)
	if err != nil {
		t.Fatal(err)
	}
	return builds, s, v
}

func stage(t *testing.T, file, text string) {
	t.Helper()
	if err := stageFile(file, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// pack makes all files of a fake commit in a folder.
func pack(t *testing.T, dir string) string {
	t.Helper()
	builds, s, v := fake(t, dir)
	out := filepath.Join(dir, "out")
	for _, b := range builds {
		if err := errors.Join(writePackages(b, s, v, at, out), writeBOM(b, at, b.file+".cdx.json")); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(writeArchive(s, v, at, out), writeImage(builds, v, source{commit: "4da443c0ffee", at: at}, out), writeSums(out))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A signal ends dist, with nothing left behind: neither its folder nor what it started.
func TestSignals(t *testing.T) {
	const variable = "DIST_TEST_FOLDER"
	if dir := os.Getenv(variable); dir != "" {
		os.Args = []string{"dist", "-o", filepath.Join(dir, "out", "dist")}
		main()
	}
	// Where this process ignores SIGHUP (nohup), what it starts would, too; a signal that is caught here has its default there.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	for _, sent := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		dir := t.TempDir()
		git := "#!/bin/sh\ncase $1 in rev-parse) echo abc;; show) echo 1;; clone) echo $$ >$" + variable + "/pid; exec sleep 60;; esac\n"
		if err := os.WriteFile(filepath.Join(dir, "git"), []byte(git), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestSignals$")
		cmd.Env = append(os.Environ(), variable+"="+dir, "PATH="+dir+":"+os.Getenv("PATH"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		pid := 0
		for pid == 0 {
			select {
			case err := <-ended:
				t.Fatalf("it ended before the signal: %v: %s", err, &stderr)
			case <-time.After(10 * time.Millisecond):
			}
			b, _ := os.ReadFile(filepath.Join(dir, "pid"))
			pid, _ = strconv.Atoi(strings.TrimSuffix(string(b), "\n"))
		}
		if err := cmd.Process.Signal(sent); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%v: %v: %s", sent, err, &stderr)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "out")); err != nil || len(left) > 0 {
			t.Errorf("%v leaves %v, %v", sent, left, err)
		}
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("%v leaves what it started", sent)
		}
	}
}

// The same commit gives the same bytes: in another folder, with another umask, time of
// files and time zone, and a second later.
func TestSameBytes(t *testing.T) {
	first := pack(t, filepath.Join(t.TempDir(), "a"))
	t.Setenv("TZ", "Asia/Kathmandu")
	t.Setenv("SOURCE_DATE_EPOCH", "1")
	t.Setenv("HOSTNAME", "another")
	second := pack(t, filepath.Join(t.TempDir(), "a", "longer", "folder"))
	names := func(dir string) (list []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	all := names(first)
	if diff := cmp.Diff(all, names(second)); diff != "" {
		t.Fatal(diff)
	}
	if len(all) != 13 {
		t.Errorf("%d files: %q", len(all), all)
	}
	for _, name := range all {
		a, b := read(t, filepath.Join(first, name)), read(t, filepath.Join(second, name))
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", name)
		}
		if host, err := os.Hostname(); err == nil && len(host) > 4 && bytes.Contains(a, []byte(host)) {
			t.Errorf("%s names the host that built it", name)
		}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entries are the files of a tar, with modes, by name.
func entries(t *testing.T, r io.Reader) map[string]tar.Header {
	t.Helper()
	all := make(map[string]tar.Header)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			all[strings.TrimPrefix(h.Name, "./")] = *h
		}
	}
}

func checkEntries(t *testing.T, got map[string]tar.Header, want ...string) {
	t.Helper()
	for _, name := range want {
		h, ok := got[name]
		mode := int64(0o644)
		if name == "usr/bin/unthunk" {
			mode = 0o755
		}
		if !ok || h.Mode&0o7777 != mode || h.Uid != 0 || !h.ModTime.Equal(at) {
			t.Errorf("%s: %v, mode %o, user %d, of %v", name, ok, h.Mode, h.Uid, h.ModTime)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d: %v", len(got), len(want), got)
	}
}

func TestDeb(t *testing.T) {
	out := pack(t, t.TempDir())
	const name = "unthunk_0.0.0~git20261129165012.4da443c0ffee_arm64.deb"
	archive := ar.NewReader(bytes.NewReader(read(t, filepath.Join(out, name))))
	for _, want := range []string{"debian-binary", "control.tar.gz", "data.tar.xz"} {
		h, err := archive.Next()
		if err != nil || strings.TrimRight(h.Name, "/") != want {
			t.Fatalf("%v, %v, want %s", h, err, want)
		}
		var unpacked io.Reader
		switch filepath.Ext(want) {
		case ".gz":
			unpacked, err = gzip.NewReader(archive)
		case ".xz":
			unpacked, err = xz.NewReader(archive)
		default:
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all := entries(t, unpacked)
		if want == "data.tar.xz" {
			checkEntries(t, all, "usr/bin/unthunk", "usr/lib/systemd/system/unthunk-agent.service",
				"usr/lib/systemd/system/unthunk-agent.timer", "etc/default/unthunk-agent",
				"usr/lib/systemd/system/unthunk-forward.service", "etc/default/unthunk-forward", "usr/share/zsh/vendor-completions/_unthunk")
			continue
		}
		for _, control := range []string{"control", "md5sums", "conffiles", "postinst", "prerm", "postrm"} {
			if _, ok := all[control]; !ok {
				t.Errorf("%s is missing", control)
			}
		}
	}
}

// The Alpine package has no units: there is another init.
func TestAPK(t *testing.T) {
	out := pack(t, t.TempDir())
	unpacked, err := gzip.NewReader(bytes.NewReader(read(t, filepath.Join(out, "unthunk_0.0.0_pre20261129165012_x86_64.apk"))))
	if err != nil {
		t.Fatal(err)
	}
	all := entries(t, unpacked)
	if _, ok := all[".PKGINFO"]; !ok {
		t.Error(".PKGINFO is missing")
	}
	delete(all, ".PKGINFO")
	checkEntries(t, all, "usr/bin/unthunk", "usr/share/zsh/site-functions/_unthunk")
}

func TestArchive(t *testing.T) {
	out := pack(t, t.TempDir())
	unpacked, err := gzip.NewReader(bytes.NewReader(read(t, filepath.Join(out, "unthunk-0.0.0-20261129165012-4da443c0ffee-share.tar.gz"))))
	if err != nil {
		t.Fatal(err)
	}
	checkEntries(t, entries(t, unpacked), "usr/lib/systemd/system/unthunk-agent.service", "usr/lib/systemd/system/unthunk-agent.timer",
		"etc/default/unthunk-agent", "usr/lib/systemd/system/unthunk-forward.service", "etc/default/unthunk-forward",
		"usr/share/zsh/site-functions/_unthunk")
}

// The image has the binary of each architecture and nothing else, and a reader of OCI
// layouts finds nothing wrong with it.
func TestImage(t *testing.T) {
	out := pack(t, t.TempDir())
	dir := t.TempDir()
	for tr := tar.NewReader(bytes.NewReader(read(t, filepath.Join(out, "unthunk-0.0.0-20261129165012-4da443c0ffee-image.oci.tar")))); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		stage(t, filepath.Join(dir, h.Name), string(b))
	}
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Error(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if got := manifest.Manifests[0].Annotations["io.containerd.image.name"]; got != imageName+":0.0.0-20261129165012-4da443c0ffee" {
		t.Errorf("it is called %q", got)
	}
	all, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if manifest, err = all.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range manifest.Manifests {
		found = append(found, m.Platform.Architecture)
		img, err := all.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != m.Platform.Architecture || !slices.Equal(config.Config.Entrypoint, []string{"/unthunk"}) ||
			!config.Created.Equal(at) {
			t.Errorf("%+v", config)
		}
		files := entries(t, mutate.Extract(img))
		if h := files["unthunk"]; len(files) != 1 || h.Mode != 0o755 {
			t.Errorf("in it are %v", files)
		}
	}
	if !slices.Equal(found, architectures) {
		t.Errorf("images for %q", found)
	}
}

func TestBOM(t *testing.T) {
	out := pack(t, t.TempDir())
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(read(t, filepath.Join(out, "unthunk-linux-amd64.cdx.json"))),
		cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, c := range *bom.Components {
		found = append(found, c.PackageURL)
	}
	want := []string{"pkg:golang/std@1.26.8", "pkg:golang/example.com/a@v1.2.3", "pkg:golang/example.com/new@v2.0.0"}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(read(t, filepath.Join(out, "unthunk-linux-amd64"))))
	if main := bom.Metadata.Component; main.Version != goVersion || (*main.Hashes)[0].Value != sum {
		t.Errorf("%+v", main)
	}
}

func TestSums(t *testing.T) {
	dir := t.TempDir()
	stage(t, filepath.Join(dir, "a"), "abc")
	if err := writeSums(dir); err != nil {
		t.Fatal(err)
	}
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n" // FIPS 180-2, example B.1
	if got := string(read(t, filepath.Join(dir, sumsName))); got != want {
		t.Errorf("%q", got)
	}
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct{ version, deb, apk, text string }{
		{"v1.2.3", "1.2.3", "1.2.3", "1.2.3"},
		{"v1.2.3-rc.1", "1.2.3~rc.1", "1.2.3_rc1", "1.2.3-rc.1"},
		{goVersion, "0.0.0~git20261129165012.4da443c0ffee", "0.0.0_pre20261129165012", "0.0.0-20261129165012-4da443c0ffee"},
		{"v1.2.4-0.20261129165012-4da443c0ffee", "1.2.4~git20261129165012.4da443c0ffee", "1.2.4_pre20261129165012",
			"1.2.4-20261129165012-4da443c0ffee"},
	} {
		v, err := parseVersion(tt.version)
		if err != nil {
			t.Errorf("%s: %v", tt.version, err)
			continue
		}
		if v.in("deb") != tt.deb || v.in("rpm") != tt.deb || v.in("apk") != tt.apk || v.String() != tt.text {
			t.Errorf("%s: %s, %s, %s, %s", tt.version, v.in("deb"), v.in("rpm"), v.in("apk"), v)
		}
	}
	for _, wrong := range []string{"", "(devel)", "1.2.3", "v1.2.3+dirty", goVersion + "+dirty"} {
		if v, err := parseVersion(wrong); err == nil {
			t.Errorf("%q is %v", wrong, v)
		}
	}
}

func TestLicenseFiles(t *testing.T) {
	for _, name := range []string{"LICENSE", "LICENSE.txt", "License-MIT", "COPYING", "NOTICE", "LICENSES"} {
		if !license.MatchString(name) {
			t.Errorf("%s is none", name)
		}
	}
	for _, name := range []string{"README.md", "licensed", "copying_test"} {
		if license.MatchString(name) {
			t.Errorf("%s is one", name)
		}
	}
	dir := t.TempDir()
	stage(t, filepath.Join(dir, "README"), "no license")
	if err := appendLicenses(&bytes.Buffer{}, os.DirFS(dir)); err == nil {
		t.Error("a module without a license is distributed")
	}
}

// A folder that dist did not write stays.
func TestWrongUse(t *testing.T) {
	other := t.TempDir()
	stage(t, filepath.Join(other, "thesis.tex"), "years of work")
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, "name one folder"},
		{[]string{"-o", other, "more"}, 2, "name one folder"},
		{[]string{"-o", other}, 1, "dist did not write it"},
		{[]string{"-o", filepath.Join(other, "new"), "-commit", "no-such"}, 1, "find commit"},
		{[]string{"-o", filepath.Join(other, "new"), "-commit", "--all"}, 1, "find commit"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), tt.args, &stdout, &stderr); code != tt.code || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%q: %d, %q", tt.args, code, stderr.String())
		}
	}
	if left, err := os.ReadDir(other); err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// Only a folder that holds what dist wrote, and nothing else, is replaced: other mirrors have a file SHA256SUMS, too.
func TestReplaceable(t *testing.T) {
	const sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  "
	for name, tt := range map[string]struct {
		files map[string]string
		link  string
		says  string
	}{
		"empty":          {},
		"of dist":        {files: map[string]string{sumsName: sum + "unthunk-linux-amd64\n", "unthunk-linux-amd64": ""}},
		"of dist, less":  {files: map[string]string{sumsName: sum + "unthunk-linux-amd64\n"}},
		"no sums":        {files: map[string]string{"unthunk-linux-amd64": ""}, says: "dist did not write it"},
		"a mirror":       {files: map[string]string{sumsName: sum + "debian.iso\n", "debian.iso": ""}, says: `has "debian.iso"`},
		"more":           {files: map[string]string{sumsName: sum + "unthunk-a\n", "unthunk-a": "", "thesis.tex": ""}, says: `has "thesis.tex"`},
		"not listed":     {files: map[string]string{sumsName: sum + "unthunk-a\n", "unthunk-b": ""}, says: `has "unthunk-b"`},
		"a folder":       {files: map[string]string{sumsName: sum + "unthunk-a\n", "unthunk-a/thesis.tex": ""}, says: `has "unthunk-a"`},
		"a link":         {files: map[string]string{sumsName: sum + "unthunk-a\n"}, link: "unthunk-a", says: `has "unthunk-a"`},
		"sums by a link": {link: sumsName, says: "dist did not write it"},
	} {
		dir := t.TempDir()
		for file, text := range tt.files {
			stage(t, filepath.Join(dir, file), text)
		}
		if tt.link != "" {
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, tt.link)); err != nil {
				t.Fatal(err)
			}
		}
		if err := replaceable(dir); (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
	// What dist writes is replaced by what it writes next.
	if err := replaceable(pack(t, t.TempDir())); err != nil {
		t.Error(err)
	}
}
