package main

import (
	"fmt"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// version is the version that Go recorded, in parts.
type version struct {
	base string // 1.2.3
	// before is what stands between 1.2.3 and the release of that name: rc.1 of a tag, the
	// time of the commit and its hash (20261129165012, 4da443c0ffee) of one without a tag.
	// It is empty for a release.
	before, hash string
}

// parseVersion takes a version as Go writes it, v1.2.3, v1.2.3-rc.1 or
// v0.0.0-20261129165012-4da443c0ffee.
func parseVersion(s string) (version, error) {
	if !semver.IsValid(s) || strings.Contains(s, "+") {
		return version{}, fmt.Errorf("read version: Go recorded %q", s)
	}
	v := version{base: strings.TrimPrefix(strings.TrimSuffix(semver.Canonical(s), semver.Prerelease(s)), "v")}
	if !module.IsPseudoVersion(s) {
		v.before = strings.TrimPrefix(semver.Prerelease(s), "-")
		return v, nil
	}
	at, err := module.PseudoVersionTime(s)
	if err != nil {
		return version{}, fmt.Errorf("read version: %w", err)
	}
	v.before = at.UTC().Format("20060102150405")
	v.hash, err = module.PseudoVersionRev(s)
	return v, err
}

// in is the version as a format of packages writes it. A version of a commit is older than
// the release of its number, and versions of commits have the order of their times.
func (v version) in(format string) string {
	switch {
	case v.before == "":
		return v.base
	case format == "apk": // letters and digits of some suffixes only
		if v.hash != "" {
			return v.base + "_pre" + v.before
		}
		return v.base + "_" + strings.NewReplacer(".", "", "-", "").Replace(v.before)
	case v.hash != "":
		return v.base + "~git" + v.before + "." + v.hash
	}
	return v.base + "~" + strings.ReplaceAll(v.before, "-", ".")
}

// String is the version as image and archives have it: 1.2.3, 0.0.0-20261129165012-4da443c0ffee.
func (v version) String() string {
	switch {
	case v.before == "":
		return v.base
	case v.hash != "":
		return v.base + "-" + v.before + "-" + v.hash
	}
	return v.base + "-" + v.before
}
