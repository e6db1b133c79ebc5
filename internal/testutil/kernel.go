package testutil

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"strconv"
	"strings"

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

// atLeast compares the version at the begin of a kernel's release, "6.1.0-28-amd64",
// with one like "5.18". A release that does not begin with a version is older than
// every version.
func atLeast(release, version string) bool {
	major, minor, ok := parseVersion(release)
	wantMajor, wantMinor, wantOK := parseVersion(version)
	return ok && wantOK && (major > wantMajor || major == wantMajor && minor >= wantMinor)
}

func parseVersion(s string) (major, minor int, ok bool) {
	first, rest, ok := strings.Cut(s, ".")
	if !ok {
		return 0, 0, false
	}
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		rest = rest[:end]
	}
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(rest)
	return major, minor, err == nil
}
