package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/apk"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

const (
	modulePath = "github.com/unthunk/unthunk"
	maintainer = "The unthunk authors <unthunk@users.noreply.github.com>"
	summary    = "Where the packets per second of XDP_REDIRECT went"
	about      = summary + `
It measures XDP_REDIRECT on one core of any Linux machine, shows the indirect branches
that a packet runs through, and prices them. unthunk-agent.timer, which is off until it
is enabled, has a machine at work measured once a week.`
)

// writePackages writes the packages of one architecture into a folder.
func writePackages(b build, s share, v version, at time.Time, out string) error {
	for _, format := range []string{"deb", "rpm", "apk"} {
		info := describe(b, s, v, at, format)
		packager, err := nfpm.Get(format)
		if err != nil {
			return fmt.Errorf("make %s: %w", format, err)
		}
		if err := writeFile(filepath.Join(out, packager.ConventionalFileName(info)), func(f *os.File) error {
			return packager.Package(info, f)
		}); err != nil {
			return fmt.Errorf("make %s of %s: %w", format, b.arch, err)
		}
	}
	return nil
}

// describe is a package in nfpm's words.
func describe(b build, s share, v version, at time.Time, format string) *nfpm.Info {
	contents := files.Contents{content(b.file, "/usr/bin/unthunk", 0o755, at)}
	for _, i := range s.items {
		if !i.inFormat(format) {
			continue
		}
		to := i.to
		if format == "deb" {
			to = strings.Replace(to, "/zsh/site-functions/", "/zsh/vendor-completions/", 1)
		}
		c := content(i.from, to, 0o644, at)
		if i.config {
			c.Type = files.TypeConfigNoReplace
		}
		contents = append(contents, c)
	}
	info := &nfpm.Info{
		Name: "unthunk", Arch: b.arch, Platform: "linux", Version: v.in(format), VersionSchema: "none",
		Section: "net", Priority: "optional", Maintainer: maintainer, Vendor: "unthunk",
		Description: about, Homepage: "https://" + modulePath, License: "Apache-2.0",
		MTime: at, DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Contents: contents,
			Deb:      nfpm.Deb{Compression: "xz"},
			// The host that builds is not in what it builds.
			RPM: nfpm.RPM{BuildHost: "unthunk", Summary: summary, Group: "Unspecified", Compression: "xz"},
		},
	}
	if format == "apk" { // Alpine has no systemd, so that there is nothing to reload or stop
		return info
	}
	info.Scripts = nfpm.Scripts{
		PostInstall: filepath.Join(s.scripts, format+"-postinstall"),
		PreRemove:   filepath.Join(s.scripts, format+"-preremove"),
		PostRemove:  filepath.Join(s.scripts, format+"-postremove"),
	}
	return info
}

func content(from, to string, mode os.FileMode, at time.Time) *files.Content {
	return &files.Content{
		Source: from, Destination: to,
		FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: at},
	}
}

// writeFile makes a file, which must not be there.
func writeFile(name string, fill func(*os.File) error) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	return fill(f)
}
