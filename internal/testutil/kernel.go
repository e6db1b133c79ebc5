package testutil

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// kernel is what tests need to know of a kernel.
type kernel struct {
	release string // "6.1.0-28-amd64"
	// config returns the configuration that it was built with, a line an option,
	// or nothing where the machine does not have it.
	config func() string
}

func running() kernel {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return kernel{}
	}
	release := unix.ByteSliceToString(name.Release[:])
	return kernel{release, func() string { return config(release) }}
}

// config reads the configuration where kernels (CONFIG_IKCONFIG_PROC) and
// distributions put it.
func config(release string) string {
	if b, err := os.ReadFile("/proc/config.gz"); err == nil {
		if r, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
			if b, err = io.ReadAll(r); err == nil {
				return string(b)
			}
		}
	}
	for _, path := range []string{"/boot/config-" + release, "/lib/modules/" + release + "/config"} {
		if b, err := os.ReadFile(path); err == nil {
			return string(b)
		}
	}
	return ""
}
