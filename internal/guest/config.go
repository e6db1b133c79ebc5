package guest

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/unthunk/unthunk/internal/unpack"
)

//go:embed unthunk.config
var config string

// Config is what a kernel needs to be booted and counted in, as scripts/kconfig/merge_config.sh of
// its tree takes it: parts of options, each with its reason.
func Config() string { return config }

// Parts of [Config] that [Machine.Needs] names.
const (
	// PartBoot are what each guest needs.
	PartBoot = "boot"
	// PartCount are what counting on veth needs.
	PartCount = "count"
)

// partOptions are the options of a part of [Config].
func partOptions(part string) (names []string) {
	in := false
	for line := range strings.Lines(config) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			name, _, _ := strings.Cut(heading, ":")
			in = name == part
		}
		if name, _, ok := strings.Cut(line, "="); ok && in && strings.HasPrefix(name, "CONFIG_") {
			names = append(names, name)
		}
	}
	return names
}

// asked are the options of [Config].
var asked = sync.OnceValue(func() map[string]bool {
	names := make(map[string]bool)
	for line := range strings.Lines(config) {
		if name, ok := strings.CutSuffix(line, "=y\n"); ok {
			names[name] = true
		}
	}
	return names
})

// known tells whether [Config] has an option.
func known(option string) bool { return asked()[option] }

// options are those of [Config] that are built into a kernel, modules or left out: "y", "m", "n". One that the
// kernel does not know, or whose dependencies are left out, is not there.
type options map[string]string

// maxConfig is the largest configuration, in bytes: Debian's have 300 KB.
const maxConfig = 4 << 20

// parseOptions reads a kernel's configuration. What nobody asks for is not kept: it may have 100 000 options.
func parseOptions(text []byte) (options, error) {
	o, found := make(options), false
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		name, value, ok := bytes.Cut(line, []byte("="))
		if off, isOff := bytes.CutSuffix(line, []byte(" is not set")); isOff {
			name, value, ok = bytes.TrimPrefix(off, []byte("# ")), []byte("n"), true
		}
		if !ok || !bytes.HasPrefix(name, []byte("CONFIG_")) || len(value) != 1 || !bytes.Contains([]byte("ymn"), value) {
			continue
		}
		if found = true; asked()[string(name)] {
			o[string(name)] = string(value)
		}
	}
	if !found {
		return nil, errors.New("it is no kernel configuration")
	}
	return o, nil
}

// readConfig reads the configuration of a kernel: the file beside it, or what the image has in itself with
// CONFIG_IKCONFIG. There may be neither.
func (k *Kernel) readConfig(ctx context.Context) error {
	if k.Config != "" {
		text, err := unpack.ReadFile(k.Config, maxConfig)
		if err == nil {
			k.options, err = parseOptions(text)
		}
		if err != nil {
			return fmt.Errorf("read configuration %s: %w", k.Config, err)
		}
		return nil
	}
	release, err := unpack.Reserve(ctx, k.Image)
	if err != nil {
		return fmt.Errorf("read kernel %s: %w", k.Image, err)
	}
	defer release()
	b, err := unpack.File(ctx, k.Image)
	if err != nil {
		// One that cannot be unpacked here boots for all that.
		return ctx.Err()
	}
	if k.embedded, k.options = embedded(b); k.options != nil {
		k.Config = k.Image
	}
	return nil
}

// ConfigText is the configuration of a kernel that is at hand: of the file beside it, or of the image; nil where there is
// none.
func (k *Kernel) ConfigText() ([]byte, error) {
	if k.Config == "" || k.embedded != nil {
		return k.embedded, nil
	}
	text, err := unpack.ReadFile(k.Config, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return text, nil
}

// embedded is the configuration that a kernel has in itself (kernel/configs.c), with its options; nil where there is none.
func embedded(b []byte) ([]byte, options) {
	const start = "IKCFG_ST"
	for range 16 { // the name stands in the kernel's own code, too
		i := bytes.Index(b, []byte(start))
		if i < 0 {
			return nil, nil
		}
		b = b[i+len(start):]
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			continue
		}
		r.Multistream(false)
		text, err := io.ReadAll(io.LimitReader(r, maxConfig))
		if err != nil {
			continue
		}
		if o, err := parseOptions(text); err == nil {
			return text, o
		}
	}
	return nil, nil
}

// Lacking is the error of a guest whose kernel lacks options.
type Lacking struct {
	// Release is the kernel's, or empty; Options are what it lacks: CONFIG_VETH.
	Release string
	Options []string
	// By is how that is known: a configuration, or what failed in the guest.
	By string
	// Err is what failed, nil where nothing was tried.
	Err error
}

func (l *Lacking) Error() string {
	kernel := "the kernel"
	if l.Release != "" {
		kernel = "Linux " + l.Release
	}
	text := fmt.Sprintf("%s lacks %s (%s): unthunk lab --config prints what it needs", kernel, strings.Join(l.Options, ", "), l.By)
	if l.Err != nil {
		text = l.Err.Error() + ": " + text
	}
	return text
}

func (l *Lacking) Unwrap() error { return l.Err }

// check returns a [Lacking] when the configuration says that a kernel is built without what parts
// need. Without a configuration it returns nil: the guest will tell. It will tell, too, of options
// that the configuration does not have: Linux 7.3 works without PROC_SYSCTL, which it does not know.
func (k *Kernel) check(parts ...string) error {
	if lacks := k.which("n", parts...); len(lacks) > 0 {
		return &Lacking{Release: k.Release, Options: lacks, By: "by " + k.Config}
	}
	return nil
}

// which are the options of parts that have a value in the configuration, or with "" have none.
func (k *Kernel) which(value string, parts ...string) (names []string) {
	if k.options == nil {
		return nil
	}
	for _, part := range parts {
		for _, name := range partOptions(part) {
			if k.options[name] == value && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// moduleOptions are the options that build the modules a guest may load.
var moduleOptions = map[string]string{
	"veth": "CONFIG_VETH", "virtio_pci": "CONFIG_VIRTIO_PCI", "virtio_net": "CONFIG_VIRTIO_NET", "vmxnet3": "CONFIG_VMXNET3",
	"igb": "CONFIG_IGB",
}

// without is whether a guest can do without the file of a module that is not there: where it is
// built in, or where nothing says that it is not.
func (k *Kernel) without(module string) error {
	option := moduleOptions[module]
	switch value := k.options[option]; {
	case value == "m" && k.Tree:
		return fmt.Errorf("it is a module (%s=m), and not built: make modules", option)
	case value == "m":
		return fmt.Errorf("it is a module (%s=m), and there is no lib/modules/%s with it; where a kernel comes in several packages, "+
			"name them all: %s", option, k.Release, "image.deb+modules.deb")
	case (value == "" || value == "n") && k.options != nil && option != "":
		return &Lacking{Release: k.Release, Options: []string{option}, By: "by " + filepath.Clean(k.Config)}
	}
	return nil
}
