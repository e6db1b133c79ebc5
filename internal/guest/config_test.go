package guest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// configured is an image that has a configuration in itself, as CONFIG_IKCONFIG makes it.
func configured(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return vmlinux(made+"IKCFG_ST is a name here\x00IKCFG_ST"+b.String()+"IKCFG_ED", true)
}

// Each part of the configuration is read, and each group of options has its reason above it.
func TestConfig(t *testing.T) {
	t.Parallel()
	for part, option := range map[string]string{PartBoot: "CONFIG_DEVTMPFS", PartCount: "CONFIG_VETH", "nic": "CONFIG_IGB", "none": ""} {
		if got := partOptions(part); option == "" && len(got) > 0 || option != "" && !strings.Contains(strings.Join(got, " ")+" ", option+" ") {
			t.Errorf("%s: %v, want %s", part, got, option)
		}
	}
	seen := make(map[string]bool)
	reason := false
	for line := range strings.Lines(Config()) {
		name, value, isOption := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case strings.HasPrefix(line, "# CONFIG_"):
		case strings.HasPrefix(line, "#"):
			reason = true
		case line == "\n":
			reason = false
		case !isOption || !strings.HasPrefix(name, "CONFIG_") || value != "y" || seen[name] || !reason || !known(name):
			t.Errorf("%q", line)
		}
		seen[name] = true
	}
	for _, option := range moduleOptions {
		if !known(option) {
			t.Errorf("%s is in no part", option)
		}
	}
	for _, s := range signs {
		if !known(s.option) {
			t.Errorf("%s is in no part", s.option)
		}
	}
}

// The configuration of a kernel is the file's beside it, or that in its image (CONFIG_IKCONFIG).
func TestConfigText(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	image, file := filepath.Join(dir, "vmlinux"), filepath.Join(dir, "config")
	const inside, beside = "CONFIG_VETH=y\nCONFIG_HZ=1000\n", "CONFIG_VETH=m\n"
	if err := errors.Join(os.WriteFile(image, configured(t, inside), 0o600), os.WriteFile(file, []byte(beside), 0o600)); err != nil {
		t.Fatal(err)
	}
	k := &Kernel{Image: image}
	if err := k.readConfig(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, err := k.ConfigText(); err != nil || string(text) != inside || k.Config != image {
		t.Errorf("%q, %v", text, err)
	}
	k = &Kernel{Image: image, Config: file}
	if err := k.readConfig(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, err := k.ConfigText(); err != nil || string(text) != beside {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := new(Kernel).ConfigText(); text != nil || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// A kernel that lacks options is told which before it is booted, by its configuration wherever
// that is.
func TestLacking(t *testing.T) {
	t.Parallel()
	all := Config()
	without := strings.NewReplacer("CONFIG_VETH=y", "# CONFIG_VETH is not set", "CONFIG_BPF_JIT=y", "# CONFIG_BPF_JIT is not set",
		"CONFIG_KPROBES=y", "").Replace(all)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("package/boot/vmlinuz-6.1-x", testutil.BzImage("6.1-x", ""))
	write("package/boot/config-6.1-x", []byte(without))
	write("whole/boot/vmlinuz-6.1-x", testutil.BzImage("6.1-x", ""))
	write("whole/lib/modules/6.1-x/config", []byte(all))
	write("whole/lib/modules/6.1-x/modules.builtin", nil)
	bare := write("bare/x", configured(t, without))
	silent := write("silent/x", testutil.BzImage("6.1-x", ""))
	for name, want := range map[string]string{
		filepath.Join(dir, "package"): "Linux 6.1-x lacks CONFIG_BPF_JIT, CONFIG_VETH (by ",
		bare:                          "Linux 6.12.1-made lacks CONFIG_BPF_JIT, CONFIG_VETH (by " + bare + ")",
		filepath.Join(dir, "whole"):   "", silent: "",
	} {
		k, err := Resolve(t.Context(), dir, name)
		if err != nil {
			t.Fatal(err)
		}
		err = k.check(PartBoot, PartCount)
		lacking, ok := errors.AsType[*Lacking](err)
		if ok != (want != "") || ok && (!strings.HasPrefix(lacking.Error(), want) ||
			strings.Join(lacking.Options, " ") != "CONFIG_BPF_JIT CONFIG_VETH") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if err := k.check(PartBoot); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// What is not in a configuration refuses nothing, and is named when something fails.
		absent := strings.Join(k.which("", PartBoot, PartCount), " ")
		if absent != map[bool]string{true: "CONFIG_KPROBES"}[want != ""] {
			t.Errorf("%s has no %q", name, absent)
		}
		err = Report{absent: k.which("", PartCount), absentBy: "by " + k.Config}.Lacks(errors.New("it failed"))
		if strings.Contains(err.Error(), "lacks CONFIG_KPROBES") != (want != "") {
			t.Error(err)
		}
	}
	write("package/boot/config-6.1-x", []byte("text"))
	_, err := Resolve(t.Context(), dir, filepath.Join(dir, "package"))
	if err == nil || !strings.Contains(err.Error(), "it is no kernel configuration") {
		t.Error(err)
	}
}

// Of a configuration only what is asked for is kept: lab has one for each of its kernels.
func TestOptionsKept(t *testing.T) {
	var text bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&text, "CONFIG_%d=y\n", i)
	}
	text.WriteString("CONFIG_VETH=m\r\n# CONFIG_BPF_JIT is not set\nCONFIG_IGB=7\n")
	testutil.Allocates(t, 64<<10, func() {
		o, err := parseOptions(text.Bytes())
		if want := (options{"CONFIG_VETH": "m", "CONFIG_BPF_JIT": "n"}); err != nil || !maps.Equal(o, want) {
			t.Errorf("%v, %v", o, err)
		}
	})
	if o, err := parseOptions([]byte("CONFIG_A=y\n")); err != nil || o == nil {
		t.Errorf("a configuration of what nobody asks for: %v, %v", o, err)
	}
}

// Debian's kernels lack nothing that is asked for before a boot: an option with another name in
// one of them would refuse a good kernel.
func TestDebianConfigs(t *testing.T) {
	t.Parallel()
	dir, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, pattern := range []string{"*/root/boot/config-*", "*/root/usr/lib/modules/*/config"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		k := Kernel{Config: file}
		if k.options, err = parseOptions(text); err != nil {
			t.Fatal(err)
		}
		// Debian's arm64 kernels have it from 6.12 on.
		old := strings.HasSuffix(file, "-arm64") && strings.Contains(file, "config-6.1.")
		if err := k.check(PartBoot, PartCount); err != nil && !old {
			t.Error(err)
		}
		if absent := k.which("", PartBoot, PartCount); len(absent) > 0 {
			t.Errorf("%s does not know %v", file, absent)
		}
	}
}

// What a guest prints and what fails in it says what its kernel lacks; only options that are
// asked for are named.
func TestExplain(t *testing.T) {
	t.Parallel()
	k, failed := Kernel{Release: "6.1-x"}, errors.New("guest ended")
	for console, want := range map[string]string{
		"":                                     "",
		"init: gone":                           "",
		"CONFIG_VETH":                          "",
		"module returned -38":                  "",
		"futexwakeup addr=0x1234 returned -38": "CONFIG_FUTEX",
		"[1.0] VFS: Unable to mount root fs on unknown-block(0,0)\nKernel panic":                "CONFIG_BLK_DEV_INITRD",
		"Failed to execute /init (error -8)":                                                    "CONFIG_BINFMT_ELF",
		lacksPrefix + "CONFIG_TMPFS: mount /tmp\n" + lacksPrefix + "CONFIG_TMPFS: mount /run\n": "CONFIG_TMPFS",
		lacksPrefix + "CONFIG_NO_SUCH: \x1b[31m":                                                "",
		lacksPrefix + "CONFIG_NET_NS: x":                                                        "CONFIG_NET_NS",
	} {
		err := k.explain(console, failed)
		lacking, ok := errors.AsType[*Lacking](err)
		if !errors.Is(err, failed) || ok != (want != "") || ok && strings.Join(lacking.Options, " ") != want {
			t.Errorf("%q: %v, want %q", console, err, want)
		}
	}
	r := Report{Results: []Result{{Lacks: []string{"CONFIG_VETH", "CONFIG_\x1b", "CONFIG_VETH"}}, {Lacks: []string{"CONFIG_BPF_JIT"}}}}
	err := r.Lacks(failed)
	if err == nil || err.Error() != "guest ended: the kernel lacks CONFIG_VETH, CONFIG_BPF_JIT (by what failed in the guest): "+
		"unthunk lab --config prints what it needs" || !errors.Is(err, failed) {
		t.Error(err)
	}
	if r.Lacks(nil) != nil {
		t.Error("what did not fail lacks nothing")
	}
}

// FuzzConfig feeds the readers of configurations what is none.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(Config()))
	f.Add([]byte("CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"x\"\n"))
	f.Add([]byte("IKCFG_ST\x1f\x8b\x08\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		testutil.Allocates(t, 64<<20+uint64(64*len(b)), func() {
			o, err := parseOptions(b)
			for name, value := range o {
				if err != nil || !known(name) || value != "y" && value != "m" && value != "n" {
					t.Errorf("%q=%q, %v", name, value, err)
				}
			}
			if text, o := embedded(b); (text == nil) != (o == nil) {
				t.Error("options without a configuration")
			}
		})
	})
}
