// Package release reads the version that a kernel's release begins with, as that of "6.12.117+deb13-amd64".
package release

import (
	"strconv"
	"strings"
)

// Series is the first two numbers of a release: "6.12". A release that does not begin with two is returned as it is.
func Series(release string) string {
	first, second, ok := numbers(release)
	if !ok {
		return release
	}
	return first + "." + second
}

// AtLeast tells whether a release is of a version, as "6.10", or later; false where either does not begin with two numbers.
func AtLeast(release, version string) bool {
	order, ok := compare(release, version)
	return ok && order >= 0
}

// Before tells whether a release is older than a version; false where either does not begin with two numbers.
func Before(release, version string) bool {
	order, ok := compare(release, version)
	return ok && order < 0
}

func compare(a, b string) (order int, ok bool) {
	majorA, minorA, okA := parse(a)
	majorB, minorB, okB := parse(b)
	if majorA != majorB {
		return majorA - majorB, okA && okB
	}
	return minorA - minorB, okA && okB
}

func parse(s string) (major, minor int, ok bool) {
	first, second, ok := numbers(s)
	major, errMajor := strconv.Atoi(first)
	minor, errMinor := strconv.Atoi(second)
	return major, minor, ok && errMajor == nil && errMinor == nil
}

// numbers are the digits at the begin of a release, and those behind the dot that follows them.
func numbers(s string) (first, second string, ok bool) {
	first, rest, _ := strings.Cut(s, ".")
	second = rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	return first, second, first != "" && second != "" && strings.Trim(first, "0123456789") == ""
}
